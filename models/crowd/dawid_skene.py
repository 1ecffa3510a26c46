"""Dawid-Skene: workers with confusion matrices, or with one accuracy, by smoothed EM.

    T_jc ~ rho_c prod_i pi^i[c, y_ij],    pi^i[c, l] ~ a + b 1{c = l} + sum_j T_jc 1{y_ij = l}

Dawid and Skene 1979, with pseudo-answers: without them workers of few answers are overfitted.
One coin: pi^i has one accuracy on its diagonal and (1 - accuracy) / (K - 1) beside it.

Shape letters: E answers, J tasks, W workers, K classes.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from jurax.models.crowd.aggregator import AbstractAggregator, Estimate
from jurax.models.crowd.answers import Answers
from jurax.models.crowd.em import Edges, iterate

PRIORS = ("uniform", "learned")


@dataclasses.dataclass
class DawidSkene(AbstractAggregator):
    """A confusion matrix for each worker.

    Args:
        smoothing: a, pseudo-answers in each cell of a worker's matrix; 0 is maximum likelihood.
        diagonal: b, more of them on its diagonal.
        priors: rho, "uniform" or "learned". Learned, EM can slide to where one class takes most
            tasks; learn it where classes are known to be rare.

    `skills_` is the probability of a right answer, sum_c rho_c pi^i[c, c]; `errors_` holds the
    matrices, as crowd-kit lays them out: a row for (worker, answer), a column for each right label.

    Example:
        >>> table = {"task": [1, 1, 1, 2, 2], "worker": [1, 2, 3, 1, 2], "label": list("aabbb")}
        >>> DawidSkene().fit(table).labels_.tolist()
        ['a', 'b']
    """

    smoothing: float = 0.5
    diagonal: float = 1.0
    priors: str = "uniform"

    def __post_init__(self):
        super().__post_init__()
        check_options(self.priors, smoothing=self.smoothing, diagonal=self.diagonal)

    def estimate(self, answers, gold):
        """EM from the shares of votes."""
        edges = Edges.of(answers, gold)
        pseudo = self.smoothing + self.diagonal * jnp.eye(answers.num_classes)
        (probas, matrices, priors), log_likelihood, number = fit_matrices(
            edges, pseudo, self.priors, self.n_iter, self.tol
        )
        self.errors_ = named(answers, np.asarray(matrices))
        skills = jnp.einsum("c,wcc->w", priors, matrices)
        return Estimate(
            np.asarray(probas),
            np.asarray(skills),
            np.asarray(priors),
            int(number),
            float(log_likelihood),
        )


@dataclasses.dataclass
class OneCoinDawidSkene(AbstractAggregator):
    """One accuracy for each worker: `skills_`.

    Args:
        smoothing: pseudo-answers of each worker, of accuracy 1/2 + 1/(2K): halfway between guessing
            and certainty.
        priors: as in `DawidSkene`.
    """

    smoothing: float = 2.0
    priors: str = "uniform"

    def __post_init__(self):
        super().__post_init__()
        check_options(self.priors, smoothing=self.smoothing)

    def estimate(self, answers, gold):
        """EM from the shares of votes."""
        edges = Edges.of(answers, gold)
        (probas, accuracies, priors), log_likelihood, number = fit_accuracies(
            edges, self.smoothing, self.priors, self.n_iter, self.tol
        )
        return Estimate(
            np.asarray(probas),
            np.asarray(accuracies),
            np.asarray(priors),
            int(number),
            float(log_likelihood),
        )


def named(answers: Answers, matrices: Float[np.ndarray, "W K K"]) -> pd.DataFrame:
    """The matrices with the names of workers and classes."""
    rows = pd.MultiIndex.from_product([answers.workers, answers.classes], names=["worker", "label"])
    flat = np.swapaxes(matrices, 1, 2).reshape(len(rows), answers.num_classes)
    return pd.DataFrame(flat, index=rows, columns=answers.classes)


@eqx.filter_jit
def fit_matrices(edges: Edges, pseudo: Float[Array, "K K"], kind: str, n_iter: int, tol: float):
    """EM with matrices: ((T, pi, rho), log-likelihood per answer, steps)."""
    num = edges.num_classes

    def step(state):
        probas, _, _ = state
        matrices, priors = matrices_of(edges, probas, pseudo), shares_of(probas, kind)
        log_joint = jnp.log(priors)[None] + edges.over_tasks(
            jnp.log(matrices)[edges.worker, :, edges.label]
        )
        probas, log_likelihood = normalized(edges, log_joint)
        return (probas, matrices, priors), log_likelihood

    shares = edges.shares()
    start = (shares, jnp.broadcast_to(pseudo, (edges.num_workers, num, num)), shares.mean(axis=0))
    return iterate(step, start, edges.task.shape[0], n_iter, tol)


def matrices_of(
    edges: Edges, probas: Float[Array, "J K"], pseudo: Float[Array, "K K"]
) -> Float[Array, "W K K"]:
    """pi^i[c, l] of the M-step."""
    num = edges.num_classes
    cells = edges.worker * num + edges.label
    counts = jax.ops.segment_sum(probas[edges.task], cells, edges.num_workers * num)
    counts = jnp.swapaxes(counts.reshape(edges.num_workers, num, num), 1, 2) + pseudo[None]
    return jnp.maximum(counts / jnp.maximum(counts.sum(axis=2, keepdims=True), 1e-10), 1e-10)


@eqx.filter_jit
def fit_accuracies(edges: Edges, smoothing: float, kind: str, n_iter: int, tol: float):
    """EM with one accuracy for each worker: ((T, a, rho), log-likelihood per answer, steps)."""
    num = edges.num_classes
    numbers = edges.over_workers(jnp.ones(edges.task.shape))
    halfway = 0.5 + 0.5 / num

    def step(state):
        probas, _, _ = state
        hits = edges.over_workers(probas[edges.task, edges.label])
        accuracies = (hits + smoothing * halfway) / (numbers + smoothing)
        accuracies = jnp.clip(accuracies, 1e-6, 1 - 1e-6)
        priors = shares_of(probas, kind)
        wrong = jnp.log((1 - accuracies) / (num - 1))
        gain = jnp.log(accuracies) - wrong
        log_joint = jnp.log(priors)[None] + edges.votes(gain[edges.worker])
        log_joint = log_joint + edges.over_tasks(wrong[edges.worker])[:, None]
        probas, log_likelihood = normalized(edges, log_joint)
        return (probas, accuracies, priors), log_likelihood

    shares = edges.shares()
    start = (shares, jnp.full(edges.num_workers, 0.5), shares.mean(axis=0))
    return iterate(step, start, edges.task.shape[0], n_iter, tol)


def shares_of(probas: Float[Array, "J K"], kind: str) -> Float[Array, " K"]:
    """Rho of the M-step."""
    if kind == "uniform":
        return jnp.full(probas.shape[1], 1 / probas.shape[1])
    return jnp.maximum(probas.mean(axis=0), 1e-10)


def check_options(priors: str, **pseudo: float) -> None:
    """Refuse what the M-steps cannot use."""
    if priors not in PRIORS:
        raise ValueError(f"priors must be one of {', '.join(PRIORS)}; got {priors!r}")
    for name, value in pseudo.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be a finite number >= 0, got {value}")


def normalized(edges: Edges, log_joint: Float[Array, "J K"]):
    """Posterior over classes by task, and the log-likelihood; known labels are clamped."""
    is_known = jnp.any(edges.gold > 0, axis=1, keepdims=True)
    log_joint = jnp.where(is_known & (edges.gold == 0), -jnp.inf, log_joint)
    total = jax.nn.logsumexp(log_joint, axis=1, keepdims=True)
    return jnp.exp(log_joint - total), jnp.sum(total)
