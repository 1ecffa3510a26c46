"""Log-weights: sums, effective sample size and normalisation over the last axis.

A population with all log-weights -inf is *dead*: its sum is -inf, its effective sample size and
its normalised weights are 0. No function here returns NaN for it.
Shape letters: N particles.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def relative(log_weights: Float[Array, "*B N"]) -> Float[Array, "*B N"]:
    """Compute w_i / max_j w_j; all 0 for a dead population.

    Example:
        >>> import jax.numpy as jnp
        >>> relative(jnp.array([3.0, -jnp.inf, 3.0])).tolist()
        [1.0, 0.0, 1.0]
    """
    return _scaled(log_weights)[1]


def _scaled(log_weights: Float[Array, "*B N"]) -> tuple[Array, Array]:
    """Return (max, exp(log_weights - max)); the maximum of a dead population counts as 0."""
    top = jnp.max(log_weights, axis=-1)
    top = jnp.where(jnp.isneginf(top), 0.0, top)
    return top, jnp.exp(log_weights - top[..., None])


def log_sum(log_weights: Float[Array, "*B N"]) -> Float[Array, "*B"]:
    """Compute log sum_i w_i.

    Example:
        >>> import jax.numpy as jnp
        >>> float(log_sum(jnp.log(jnp.array([1.0, 3.0])))) == float(jnp.log(4.0))
        True
    """
    top, scaled = _scaled(log_weights)
    return top + jnp.log(jnp.sum(scaled, axis=-1))


def log_mean(log_weights: Float[Array, "*B N"]) -> Float[Array, "*B"]:
    """Compute log (1/N) sum_i w_i."""
    return log_sum(log_weights) - jnp.log(log_weights.shape[-1])


def normalized(log_weights: Float[Array, "*B N"]) -> Float[Array, "*B N"]:
    """Compute W_i = w_i / sum_j w_j; all 0 for a dead population.

    Example:
        >>> import jax.numpy as jnp
        >>> normalized(jnp.log(jnp.array([1.0, 1.0]))).tolist()
        [0.5, 0.5]
    """
    _, scaled = _scaled(log_weights)
    total = jnp.sum(scaled, axis=-1, keepdims=True)
    return scaled / jnp.where(total > 0, total, 1.0)


def effective_sample_size(log_weights: Float[Array, "*B N"]) -> Float[Array, "*B"]:
    """Compute ESS = (sum w)^2 / sum w^2, between 1 and N; 0 for a dead population.

    Example:
        >>> import jax.numpy as jnp
        >>> float(effective_sample_size(jnp.zeros(8)))
        8.0
    """
    # Kept once: the compiler would take the exponentials again for the second sum.
    scaled = jax.lax.optimization_barrier(_scaled(log_weights)[1])
    total = jnp.sum(scaled, axis=-1)
    squares = jnp.sum(scaled**2, axis=-1)
    return total**2 / jnp.where(squares > 0, squares, 1.0)
