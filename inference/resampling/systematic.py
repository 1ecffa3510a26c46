"""Systematic resampling: one uniform, points j + U.

Counts are floor(N W_i) or ceil(N W_i); slots are not exchangeable (Douc, Cappe and Moulines 2005,
section 2.4; here with U in (0, 1], so that a first parent of weight zero is never chosen).
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from jurax.inference.resampling import counting
from jurax.ppl import random


class Systematic(eqx.Module):
    """Systematic resampling: E[counts] = N W, counts within 1 of N W.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> weights = jnp.log(jnp.array([0.5, 0.0, 0.25, 0.25]))
        >>> Systematic()(jax.random.key(0), weights, 4).tolist()
        [0, 0, 2, 3]
    """

    def __call__(
        self, key: Array, log_weights: Float[Array, " N"], num_particles: int
    ) -> Int[Array, " M"]:
        """Draw `num_particles` sorted ancestors; consumes `key`."""
        ends = counting.prefix_sum_of_weights(log_weights, num_particles)
        offset = 1 - random.uniform(
            key, (), ends.dtype, breaks=lambda: 1 - (ends - jnp.floor(ends))
        )
        return _place(ends, offset, num_particles)

    def conditional(
        self,
        key: Array,
        log_weights: Float[Array, " N"],
        num_particles: int,
        pinned: Int[ArrayLike, ""],
    ) -> tuple[Int[Array, " M"], Int[Array, ""]]:
        """Draw ancestors and a slot whose parent is `pinned`; see `jurax.inference.conditional`.

        A point drawn uniformly from those of the pinned parent is the slot's; it decides the common
        offset, and with it all others (Chopin and Singh 2015, section 5). Consumes `key`.
        """
        ends = counting.prefix_sum_of_weights(log_weights, num_particles)
        slots = jnp.arange(num_particles, dtype=ends.dtype)
        changes = (ends - jnp.floor(ends))[:, None] + slots[None, :]
        point = counting.point_of_parent(key, ends, pinned, changes)
        slot = counting.stratum_of(point, num_particles)
        ancestors = _place(ends, point - slot.astype(ends.dtype), num_particles)
        return counting.pin(ancestors, slot, pinned), slot


def _place(ends: Float[Array, " N"], offset: Float[Array, ""], num: int) -> Int[Array, " M"]:
    """The parents of the points j + offset."""
    below = jnp.floor(ends - offset).astype(jnp.int32) + 1
    return counting.ancestors_from_cumulative_counts(jnp.clip(below, 0, num), num)
