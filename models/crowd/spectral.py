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
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy import sparse
from scipy.sparse.linalg import eigsh

from jurax.models.crowd.aggregator import Estimate
from jurax.models.crowd.answers import Answers
from jurax.models.crowd.em import Edges

PSEUDO = 4.0  # answers of a worker with p = 1/2 that shrink each estimate of p
DENSE = 400  # workers up to which all eigenvectors are computed


def reliability(answers: Answers, edges: Edges) -> Float[Array, " W"]:
    """P of each worker, from the first two answers of the weighted vote."""
    weights = jnp.asarray(leading_vector(agreements(answers)), float)
    votes = edges.votes(weights[edges.worker])
    known = edges.gold * (1 + jnp.max(votes, axis=1, keepdims=True))  # a known label wins
    return reliability_of(edges, first_two(votes + known))


def agreements(answers: Answers) -> sparse.csr_matrix:
    """Mean of 1{equal} - 1/K over the common tasks of two workers; zero for none and for i = i'."""
    ones = np.ones(len(answers))
    shape = (answers.num_workers, answers.num_tasks)
    cells = answers.task * answers.num_classes + answers.label
    given = sparse.csr_matrix(
        (ones, (answers.worker, cells)), (shape[0], shape[1] * answers.num_classes)
    )
    asked = sparse.csr_matrix((ones, (answers.worker, answers.task)), shape)
    equal, common = (given @ given.T).tocoo(), (asked @ asked.T).tocsr()
    common.setdiag(0)
    common.eliminate_zeros()
    mean = common.copy()
    mean.data = -np.ones_like(mean.data) / answers.num_classes
    equal = equal.tocsr()
    equal.setdiag(0)
    equal.eliminate_zeros()
    inverse = common.copy()
    inverse.data = 1 / inverse.data
    return (equal.multiply(inverse) + mean).tocsr()


def leading_vector(matrix: sparse.csr_matrix) -> Float[np.ndarray, " W"]:
    """The leading eigenvector with a positive sum, its negative entries cut to zero."""
    size = matrix.shape[0]
    if size <= DENSE:
        vector = np.linalg.eigh(matrix.toarray())[1][:, -1]
    else:
        vector = eigsh(matrix, k=1, which="LA", v0=np.ones(size))[1][:, 0]
    vector = np.maximum(vector * (1 if vector.sum() >= 0 else -1), 0)
    return vector if vector.any() else np.ones(size)


def first_two(votes: Float[Array, "J K"]) -> Int[Array, "J 2"]:
    """The classes with the most weight and with the second most."""
    return jnp.argsort(-votes, axis=1)[:, :2]


def reliability_of(edges: Edges, pair: Int[Array, "J 2"]) -> Float[Array, " W"]:
    """P = (f - 2/K) / (1 - 2/K) with f the shrunken share of a worker's answers among the pair."""
    num = edges.num_classes
    hits = jnp.any(pair[edges.task] == edges.label[:, None], axis=1)
    total = edges.over_workers(hits.astype(float)) + PSEUDO * (0.5 + 1 / num)
    share = total / (edges.over_workers(jnp.ones(hits.shape)) + PSEUDO)
    return jnp.clip((share - 2 / num) / (1 - 2 / num), 0.01, 0.99)


def estimate(edges: Edges, p: Float[Array, " W"]) -> Estimate:
    """Stage 2: the plug-in likelihood of every pair; `pairs` is its softmax."""
    log_likelihood, q = plug_in(edges, p)
    pairs = np.asarray(edges.clamped_pairs(log_likelihood))
    probas = pairs.sum(axis=2)
    return Estimate(
        probas, np.asarray(p), probas.mean(axis=0), pairs=pairs, confusion=np.asarray(q)
    )


@eqx.filter_jit
def plug_in(
    edges: Edges, p: Float[Array, " W"]
) -> tuple[Float[Array, "J K K"], Float[Array, " J"]]:
    """Log-likelihood of each pair against guessing, `(J, K, K)`; q, with one vote more for each."""
    votes = jnp.sort(edges.votes(p[edges.worker]), axis=1)
    q = jnp.clip((votes[:, -1] + 1) / (votes[:, -1] + votes[:, -2] + 2), 0.501, 0.999)
    ratio = (edges.num_classes * p / (1 - p))[edges.worker]
    first = edges.votes(jnp.log1p(ratio * q[edges.task]))
    second = edges.votes(jnp.log1p(ratio * (1 - q[edges.task])))
    return first[:, :, None] + second[:, None, :], q
