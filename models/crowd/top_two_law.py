"""The law of the top-two model given p and the prior of q: posteriors of (g, h, q) by task.

    S_j(a, b, q) = sum_i 1{y_ij = a} log(1 + r_i q)
                 + sum_i 1{y_ij = b} log(1 + r_i (1 - q)) + log prior(q),    r_i = K p_i / (1 - p_i)

R_j is the softmax of S_j over a != b and q. Given q, S is a sum over a plus a sum over b, so that
marginals need K terms for each class and grid point and no array holds K^2 Q numbers for a task.

Shape letters: E answers, J tasks, W workers, K classes, Q grid points.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jurax.models.crowd.em import Edges

IMPOSSIBLE = -1e9  # in nats; -inf has no gradient


def grid(num_points: int) -> Float[Array, " Q"]:
    """Midpoints of equal parts of (1/2, 1).

    Example:
        >>> grid(2).tolist()
        [0.625, 0.875]
    """
    return 0.5 + (jnp.arange(num_points) + 0.5) / (2 * num_points)


def gains(
    edges: Edges, reliability: Float[Array, " W"], points: Float[Array, " Q"]
) -> tuple[Float[Array, "W Q"], Float[Array, "W Q"]]:
    """log(1 + r q) and log(1 + r (1 - q)): what a worker's answer adds if it is g, if it is h."""
    ratio = (edges.num_classes * reliability / (1 - reliability))[:, None]
    return jnp.log1p(ratio * points[None, :]), jnp.log1p(ratio * (1 - points[None, :]))


def scores(
    edges: Edges, reliability: Float[Array, " W"], points: Float[Array, " Q"]
) -> tuple[Float[Array, "J K Q"], Float[Array, "J K Q"]]:
    """S of each class as g and as h; IMPOSSIBLE as g where another class is known."""
    first, second = (edges.votes(gain[edges.worker]) for gain in gains(edges, reliability, points))
    return jnp.where(edges.excluded[:, :, None], IMPOSSIBLE, first), second


def marginals(
    edges: Edges,
    reliability: Float[Array, " W"],
    prior: Float[Array, " Q"],
    points: Float[Array, " Q"],
) -> tuple[Float[Array, "J K Q"], Float[Array, "J K Q"], Float[Array, ""]]:
    """R_j(g, q), R_j(h, q) and the log-likelihood of all answers.

    Given q the sum over pairs is a sum over g of a sum over h != g: K terms each, not K^2.
    """
    apart = jax.lax.optimization_barrier
    first, second = apart(scores(edges, reliability, points))
    log_prior = jnp.log(prior)[None, None, :]
    (shift_first, of_second), (shift_second, of_first) = map(sum_of_others, (second, first))
    as_first, as_second = apart(
        (first + shift_first + log_prior, second + shift_second + log_prior)
    )
    largest = apart(jnp.max(as_first, axis=(1, 2), keepdims=True))
    terms_first = apart(jnp.exp(as_first - largest) * of_second)
    total = apart(jnp.sum(terms_first, axis=(1, 2), keepdims=True))
    terms_second = jnp.exp(as_second - largest) * of_first
    log_likelihood = log_likelihood_of(edges, reliability, (largest + jnp.log(total))[:, 0, 0])
    return terms_first / total, terms_second / total, log_likelihood


