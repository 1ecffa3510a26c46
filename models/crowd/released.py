"""The top-two algorithm as its authors released it, so that their curves can be drawn again.

With s the share of answered cells and A^(k)_ij = 1 if y_ij > k, -1 if y_ij <= k, 0 if unanswered,

    X^(k) = A^(k) - s (K - 2k) / K   on all cells,            k = 1 .. K - 1,
    u = mean over k of the leading left singular vector of X^(k), cut to [0, 1],
    w_k = X^(k)' u / (2 s),   D_k = w_k - w_{k-1},   w_0 = w_K = 0,

and g, h are the classes of the smallest D and of the next; p from the share of a worker's answers
among the two; q = 1/K - D_g / |p|; then the pair of the largest likelihood. Jeong and Chung 2023
(arXiv 2301.00006), their code. Results depend on how the classes are numbered, because unanswered
cells are shifted too: `spectral.py` is the sound form. Differs from the code in using the estimated
g, not the true one, for q.

Shape letters: J tasks, W workers, K classes.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import sparse

from jurax.models.crowd import spectral
from jurax.models.crowd.aggregator import Estimate
from jurax.models.crowd.answers import Answers
from jurax.models.crowd.em import Edges


def estimate(answers: Answers, edges: Edges) -> Estimate:
    """Both stages; known labels win the first and are clamped in the second."""
    scores = differences(answers)
    known = np.asarray(edges.gold) > 0
    pair = np.argsort(np.where(known, -np.inf, scores), axis=1, kind="stable")[:, :2]
    p = spectral.reliability_of(edges, jnp.asarray(pair), pseudo=0.0, margin=0.001)
    lowest = np.take_along_axis(scores, pair[:, :1], axis=1)[:, 0]
    q = 1 / answers.num_classes - lowest / np.linalg.norm(p)
    return spectral.by_likelihood(edges, p, jnp.asarray(np.clip(q, 0.501, 0.999), float))


def differences(answers: Answers) -> Float[np.ndarray, "J K"]:
    """D of each task."""
    num, size = answers.num_classes, answers.num_tasks * answers.num_workers
    share = len(answers) / size
    encodings = [encoding(answers, k) for k in range(1, num)]
    offsets = [share * (num - 2 * k) / num for k in range(1, num)]
    vectors = [
        spectral.leading_vector(gram(signs, offset))
        for signs, offset in zip(encodings, offsets, strict=True)
    ]
    u = np.clip(np.mean(vectors, axis=0), 0, 1)
    w = np.zeros((answers.num_tasks, num + 1))
    for k, (signs, offset) in enumerate(zip(encodings, offsets, strict=True), start=1):
        w[:, k] = (signs.T @ u - offset * u.sum()) / (2 * share)
    return np.diff(w, axis=1)


def encoding(answers: Answers, k: int) -> sparse.csr_matrix:
    """A^(k), `(W, J)`."""
    signs = np.where(answers.label >= k, 1.0, -1.0)
    return sparse.csr_matrix(
        (signs, (answers.worker, answers.task)), (answers.num_workers, answers.num_tasks)
    )


def gram(signs: sparse.csr_matrix, offset: float) -> Float[np.ndarray, "W W"]:
    """X X' without the dense X."""
    rows = np.asarray(signs.sum(axis=1)).ravel()
    product = (signs @ signs.T).toarray()
    return product - offset * (rows[:, None] + rows[None, :]) + offset**2 * signs.shape[1]
