"""What a judge says of an answer of true level m: a cumulative logit with ordered locations.

    P(S <= l | S* = m, candidate c, judge j) = sigmoid(cut[j, l] - location[j, m] - shift[j, c])

Locations increase with m, so that a better answer is never scored worse in distribution: labels
cannot switch. Cuts increase with l. `shift` is the leniency of a judge towards a candidate: zero
under constancy (assumption "strong constancy" of Vossler et al. 2026), a random effect when it is
relaxed.

Shape letters: J judges, C candidates, M levels, P pairs of item and candidate, R distinct rows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jurax.models.judging.scores import Scores

STEP = 16  # rows are padded to a multiple, so that tables of similar size share a compilation
SMALLEST = 1e-10  # chance of a level, so that no score is impossible in single precision


class Rows(NamedTuple):
    """Scores of pairs, equal ones counted once, padded to the same number for each candidate.

    Attributes:
        hot: one-hot levels of the judges, zero where a judge gave none, `(C, R, J M)`.
        gold: 0 where the true level may be m and -inf where it is known to be another, `(C, R, M)`.
        count: pairs that look so, `(C, R)`.
    """

    hot: Float[Array, "C R JM"]
    gold: Float[Array, "C R M"]
    count: Float[Array, "C R"]


def ordered(gaps: Float[Array, "J G"]) -> Float[Array, "J G+1"]:
    """Increasing numbers with these gaps and mean zero."""
    steps = jnp.concatenate([jnp.zeros((gaps.shape[0], 1)), jnp.cumsum(gaps, axis=1)], axis=1)
    return steps - jnp.mean(steps, axis=1, keepdims=True)


def confusion(
    location: Float[Array, "J M"], cut: Float[Array, "J M-1"], shift: Float[Array, "J C"]
) -> Float[Array, "J C M M"]:
    """theta[j, c, m, l] = P(S = l | S* = m): rows are true levels, columns given ones."""
    logits = cut[:, None, None, :] - location[:, None, :, None] - shift[:, :, None, None]
    below = jax.nn.sigmoid(logits)
    ends = below[..., :1]
    return jnp.diff(
        jnp.concatenate([jnp.zeros_like(ends), below, jnp.ones_like(ends)], axis=-1), axis=-1
    )


def worth(number: Float[Array, "*N"], dependence: Array) -> Float[Array, "*N"]:
    """Exponent 1 / (1 + (n - 1) rho): under it n scores with shared mistakes count as n_eff.

    n_eff = n / (1 + (n - 1) rho): the mean of n errors of correlation rho has the variance of that
    of n_eff independent ones.
    """
    return 1 / (1 + jnp.maximum(number - 1, 0.0) * dependence)


def log_level_weights(
    rows: Rows, theta: Float[Array, "J C M M"], prevalence: Float[Array, "C M"], dependence: Array
) -> Float[Array, "C R M"]:
    """Log of pi[c, m] prod_j theta[j, c, m, S_j]^worth for each row: the item-level joint law."""
    num_judges, num_candidates, num_levels, _ = theta.shape
    log_theta = jnp.log(jnp.maximum(theta, SMALLEST))
    features = jnp.transpose(log_theta, (1, 0, 3, 2))
    features = features.reshape(num_candidates, num_judges * num_levels, num_levels)
    power = worth(jnp.sum(rows.hot, axis=-1, keepdims=True), dependence)
    return jnp.log(prevalence)[:, None, :] + power * (rows.hot @ features) + rows.gold


def joint_log_likelihood(
    rows: Rows, theta: Float[Array, "J C M M"], prevalence: Float[Array, "C M"], dependence: Array
) -> Float[Array, ""]:
    """sum_i log sum_m pi[c, m] prod_j theta[j, c, m, S_ij]^worth over pairs i."""
    weights = log_level_weights(rows, theta, prevalence, dependence)
    return jnp.sum(rows.count * jax.nn.logsumexp(weights, axis=-1))


def marginal_log_likelihood(
    counts: Float[Array, "J C M"],
    theta: Float[Array, "J C M M"],
    prevalence: Float[Array, "C M"],
    dependence: Array,
) -> Float[Array, ""]:
    """worth(J) sum_jcl n[j, c, l] log gamma[j, c, l], gamma = sum_m pi[c, m] theta[j, c, m, l].

    J is the number of judges that score anything.
    """
    power = worth(jnp.sum(jnp.any(counts > 0, axis=(1, 2)).astype(float)), dependence)
    gamma = jnp.einsum("cm,jcml->jcl", prevalence, theta)
    return power * jnp.sum(counts * jnp.log(jnp.maximum(gamma, SMALLEST)))


def rows_of(scores: Scores) -> Rows:
    """The distinct rows of a table; two pairs with the same scores and gold are one row."""
    whole = np.column_stack([scores.pair_candidate, scores.matrix(), scores.gold])
    distinct, count = np.unique(whole, axis=0, return_counts=True)
    candidate, levels, gold = distinct[:, 0], distinct[:, 1:-1], distinct[:, -1]
    place = positions(candidate)
    most = int(place.max()) + 1
    shape = (scores.num_candidates, STEP * -(-most // STEP))
    hot = np.zeros((*shape, scores.num_judges, scores.num_levels), np.float32)
    row, judge = np.nonzero(levels >= 0)
    hot[candidate[row], place[row], judge, levels[row, judge]] = 1
    known = np.zeros((*shape, scores.num_levels), np.float32)
    sure = gold >= 0
    known[candidate[sure], place[sure]] = -np.inf
    known[candidate[sure], place[sure], gold[sure]] = 0
    counts = np.zeros(shape, np.float32)
    counts[candidate, place] = count
    return Rows(jnp.asarray(hot.reshape(*shape, -1)), jnp.asarray(known), jnp.asarray(counts))


def positions(groups: Int[np.ndarray, " R"]) -> Int[np.ndarray, " R"]:
    """0, 1, ... within each group of a sorted array."""
    starts = np.searchsorted(groups, groups)
    return np.arange(len(groups)) - starts
