"""Residual-systematic resampling: floor(N W_i) copies, the rest systematic from the fractions.

One uniform. Counts are floor(N W_i) or ceil(N W_i), as in systematic resampling, but which of the
two depends on the fractions alone (Bolic, Djuric and Hong 2004, section 3).
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jurax.inference.resampling import counting
from jurax.ppl import random


class ResidualSystematic(eqx.Module):
    """Residual-systematic resampling: E[counts] = N W, counts within 1 of N W.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> weights = jnp.log(jnp.array([0.5, 0.0, 0.25, 0.25]))
        >>> ResidualSystematic()(jax.random.key(0), weights, 4).tolist()
        [0, 0, 2, 3]
    """

    def __call__(
        self, key: Array, log_weights: Float[Array, " N"], num_particles: int
    ) -> Int[Array, " M"]:
        """Draw `num_particles` sorted ancestors; consumes `key`."""
        sure, fractions = counting.expected_counts(log_weights, num_particles)
        copied = counting.prefix_sum(sure)
        num_rest = jnp.maximum(num_particles - copied[-1], 0)
        ends = counting.scaled_prefix_sum(fractions, 1) * num_rest.astype(fractions.dtype)
        offset = 1 - random.uniform(
            key, (), ends.dtype, breaks=lambda: 1 - (ends - jnp.floor(ends))
        )
        drawn = jnp.clip(jnp.floor(ends - offset).astype(jnp.int32) + 1, 0, num_rest)
        return counting.ancestors_from_cumulative_counts(
            jnp.minimum(copied + drawn, num_particles), num_particles
        )
