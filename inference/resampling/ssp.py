"""Resampling by the Srinivasan sampling process (SSP): fractions meet in pairs and one is settled.

Parent i keeps floor(N W_i) copies and the fraction p_i = N W_i - floor(N W_i). Two open fractions
p, q meet:

    p + q < 1:   one gets 0 and the other goes on with p + q;   the first goes on with
                 probability p / (p + q);
    p + q >= 1:  one gets 1 and the other goes on with p + q - 1;   the first gets 1 with
                 probability (1 - q) / (2 - p - q).

Each meeting leaves the expectation of both alone, so E[counts] = N W, and counts are floor(N W_i)
or ceil(N W_i) (Srinivasan 2001; Gerber, Chopin and Whiteley 2019, Algorithm 1). Differs from the
latter in the order of meetings: there one fraction meets all others in turn, here they meet along a
balanced tree, log2 N rounds of batched draws. Both orders give negatively associated counts
(Kramer, Cutler and Radcliffe 2011), which is what makes the scheme consistent whatever the order of
the particles.

Shape letters: N particles, M points, P open fractions.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from jurax.inference.resampling import counting
from jurax.ppl import random


class SSP(eqx.Module):
    """Resampling by the Srinivasan sampling process: E[counts] = N W, counts within 1 of N W.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> weights = jnp.log(jnp.array([0.5, 0.0, 0.25, 0.25]))
        >>> SSP()(jax.random.key(0), weights, 4).tolist()
        [0, 0, 2, 3]
    """

    def __call__(
        self, key: Array, log_weights: Float[Array, " N"], num_particles: int
    ) -> Int[Array, " M"]:
        """Draw `num_particles` sorted ancestors; consumes `key`."""
        sure, fractions = counting.expected_counts(log_weights, num_particles)
        return _place(sure, settle(key, fractions, num_particles - jnp.sum(sure)), num_particles)

    def conditional(
        self,
        key: Array,
        log_weights: Float[Array, " N"],
        num_particles: int,
        pinned: Int[ArrayLike, ""],
    ) -> tuple[Int[Array, " M"], Int[Array, ""]]:
        """Draw ancestors and a slot whose parent is `pinned`; see `jurax.inference.conditional`.

        Where the child calls for the random copy of its parent (`counting.has_fraction`), meetings
        are drawn given that the parent gets it; then a slot of the parent is chosen. Consumes
        `key`.
        """
        key_random, key_settle, key_slot = random.split(key, 3)
        sure, fractions = counting.expected_counts(log_weights, num_particles)
        is_random = counting.has_fraction(key_random, sure, fractions, pinned)
        winner = jnp.where(is_random, jnp.asarray(pinned), -1)
        rounded = settle(key_settle, fractions, num_particles - jnp.sum(sure), winner)
        ancestors = _place(sure, rounded, num_particles)
        slot = counting.slot_among_copies(key_slot, ancestors, pinned)
        return counting.pin(ancestors, slot, pinned), slot


def _place(sure: Int[Array, " N"], rounded: Int[Array, " N"], num: int) -> Int[Array, " M"]:
    """Sorted ancestors by their numbers of copies."""
    cumulative = jnp.clip(counting.prefix_sum(sure + rounded), 0, num)
    return counting.ancestors_from_cumulative_counts(cumulative, num)


def settle(
    key: Array,
    fractions: Float[Array, " N"],
    total: Int[Array, ""],
    winner: Int[ArrayLike, ""] = -1,
) -> Int[Array, " N"]:
    """Round fractions of sum `total` to 0 or 1 with the fractions as expectations; consumes `key`.

    With a `winner` (a row; -1: none) the law is that given that the winner gets 1. The fraction of
    a row is a martingale, the probability that it will get 1: so each meeting of the winner is
    reweighted by what its fraction becomes.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> fractions, total = jnp.array([0.5, 0.0, 0.75, 0.75]), jnp.asarray(2)
        >>> settle(jax.random.key(0), fractions, total).tolist()
        [0, 0, 1, 1]
    """
    num = fractions.shape[0]
    rounded = jnp.zeros(num, jnp.int32)
    rows, fractions = jnp.arange(num), fractions
    for key_round in random.split(key, max((num - 1).bit_length(), 1)):
        if rows.shape[0] == 1:
            break
        if rows.shape[0] % 2:  # an absent row (its writes are dropped) of fraction 0
            rows, fractions = jnp.append(rows, num), jnp.append(fractions, 0.0)
        (rows, fractions), (settled, value) = meet(key_round, rows, fractions, winner)
        rounded = rounded.at[settled].set(value, mode="drop")
    last = (total - jnp.sum(rounded)).astype(jnp.int32)  # sums of int32 are int64 under x64
    return rounded.at[rows[0]].set(last)


def meet(
    key: Array, rows: Int[Array, " P"], fractions: Float[Array, " P"], winner: Int[ArrayLike, ""]
):
    """Neighbours meet: return those that go on, and those that are settled with their value."""
    first, second = fractions[0::2], fractions[1::2]
    total = first + second
    is_low = total < 1
    low = first / jnp.where(total > 0, total, 1.0)
    high = (1 - first) / jnp.where(is_low, 1.0, 2 - total)
    # Above 1 the first goes on where the second gets 1, with probability (1 - p) / (2 - p - q).
    goes_on = jnp.where(is_low, low, high)
    # Given that the winner gets 1: below 1 it goes on for sure; above 1 it is settled, with 1, with
    # its probability over its fraction.
    tiny = jnp.finfo(fractions.dtype).tiny
    if_first = jnp.where(is_low, 1.0, 1 - (1 - goes_on) / jnp.maximum(first, tiny))
    if_second = jnp.where(is_low, 0.0, goes_on / jnp.maximum(second, tiny))
    goes_on = jnp.where(rows[0::2] == winner, if_first, goes_on)
    goes_on = jnp.where(rows[1::2] == winner, if_second, goes_on)
    first_goes_on = random.bernoulli(key, jnp.clip(goes_on, 0.0, 1.0))
    going = jnp.where(first_goes_on, rows[0::2], rows[1::2])
    settled = jnp.where(first_goes_on, rows[1::2], rows[0::2])
    left = jnp.where(is_low, total, total - 1)
    return (going, left), (settled, jnp.where(is_low, 0, 1).astype(jnp.int32))
