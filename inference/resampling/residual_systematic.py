"""Residual-systematic resampling: floor(N W_i) copies, the rest systematic from the fractions.

One uniform. Counts are floor(N W_i) or ceil(N W_i), as in systematic resampling, but which of the
two depends on the fractions alone (Bolic, Djuric and Hong 2004, section 3).
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

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
        sure, ends = _sure_and_ends(log_weights, num_particles)
        offset = 1 - random.uniform(
            key, (), ends.dtype, breaks=lambda: 1 - (ends - jnp.floor(ends))
        )
        return _place(sure, ends, offset, num_particles)

    def conditional(
        self,
        key: Array,
        log_weights: Float[Array, " N"],
        num_particles: int,
        pinned: Int[ArrayLike, ""],
    ) -> tuple[Int[Array, " M"], Int[Array, ""]]:
        """Draw ancestors and a slot whose parent is `pinned`; see `jurax.inference.conditional`.

        Where the child calls for the random copy of its parent (`counting.has_fraction`), a point
        drawn from those of the parent decides the offset; then a slot of the parent is chosen.
        Consumes `key`.
        """
        key_random, key_point, key_offset, key_slot = random.split(key, 4)
        sure, fractions = counting.expected_counts(log_weights, num_particles)
        sure, ends = _sure_and_ends(log_weights, num_particles)
        is_random = counting.has_fraction(key_random, sure, fractions, pinned)
        parts = ends - jnp.floor(ends)
        slots = jnp.arange(num_particles, dtype=ends.dtype)
        changes = parts[:, None] + slots[None, :]
        point = counting.point_of_parent(key_point, ends, pinned, changes)
        own = point - (jnp.ceil(point) - 1)
        free = 1 - random.uniform(key_offset, (), ends.dtype, breaks=lambda: 1 - parts)
        ancestors = _place(sure, ends, jnp.where(is_random, own, free), num_particles)
        slot = counting.slot_among_copies(key_slot, ancestors, pinned)
        return counting.pin(ancestors, slot, pinned), slot


def _sure_and_ends(
    log_weights: Float[Array, " N"], num: int
) -> tuple[Int[Array, " N"], Float[Array, " N"]]:
    """Sure copies, and prefix sums of the fractions scaled to the number of the others."""
    sure, fractions = counting.expected_counts(log_weights, num)
    num_rest = jnp.maximum(num - jnp.sum(sure), 0)
    return sure, counting.scaled_prefix_sum(fractions, 1) * num_rest.astype(fractions.dtype)


def _place(
    sure: Int[Array, " N"], ends: Float[Array, " N"], offset: Float[Array, ""], num: int
) -> Int[Array, " M"]:
    """The sure copies, and the parents of the points j + offset."""
    num_rest = jnp.maximum(num - jnp.sum(sure), 0)
    drawn = jnp.clip(jnp.floor(ends - offset).astype(jnp.int32) + 1, 0, num_rest)
    cumulative = jnp.minimum(counting.prefix_sum(sure) + drawn, num)
    return counting.ancestors_from_cumulative_counts(cumulative.astype(jnp.int32), num)
