"""The spectral start of the top-two model, in a form that class numbers do not matter to.

Stage 1. With B[i, (j, k)] = 1{y_ij = k} - 1{i answered j} / K the matrix B B' has, off its
diagonal, the expectation p_i p_i' times a positive number of each common task. Its diagonal, which
counts answers, is set to zero and each entry divided by the number of common tasks; u is the
leading eigenvector. A vote weighted by u gives the first two answers of each task.

Stage 2. p from the share of answers among the first two, q from the weighted votes for them, then
the pair with the largest likelihood. Jeong and Chung 2023 (their two stages), without the
subtraction on unanswered cells of their code, which makes results depend on the order of classes.

Shape letters: J tasks, W workers, K classes.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy import sparse
from scipy.sparse.linalg import eigsh

from jurax.models.crowd import laws
from jurax.models.crowd.aggregator import Estimate
from jurax.models.crowd.answers import Answers
from jurax.models.crowd.em import Edges

PSEUDO = 4.0  # answers of a worker with p = 1/2 that shrink each estimate of p
DENSE = 400  # workers up to which all eigenvectors are computed


def reliability(answers: Answers, edges: Edges) -> Float[Array, " W"]:
    """P of each worker, from the first two answers of the weighted vote."""
    mean, _ = agreements(answers.task, answers.worker, answers.label, answers.num_classes)
    vector = np.maximum(leading_vector(mean), 0)
    weights = jnp.asarray(vector if vector.any() else np.ones_like(vector), float)
    votes = edges.votes(weights[edges.worker])
    known = edges.gold * (1 + jnp.max(votes, axis=1, keepdims=True))  # a known label wins
    return reliability_of(edges, first_two(votes + known))


def agreements(
    task: Int[np.ndarray, " E"],
    worker: Int[np.ndarray, " E"],
    label: Int[np.ndarray, " E"],
    num_classes: int,
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Mean of 1{equal} - 1/K over the common tasks of two workers, and the number of these.

    Both are zero on the diagonal and where there is no common task.
    """
    given = sparse.csr_matrix((np.ones(len(task)), (worker, task * num_classes + label)))
    asked = sparse.csr_matrix((np.ones(len(task)), (worker, task)))
    equal, common = without_diagonal(given @ given.T), without_diagonal(asked @ asked.T)
    inverse, offset = common.copy(), common.copy()
    inverse.data = 1 / inverse.data
    offset.data = np.full_like(offset.data, -1 / num_classes)
    return (equal.multiply(inverse) + offset).tocsr(), common


def without_diagonal(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """The matrix with a diagonal of zeros that are not stored."""
    matrix = matrix.tocsr()
    matrix.setdiag(0)
    matrix.eliminate_zeros()
    return matrix


def leading_vector(matrix: sparse.csr_matrix | np.ndarray) -> Float[np.ndarray, " W"]:
    """The leading eigenvector of a symmetric matrix, with a sum that is not negative.

    Ones if the matrix is zero: no two workers share a task.
    """
    size = matrix.shape[0]
    if not np.abs(matrix).max() > 0:
        return np.ones(size)
    if size <= DENSE:
        dense = matrix.toarray() if sparse.issparse(matrix) else matrix
        vector = np.linalg.eigh(dense)[1][:, -1]
    else:
        start = np.random.default_rng(0).random(size)  # ones can be in the kernel
        vector = eigsh(matrix, k=1, which="LA", v0=start)[1][:, 0]
    return vector * (1 if vector.sum() >= 0 else -1)


def first_two(votes: Float[Array, "J K"]) -> Int[Array, "J 2"]:
    """The classes with the most weight and with the second most."""
    return jnp.argsort(-votes, axis=1)[:, :2]


def reliability_of(
    edges: Edges, pair: Int[Array, "J 2"], pseudo: float = PSEUDO, margin: float = 0.01
) -> Float[Array, " W"]:
    """P = (f - 2/K) / (1 - 2/K) with f the shrunken share of a worker's answers among the pair."""
    num = edges.num_classes
    hits = jnp.any(pair[edges.task] == edges.label[:, None], axis=1)
    total = edges.over_workers(hits.astype(float)) + pseudo * (0.5 + 1 / num)
    share = total / (edges.numbers + pseudo)
    return jnp.clip((share - 2 / num) / (1 - 2 / num), margin, 1 - margin)


def estimate(edges: Edges, p: Float[Array, " W"]) -> Estimate:
    """Stage 2: q from the weighted votes for the two, with one vote more for each."""
    votes = jnp.sort(edges.votes(p[edges.worker]), axis=1)
    q = jnp.clip((votes[:, -1] + 1) / (votes[:, -1] + votes[:, -2] + 2), 0.501, 0.999)
    return by_likelihood(edges, p, q)


def by_likelihood(edges: Edges, p: Float[Array, " W"], q: Float[Array, " J"]) -> Estimate:
    """The softmax of the likelihood of every pair, with p and q plugged in."""
    pairs = np.asarray(pair_probas(edges, p, q))
    probas = pairs.sum(axis=2)
    p, q = np.asarray(p), np.asarray(q)
    shares = q[:, None] * probas + (1 - q[:, None]) * pairs.sum(axis=1)
    return Estimate(
        probas,
        p,
        probas.mean(axis=0),
        pairs=pairs,
        confusion=q,
        shares=shares,
        answer_law=laws.Shares(shares, p),
    )


@eqx.filter_jit
def pair_probas(
    edges: Edges, p: Float[Array, " W"], q: Float[Array, " J"]
) -> Float[Array, "J K K"]:
    """Each answer adds log(1 + K p q / (1 - p)) to its class as g, with 1 - q to it as h."""
    ratio = (edges.num_classes * p / (1 - p))[edges.worker]
    first = edges.votes(jnp.log1p(ratio * q[edges.task]))
    second = edges.votes(jnp.log1p(ratio * (1 - q[edges.task])))
    impossible = edges.excluded[:, :, None] | jnp.eye(edges.num_classes, dtype=bool)[None]
    scores = jnp.where(impossible, -jnp.inf, first[:, :, None] + second[:, None, :])
    return jax.nn.softmax(scores, axis=(1, 2))
