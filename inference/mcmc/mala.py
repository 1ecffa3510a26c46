"""Metropolis-adjusted Langevin: propose x + (epsilon^2/2) S S' grad log p(x) + epsilon S z.

The same law as one leapfrog step (Neal 2011, section 5.5.2), and made of it. Steps of order
D^{-1/6} and an acceptance rate of .574 are optimal for large D (Roberts and Rosenthal 1998).
"""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from jurax.inference.mcmc.kernel import AbstractMetropolis, Scale, differentiate
from jurax.inference.mcmc.leapfrog import hamiltonian_move


class MALA(AbstractMetropolis):
    """Metropolis-adjusted Langevin algorithm.

    Args:
        step_size: epsilon; None: tuned by the algorithm that runs the kernel, from 1.65 D^{-1/6}.
        scale: standard deviations `(D,)` or a Cholesky factor `(D, D)`; None: 1, or tuned.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> kernel = MALA(step_size=1.0)
        >>> log_density = lambda x: -0.5 * jnp.sum(x**2)
        >>> state = kernel.init(log_density, jnp.zeros((1000, 2)))
        >>> for key in jax.random.split(jax.random.key(0), 20):
        ...     state, info = kernel.step(key, state, log_density)
        >>> bool(abs(state.x.var() - 1) < 0.1)
        True
    """

    step_size: float | Float[Array, ""] | None = None
    scale: Scale | None = None
    target_acceptance: ClassVar[tuple[float, ...]] = (0.574,)  # type: ignore[misc]

    def default_step_size(self, dim):
        """1.65 D^{-1/6}, optimal for a standard normal target of large D."""
        return 1.65 * dim ** (-1 / 6)

    def init(self, log_density, x):
        """The state at `x`, with its gradient."""
        return differentiate(log_density, x)

    def step(self, key, state, log_density):
        """Propose and accept or reject; consumes `key`."""
        step = jnp.broadcast_to(self.step_sizes(state.x.shape[-1])[0], state.log_prob.shape)
        return hamiltonian_move(key, state, log_density, step, self.scale, 1)
