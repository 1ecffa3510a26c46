"""Stratified resampling: one uniform for each stratum, points j + U_j.

Counts differ from N W_i by less than 2 (Douc, Cappe and Moulines 2005, section 2.3).
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

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
        return _place(ends, _draw_offsets(key, ends, num_particles))

    def conditional(
        self,
        key: Array,
        log_weights: Float[Array, " N"],
        num_particles: int,
        pinned: Int[ArrayLike, ""],
    ) -> tuple[Int[Array, " M"], Int[Array, ""]]:
        """Draw ancestors and a slot whose parent is `pinned`; see `jurax.inference.conditional`.

        A point drawn uniformly from those of the pinned parent is that of its stratum; the other
        strata draw theirs as ever. Consumes `key`.
        """
        key_point, key_others = random.split(key)
        ends = counting.prefix_sum_of_weights(log_weights, num_particles)
        edges = jnp.concatenate([jnp.arange(num_particles + 1, dtype=ends.dtype), ends])
        point = counting.point_of_parent(key_point, ends, pinned, edges)
        slot = counting.stratum_of(point, num_particles)
        offsets = _draw_offsets(key_others, ends, num_particles)
        ancestors = _place(ends, offsets.at[slot].set(point - slot.astype(ends.dtype)))
        return counting.pin(ancestors, slot, pinned), slot


def _draw_offsets(key: Array, ends: Float[Array, " N"], num: int) -> Float[Array, " M"]:
    """U_j in (0, 1] for every stratum."""
    strata = jnp.arange(num, dtype=ends.dtype)
    return 1 - random.uniform(
        key, (num,), ends.dtype, breaks=lambda: 1 - (ends[None, :] - strata[:, None])
    )


def _place(ends: Float[Array, " N"], offsets: Float[Array, " M"]) -> Int[Array, " M"]:
    """The parents of the points j + offsets_j."""
    num = offsets.shape[0]
    whole = jnp.floor(ends)
    stratum = jnp.minimum(whole, num - 1).astype(jnp.int32)
    below = whole + (offsets[stratum] <= ends - whole)
    cumulative = jnp.clip(below, 0, num).astype(jnp.int32)
    return counting.ancestors_from_cumulative_counts(cumulative, num)
