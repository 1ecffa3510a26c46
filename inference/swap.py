"""Swaps between temperatures, and a ladder adapted to their rates.

Replica i has the law p(x) L(x)^{beta_i}. Replicas i and j exchange their states with probability

    min(1, exp((beta_i - beta_j) (log L(x_j) - log L(x_i)))):

the prior cancels, for language processes too (Geyer 1991). Even pairs (0, 1), (2, 3), ... are tried
at even steps and odd pairs at odd steps, which moves states along the ladder without back-tracking
(Syed, Bouchard-Cote, Deligiannidis and Doucet 2022).

Shape letters: R replicas, E = R - 1 pairs of neighbours.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jurax.ppl import random


def swap(
    key: Array,
    log_likelihood: Float[Array, " R"],
    betas: Float[Array, " R"],
    step: Int[Array, ""] | int,
) -> tuple[Int[Array, " R"], Float[Array, " E"]]:
    """Draw the swaps of one step; consumes `key`.

    Returns:
        The replica whose state each replica takes over, and the probability with which each pair
        swaps, tried in this step or not.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> order, rates = swap(
        ...     jax.random.key(0), jnp.array([0.0, -9.0]), jnp.array([0.0, 1.0]), 0
        ... )
        >>> order.tolist(), rates.tolist()
        ([1, 0], [1.0])
    """
    rates = swap_probabilities(log_likelihood, betas)
    pairs = jnp.arange(len(rates))
    tried = pairs % 2 == step % 2
    swapped = random.bernoulli(key, jnp.where(tried, rates, 0.0))
    up = jnp.concatenate([swapped, jnp.zeros(1, bool)]).astype(jnp.int32)
    down = jnp.concatenate([jnp.zeros(1, bool), swapped]).astype(jnp.int32)
    return jnp.arange(len(betas)) + up - down, rates


def swap_probabilities(
    log_likelihood: Float[Array, " R"], betas: Float[Array, " R"]
) -> Float[Array, " E"]:
    """Acceptance probability of each pair of neighbours; undefined ratios count 0."""
    log_ratio = (betas[:-1] - betas[1:]) * (log_likelihood[1:] - log_likelihood[:-1])
    return jnp.exp(jnp.minimum(jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio), 0.0))


def spread_ladder(betas: Float[Array, " R"], swap_rates: Float[Array, " E"]) -> Float[Array, " R"]:
    """A ladder with equal rejection rates between neighbours; both ends stay.

    Rejections add up to the barrier Lambda(beta) along the ladder; the new betas divide it into
    equal parts (Syed et al. 2022, section 5.3, with linear interpolation).

    Example:
        >>> import jax.numpy as jnp
        >>> spread_ladder(jnp.array([0.0, 0.5, 1.0]), jnp.array([0.4, 0.8])).round(3).tolist()
        [0.0, 0.333, 1.0]
    """
    barrier = jnp.concatenate([jnp.zeros(1), jnp.cumsum(1 - swap_rates)])
    # A little of the old spacing, so that pairs that never reject stay apart.
    barrier = barrier + 1e-3 * (betas - betas[0])
    even = jnp.linspace(0.0, 1.0, len(betas)) * barrier[-1]
    spread = jnp.interp(even, barrier, betas)
    return spread.at[0].set(betas[0]).at[-1].set(betas[-1])
