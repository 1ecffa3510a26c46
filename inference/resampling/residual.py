"""Residual resampling: floor(N W_i) copies, the rest multinomial from the fractions.

Liu and Chen 1998, section 3.3. The number of random slots depends on the weights; shapes are
static, so every slot draws and the slots that are already filled ignore their draw.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from jurax.inference.resampling import counting
from jurax.ppl import random, weights


class Residual(eqx.Module):
    """Residual resampling: E[counts] = N W, counts at least floor(N W).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> weights = jnp.log(jnp.array([0.5, 0.0, 0.25, 0.25]))
        >>> Residual()(jax.random.key(0), weights, 4).tolist()
        [0, 0, 2, 3]
    """

    def __call__(
        self, key: Array, log_weights: Float[Array, " N"], num_particles: int
    ) -> Int[Array, " M"]:
        """Draw `num_particles` ancestors, the sure ones first; consumes `key`."""
        expected = num_particles * weights.normalized(log_weights)
        sure = jnp.floor(expected)
        filled = jnp.cumsum(sure.astype(jnp.int32))
        slots = jnp.arange(num_particles)
        is_sure = slots < filled[-1]
        ends = counting.scaled_prefix_sum(expected - sure, 1)
        points = 1 - random.uniform(
            key,
            (num_particles,),
            ends.dtype,
            breaks=lambda: jnp.where(is_sure[:, None], 1.0, 1 - ends[None, :]),
        )
        return jnp.where(
            is_sure,
            counting.ancestors_from_cumulative_counts(filled, num_particles),
            counting.parents_of_points(ends, points),
        )

    def conditional(
        self,
        key: Array,
        log_weights: Float[Array, " N"],
        num_particles: int,
        pinned: Int[ArrayLike, ""],
    ) -> tuple[Int[Array, " M"], Int[Array, ""]]:
        """Draw ancestors and a slot whose parent is `pinned`; see `jurax.inference.conditional`.

        Of its N W_i expected copies, floor(N W_i) are sure and have their slots; the rest is a
        random slot, any of them with equal probability. Consumes `key`.
        """
        key_slot, key_others = random.split(key)
        expected = num_particles * weights.normalized(log_weights)
        sure = jnp.floor(expected).astype(jnp.int32)
        filled = jnp.cumsum(sure)
        whole = sure[pinned].astype(expected.dtype)
        fraction = jnp.maximum(expected[pinned] - whole, jnp.finfo(expected.dtype).tiny)
        num_random = (num_particles - filled[-1]).astype(expected.dtype)
        steps = jnp.arange(num_particles + 1, dtype=expected.dtype)

        def breaks() -> Array:
            sooner = jnp.minimum(steps, whole)
            later = whole + fraction * steps / jnp.maximum(num_random, 1)
            return 1 - jnp.concatenate([sooner, later]) / expected[pinned]

        place = expected[pinned] * (1 - random.uniform(key_slot, (), expected.dtype, breaks=breaks))
        sure_slot = filled[pinned] - sure[pinned] + jnp.ceil(place).astype(jnp.int32) - 1
        draw = jnp.ceil((place - whole) / fraction * num_random).astype(jnp.int32) - 1
        random_slot = filled[-1] + jnp.maximum(draw, 0)
        slot = jnp.where(place <= whole, sure_slot, random_slot)
        slot = jnp.clip(slot, 0, num_particles - 1)
        return counting.pin(self(key_others, log_weights, num_particles), slot, pinned), slot
