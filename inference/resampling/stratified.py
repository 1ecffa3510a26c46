"""Stratified resampling: one uniform for each stratum, points j + U_j.

Counts differ from N W_i by less than 2 (Douc, Cappe and Moulines 2005, section 2.3).
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jurax.inference.resampling import counting
from jurax.ppl import random


class Stratified(eqx.Module):
    """Stratified resampling: E[counts] = N W.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> weights = jnp.log(jnp.array([0.5, 0.0, 0.25, 0.25]))
        >>> Stratified()(jax.random.key(0), weights, 4).tolist()
        [0, 0, 2, 3]
    """

    def __call__(
        self, key: Array, log_weights: Float[Array, " N"], num_particles: int
    ) -> Int[Array, " M"]:
        """Draw `num_particles` sorted ancestors; consumes `key`."""
        ends = counting.prefix_sum_of_weights(log_weights, num_particles)
        strata = jnp.arange(num_particles, dtype=ends.dtype)
        offsets = 1 - random.uniform(
            key,
            (num_particles,),
            ends.dtype,
            breaks=lambda: 1 - (ends[None, :] - strata[:, None]),
        )
        whole = jnp.floor(ends)
        stratum = jnp.minimum(whole, num_particles - 1).astype(jnp.int32)
        below = whole + (offsets[stratum] <= ends - whole)
        return counting.ancestors_from_cumulative_counts(
            jnp.clip(below, 0, num_particles).astype(jnp.int32), num_particles
        )
