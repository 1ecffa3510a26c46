"""Resampling by counting: offspring counts from prefix sums, ancestors from counts.

A scheme places `num` points in (0, num] and gives parent i the points in (c_{i-1}, c_i], where c is
the prefix sum of the weights scaled to total `num`. Parents of weight zero must get no point, also
in float32, where the prefix sum of an array with zeros need not be constant on them: their entries
are replaced by the largest entry of a positive weight before them.

Shape letters: N particles, M points.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jurax.ppl import weights


def scaled_prefix_sum(normalized: Float[Array, " N"], num: int) -> Float[Array, " N"]:
    """c_i = M sum_{j <= i} W_j, never falling, constant on weights of zero, with c_N = M.

    Example:
        >>> import jax.numpy as jnp
        >>> scaled_prefix_sum(jnp.array([0.0, 0.25, 0.0, 0.75]), 4).tolist()
        [0.0, 1.0, 1.0, 4.0]
    """
    positive = jnp.where(normalized > 0, jnp.cumsum(normalized), 0.0)
    total = jax.lax.cummax(positive)
    return total / jnp.where(total[-1] > 0, total[-1], 1.0) * num


def ancestors_from_cumulative_counts(
    cumulative: Int[Array, " N"], num: int
) -> Int[Array, " M"]:
    """Sorted ancestors, given the number of points at or below the end of each parent.

    The ancestor of point j is the number of parents whose cumulative count is at most j.

    Example:
        >>> import jax.numpy as jnp
        >>> ancestors_from_cumulative_counts(jnp.array([2, 2, 3]), 3).tolist()
        [0, 0, 2]
    """
    histogram = jnp.zeros(num + 1, jnp.int32).at[cumulative].add(1, mode="promise_in_bounds")
    last = cumulative.shape[0] - 1
    return jnp.minimum(jnp.cumsum(histogram)[:num], last).astype(jnp.int32)


def prefix_sum_of_weights(log_weights: Float[Array, " N"], num: int) -> Float[Array, " N"]:
    """`scaled_prefix_sum` of log-weights."""
    return scaled_prefix_sum(weights.normalized(log_weights), num)


def parents_of_points(ends: Float[Array, " N"], points: Float[Array, " M"]) -> Int[Array, " M"]:
    """The parent i with ends_{i-1} < point <= ends_i; points lie in (0, ends_N]."""
    found = jnp.searchsorted(ends, points, side="left")
    return jnp.minimum(found, ends.shape[0] - 1).astype(jnp.int32)
