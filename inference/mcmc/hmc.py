"""Hamiltonian Monte Carlo with a fixed number of leapfrog steps (Neal 2011).

Paths of fixed length resonate with the frequencies of a target; the step size of every move is
therefore drawn uniformly within 20 % of epsilon (Neal 2011, section 5.4.2.2).
"""

import math
from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float

from jurax.inference.mcmc.kernel import AbstractMetropolis, Scale, differentiate
from jurax.inference.mcmc.leapfrog import hamiltonian_move
from jurax.ppl import random
from jurax.ppl.checks import at_least

JITTER = 0.2


class HMC(AbstractMetropolis):
    """Hamiltonian Monte Carlo.

    Args:
        step_size: epsilon; None: tuned by the algorithm that runs the kernel to an acceptance rate
            of .8, but not beyond a path of `num_leapfrogs * step_size` = pi / 2, which already
            gives independent draws of a normal target whose covariance is the scale's.
        num_leapfrogs: L, gradients for each move.
        scale: standard deviations `(D,)` or a Cholesky factor `(D, D)` of the target's
            covariance, the inverse mass matrix; None: 1, or tuned.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> kernel = HMC(step_size=0.4, num_leapfrogs=4)
        >>> log_density = lambda x: -0.5 * jnp.sum(x**2)
        >>> state = kernel.init(log_density, jnp.zeros((1000, 2)))
        >>> for key in jax.random.split(jax.random.key(0), 5):
        ...     state, info = kernel.step(key, state, log_density)
        >>> bool(abs(state.x.var() - 1) < 0.1)
        True
    """

    step_size: float | Float[Array, ""] | None = None
    num_leapfrogs: int = eqx.field(static=True, default=10)
    scale: Scale | None = None
    target_acceptance: ClassVar[tuple[float, ...]] = (0.8,)  # type: ignore[misc]

    def __check_init__(self):
        at_least(1, num_leapfrogs=self.num_leapfrogs)

    def default_step_size(self, dim):
        """(pi / 2) / L, at most .8 D^{-1/4}."""
        return min(math.pi / 2 / self.num_leapfrogs, 0.8 * dim**-0.25)

    def largest_step_sizes(self):
        """(pi / 2) / L."""
        return (math.pi / 2 / self.num_leapfrogs,)

    def init(self, log_density, x):
        """The state at `x`, with its gradient."""
        return differentiate(log_density, x)

    def step(self, key, state, log_density):
        """Follow the flow and accept or reject; consumes `key`."""
        key_step, key_move = random.split(key)
        jitter = random.uniform(
            key_step, state.log_prob.shape, minval=1 - JITTER, maxval=1 + JITTER
        )
        step = self.step_sizes(state.x.shape[-1])[0] * jitter
        return hamiltonian_move(key_move, state, log_density, step, self.scale, self.num_leapfrogs)
