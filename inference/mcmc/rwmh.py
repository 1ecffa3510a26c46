"""Random-walk Metropolis: propose x + epsilon S z with z standard normal (Metropolis et al. 1953).

With S a root of the target's covariance, epsilon = 2.38 / sqrt(D) and an acceptance rate of .234
are optimal for large D (Roberts, Gelman and Gilks 1997). Shape letters: N chains, D dimensions.
"""

from typing import ClassVar

from jaxtyping import Array, Float

from jurax.inference.mcmc.kernel import (
    AbstractMetropolis,
    Scale,
    accept,
    evaluate,
    evaluate_like,
    noise,
    stretch,
)
from jurax.ppl import random


class RWMH(AbstractMetropolis):
    """Random-walk Metropolis; needs no gradient.

    Args:
        step_size: epsilon; None: tuned by the algorithm that runs the kernel, from 2.38 / sqrt(D).
        scale: standard deviations `(D,)` or a Cholesky factor `(D, D)`; None: 1, or tuned.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> kernel = RWMH(step_size=1.0)
        >>> log_density = lambda x: -0.5 * jnp.sum(x**2)
        >>> state = kernel.init(log_density, jnp.zeros((1000, 2)))  # a population
        >>> for key in jax.random.split(jax.random.key(0), 20):
        ...     state, info = kernel.step(key, state, log_density)
        >>> bool(abs(state.x.var() - 1) < 0.1), info["acceptance"].shape
        (True, (1000, 1))
    """

    step_size: float | Float[Array, ""] | None = None
    scale: Scale | None = None
    target_acceptance: ClassVar[tuple[float, ...]] = (0.234,)  # type: ignore[misc]

    def default_step_size(self, dim):
        """2.38 / sqrt(D)."""
        return 2.38 / dim**0.5

    def init(self, log_density, x):
        """The state at `x`."""
        return evaluate(log_density, x)

    def propose(
        self, key: Array, x: Float[Array, "*N D"], scale: Scale | None = None
    ) -> Float[Array, "*N D"]:
        """Draw x + epsilon S z, a symmetric proposal; consumes `key`.

        Args:
            key: consumed.
            x: where the chain stands.
            scale: S; by default the kernel's.
        """
        scale = self.scale if scale is None else scale
        step = self.step_sizes(x.shape[-1])[0]
        return x + step * stretch(scale, noise(key, x.shape))

    def step(self, key, state, log_density):
        """Propose and accept or reject; consumes `key`."""
        key_propose, key_accept = random.split(key)
        proposed = evaluate_like(state, log_density, self.propose(key_propose, state.x))
        return accept(key_accept, state, proposed, proposed.log_prob - state.log_prob)