def sum_of_others(
    x: Float[Array, "J K Q"],
) -> tuple[Float[Array, "J K Q"], Float[Array, "J K Q"]]:
    """(m, s) with sum_{b != a} exp(x_b) = exp(m_a) s_a for each a, of finite numbers, K >= 2.

    With x_1 >= x_2 the two largest and t = sum over all but the largest of exp(x - x_2), it is
    exp(x_2) t for the largest, and exp(x_1) (1 + (t - exp(x_a - x_2)) exp(x_2 - x_1)) for another
    a: the difference is added to 1 and may lose its digits. Barriers keep XLA from computing each
    exponential once for every sum that it enters (measured: four times slower).
    """
    size, apart = x.shape[1], jax.lax.optimization_barrier
    top, other = x[:, 0], jnp.full_like(x[:, 0], -jnp.inf)
    index = jnp.zeros(top.shape, jnp.int32)
    for k in range(1, size):  # classes are few; a reduction with an index is slow
        is_larger = x[:, k] > top
        other = jnp.where(is_larger, top, jnp.maximum(other, x[:, k]))
        index, top = jnp.where(is_larger, k, index), jnp.maximum(top, x[:, k])
    top, other, index = apart((top, other, index))
    is_largest = jnp.arange(size)[None, :, None] == index[:, None]
    shift = other[:, None]
    terms = apart(jnp.where(is_largest, 0.0, jnp.exp(jnp.where(is_largest, 0.0, x - shift))))
    total, gap = apart((sum(terms[:, k] for k in range(size))[:, None], jnp.exp(other - top)))
    inside = jnp.where(is_largest, total, 1 + (total - terms) * gap[:, None])
    return jnp.where(is_largest, shift, top[:, None]), inside


def log_likelihood_of(
    edges: Edges, reliability: Float[Array, " W"], total: Float[Array, " J"]
) -> Float[Array, ""]:
    """Of all answers, from the logarithms of the sums over (g, h, q) of exp S."""
    num = edges.num_classes
    guessing = jnp.log((1 - reliability) / num)
    labels = jnp.sum(~edges.excluded, axis=1)
    pairs = labels * (num - 1)  # equally probable beforehand
    return jnp.sum(total - jnp.log(pairs)) + jnp.sum(edges.numbers * guessing)


def pair_probas(
    edges: Edges,
    reliability: Float[Array, " W"],
    prior: Float[Array, " Q"],
    points: Float[Array, " Q"],
) -> Float[Array, "J K K"]:
    """sum_q R_j(g, h, q), one grid point after the other: memory J K^2, not J K^2 Q."""
    first, second = scores(edges, reliability, points)
    first = first + jnp.log(prior)[None, None, :]
    shift, of_second = sum_of_others(second)
    total = jax.nn.logsumexp(first + shift, axis=(1, 2), b=of_second)[:, None, None]
    same = jnp.eye(edges.num_classes, dtype=bool)[None]

    def add(pairs: Array, of_point: tuple) -> tuple:
        first, second = of_point
        terms = jnp.exp(first[:, :, None] + second[:, None, :] - total)
        return pairs + jnp.where(same, 0.0, terms), None

    start = jnp.zeros((edges.num_tasks, edges.num_classes, edges.num_classes))
    by_point = (jnp.moveaxis(x, 2, 0) for x in (first, second))
    return jax.lax.scan(add, start, tuple(by_point))[0]


def informed(
    edges: Edges,
    reliability: Float[Array, " W"],
    first: Float[Array, "J K Q"],
    second: Float[Array, "J K Q"],
    points: Float[Array, " Q"],
) -> Float[Array, " W"]:
    """sum_j z_ij: what z needs beside R is the worker's alone, so R is summed first."""
    as_first, as_second = (-jnp.expm1(-gain) for gain in gains(edges, reliability, points))
    of_first, of_second = (edges.over_workers(x[edges.task, edges.label]) for x in (first, second))
    return jnp.sum(of_first * as_first + of_second * as_second, axis=1)


@eqx.filter_jit
def averages(
    edges: Edges,
    reliability: Float[Array, " W"],
    prior: Float[Array, " Q"],
    points: Float[Array, " Q"],
) -> tuple[Float[Array, "J K K"], Float[Array, "J Q"], Float[Array, "J K"]]:
    """P(g, h), P(q) and E[q 1{k = g} + (1 - q) 1{k = h}] of each task."""
    first, second, _ = marginals(edges, reliability, prior, points)
    pairs = pair_probas(edges, reliability, prior, points)
    return pairs, jnp.sum(first, axis=1), first @ points + second @ (1 - points)
