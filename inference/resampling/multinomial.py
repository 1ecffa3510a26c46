"""Multinomial resampling: independent ancestors with probabilities W.

Slots are exchangeable and unsorted (Gordon, Salmond and Smith 1993). Its variance is the largest of
the schemes here.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from jurax.inference.resampling import counting
from jurax.ppl import random


class Multinomial(eqx.Module):
    """Multinomial resampling: ancestors are independent draws from W.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> weights = jnp.log(jnp.array([0.0, 1.0, 0.0]))
        >>> Multinomial()(jax.random.key(0), weights, 4).tolist()
        [1, 1, 1, 1]
    """

    def __call__(
        self, key: Array, log_weights: Float[Array, " N"], num_particles: int
    ) -> Int[Array, " M"]:
        """Draw `num_particles` independent ancestors; consumes `key`."""
        ends = counting.prefix_sum_of_weights(log_weights, 1)
        points = 1 - random.uniform(key, (num_particles,), ends.dtype, breaks=lambda: 1 - ends)
        return counting.parents_of_points(ends, points)

    def conditional(
        self,
        key: Array,
        log_weights: Float[Array, " N"],
        num_particles: int,
        pinned: Int[ArrayLike, ""],
    ) -> tuple[Int[Array, " M"], Int[Array, ""]]:
        """Draw ancestors and a slot whose parent is `pinned`; see `jurax.inference.conditional`.

        Any slot, with equal probability; the others are as independent as ever. Consumes `key`.
        """
        key_slot, key_others = random.split(key)
        edges = jnp.arange(1, num_particles) / num_particles
        point = random.uniform(key_slot, (), log_weights.dtype, breaks=lambda: edges)
        slot = jnp.minimum((point * num_particles).astype(jnp.int32), num_particles - 1)
        return counting.pin(self(key_others, log_weights, num_particles), slot, pinned), slot
