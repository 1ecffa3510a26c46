"""Dawid-Skene: workers with confusion matrices, by smoothed EM.

    T_jc ~ rho_c prod_i pi^i[c, y_ij],    pi^i[c, l] ~ a + b 1{c = l} + sum_j T_jc 1{y_ij = l}

Dawid and Skene 1979, with pseudo-answers: without them workers of few answers are overfitted.

Shape letters: E answers, J tasks, W workers, K classes.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
from jaxtyping import Array, Float

from jurax.models.crowd import laws
from jurax.models.crowd.aggregator import AbstractAggregator, Estimate
from jurax.models.crowd.answers import Answers
from jurax.models.crowd.em import Edges, check_options, iterate, shares_of
from jurax.models.crowd.programs import bound, class_shares


@dataclasses.dataclass
class DawidSkene(AbstractAggregator):
    """A confusion matrix for each worker.

    Args:
        smoothing: a, pseudo-answers in each cell of a worker's matrix; 0 is maximum likelihood.
        diagonal: b, more of them on its diagonal.
        priors: rho, "learned" or "uniform". Learned predicts held-out answers better on most real
            sets (`benchmarks/README.md`).

    `skills_` is the probability of a right answer, sum_c rho_c pi^i[c, c]; `errors_` holds the
    matrices, as crowd-kit lays them out: a row for (worker, answer), a column for each right label.

    Example:
        >>> table = {"task": [1, 1, 1, 2, 2], "worker": [1, 2, 3, 1, 2], "label": list("aabbb")}
        >>> DawidSkene().fit(table).labels_.tolist()
        ['a', 'b']
    """

    smoothing: float = 0.5
    diagonal: float = 1.0
    priors: str = "learned"

    def __post_init__(self):
        super().__post_init__()
        check_options(self.priors, smoothing=self.smoothing, diagonal=self.diagonal)

    def _pseudo(self, num_classes: int) -> Float[Array, "K K"]:
        return self.smoothing + self.diagonal * jnp.eye(num_classes)

    def program(self, answers, gold=None):
        """The model as a NumPyro program, `program` below."""
        return bound(program, answers, gold, self._pseudo(answers.num_classes), self.priors)

    def estimate(self, answers, gold):
        """EM from the shares of votes."""
        edges = Edges.of(answers, gold)
        pseudo = self._pseudo(answers.num_classes)
        (probas, matrices, priors), log_likelihood, number = fit_matrices(
            edges, pseudo, self.priors, self.n_iter, self.tol
        )
        self.errors_ = named(answers, np.asarray(matrices))
        skills = jnp.einsum("c,wcc->w", priors, matrices)
        probas = np.asarray(probas)
        return Estimate(
            probas,
            np.asarray(skills),
            np.asarray(priors),
            int(number),
            float(log_likelihood),
            answer_law=laws.Matrices(probas, np.asarray(matrices)),
        )


def named(answers: Answers, matrices: Float[np.ndarray, "W K K"]) -> pd.DataFrame:
    """The matrices with the names of workers and classes."""
    rows = pd.MultiIndex.from_product([answers.workers, answers.classes], names=["worker", "label"])
    flat = np.swapaxes(matrices, 1, 2).reshape(len(rows), answers.num_classes)
    return pd.DataFrame(flat, index=rows, columns=answers.classes)


def program(edges: Edges, pseudo: Float[Array, "K K"], kind: str) -> None:
    """pi^i[c] ~ Dirichlet(1 + a + b 1{. = c}): sites `matrices` (W, K, K), `priors`."""
    prior = dist.Dirichlet(1 + pseudo).expand([edges.num_workers, edges.num_classes]).to_event(2)
    matrices = numpyro.sample("matrices", prior)
    shares = class_shares(edges.num_classes, kind)
    numpyro.factor("answers", by_matrices(edges, matrices, shares)[1])


@eqx.filter_jit
def fit_matrices(edges: Edges, pseudo: Float[Array, "K K"], kind: str, n_iter: int, tol: float):
    """EM with matrices: ((T, pi, rho), log-likelihood per answer, steps)."""
    num = edges.num_classes

    def step(state):
        probas, _, _ = state
        matrices, priors = matrices_of(edges, probas, pseudo), shares_of(probas, kind)
        probas, log_likelihood = by_matrices(edges, matrices, priors)
        return (probas, matrices, priors), log_likelihood

    shares = edges.shares()
    start = (shares, jnp.broadcast_to(pseudo, (edges.num_workers, num, num)), shares.mean(axis=0))
    return iterate(step, start, edges.num_answers, n_iter, tol)


def by_matrices(
    edges: Edges, matrices: Float[Array, "W K K"], priors: Float[Array, " K"]
) -> tuple[Float[Array, "J K"], Float[Array, ""]]:
    """Posterior of the labels and log-likelihood, given the matrices."""
    by_answer = jnp.log(matrices)[edges.worker, :, edges.label]
    return edges.posterior(jnp.log(priors)[None] + edges.over_tasks(by_answer))


def matrices_of(
    edges: Edges, probas: Float[Array, "J K"], pseudo: Float[Array, "K K"]
) -> Float[Array, "W K K"]:
    """pi^i[c, l] of the M-step."""
    num = edges.num_classes
    cells = edges.worker * num + edges.label
    counts = jax.ops.segment_sum(probas[edges.task], cells, edges.num_workers * num)
    counts = jnp.swapaxes(counts.reshape(edges.num_workers, num, num), 1, 2) + pseudo[None]
    return jnp.maximum(counts / jnp.maximum(counts.sum(axis=2, keepdims=True), 1e-10), 1e-10)
