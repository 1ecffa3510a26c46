"""The top-two model: a right answer, the most confusing wrong one, and how confusing it is.

    P(y_ij = g_j) = p_i q_j + (1 - p_i) / K,    P(y_ij = h_j) = p_i (1 - q_j) + (1 - p_i) / K,
    (1 - p_i) / K for any other class;  q_j in (1/2, 1)

Jeong and Chung 2023 (arXiv 2301.00006). EM over (g, h, q) of each task, enumerated with q on a
grid, and the reliability p of each worker. With r_i = K p_i / (1 - p_i), up to a constant,

    S_j(a, b, q) = sum_i 1{y_ij = a} log(1 + r_i q)
                 + sum_i 1{y_ij = b} log(1 + r_i (1 - q)) + log prior(q),
    z_ij = P(answer ij is informed) = sum_q R_j(g = y, q) r q / (1 + r q)
                                    + sum_q R_j(h = y, q) r (1 - q) / (1 + r (1 - q)),
    p_i = (sum_j z_ij + 1/2) / (number of answers of i + 1)                        [Beta(1.5, 1.5)]

where R is the softmax of S over a != b and q. Renumbering the classes changes nothing.

Shape letters: E answers, J tasks, W workers, K classes, Q grid points.
"""

import dataclasses
import warnings
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from jurax.models.crowd import laws, released, spectral, top_two_law
from jurax.models.crowd.aggregator import AbstractAggregator, Estimate
from jurax.models.crowd.answers import Answers
from jurax.models.crowd.em import Edges, iterate
from jurax.models.crowd.one_coin import OneCoinDawidSkene
from jurax.models.crowd.top_two_law import grid
from jurax.models.crowd.top_two_posterior import program
from jurax.ppl.program import Program

METHODS = ("em", "spectral", "released")


@dataclasses.dataclass
class TopTwo(AbstractAggregator):
    """Right answer, most confusing wrong answer, and its confusion probability, for each task.

    Two classes leave no third one to tell guessing from confusion: p is not identified, and the
    one-coin model is fitted instead, with a warning.

    Args:
        method: "em"; "spectral": the two-stage algorithm in its sound form (`spectral.py`);
            "released": as its authors released it (`released.py`), for comparison.
        num_points: Q, grid points of q.

    After `fit` also: `second_` (h by task), `confusion_` (posterior mean of q; for "spectral" an
    estimate), `pairs_` (frame: task, first, second, probability of the most probable pair).
    `skills_` is p; `probas_` is P(g).

    Example:
        >>> table = {
        ...     "task": [1] * 6 + [2] * 6,
        ...     "worker": list("uvwxyz") * 2,
        ...     "label": list("aaaabb") + list("ccccca"),
        ... }
        >>> model = TopTwo(classes=list("abc")).fit(table)
        >>> model.labels_.tolist(), model.second_.tolist()
        (['a', 'c'], ['b', 'a'])
        >>> bool(model.confusion_[1] < model.confusion_[2])
        True
    """

    method: str = "em"
    num_points: int = 16

    def __post_init__(self):
        super().__post_init__()
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}; got {self.method!r}")
        if self.num_points < 1:
            raise ValueError(f"num_points must be at least 1, got {self.num_points}")

    def estimate(self, answers, gold):
        """EM, started from the spectral estimate of the workers, or that estimate alone."""
        if answers.num_classes == 2:
            warnings.warn(
                "two classes: the reliability of the top-two model is not identified, so the "
                "one-coin model is fitted; confusion_ is unknown (NaN)",
                stacklevel=3,
            )
            return of_two_classes(OneCoinDawidSkene(self.n_iter, self.tol).estimate(answers, gold))
        edges = Edges.of(answers, gold)
        if self.method == "released":
            return released.estimate(answers, edges)
        reliability = spectral.reliability(answers, edges)
        if self.method == "spectral":
            return spectral.estimate(edges, reliability)
        state, log_likelihood, number = fit(
            edges, reliability, grid(self.num_points), self.n_iter, self.tol
        )
        return summarize(edges, *state, grid(self.num_points), float(log_likelihood), int(number))

    def program(self, answers: Answers, gold: Any = None) -> Program:
        """The model with a prior, for `infer`; see `top_two_posterior.py` and `read_tasks`."""
        return program(answers, gold, self.num_points)

    def _name(self, found):
        super()._name(found)
        classes, tasks = self.answers_.classes, self.labels_.index
        pairs = found.pairs
        second = np.argmax(pairs[np.arange(len(tasks)), self.best_], axis=1)
        self.second_ = pd.Series(classes.take(second), index=tasks, name="second")
        self.confusion_ = pd.Series(found.confusion, index=tasks, name="confusion")
        first, other = np.divmod(pairs.reshape(len(tasks), -1).argmax(axis=1), len(classes))
        self.pairs_ = pd.DataFrame(
            {
                "task": tasks,
                "first": classes.take(first),
                "second": classes.take(other),
                "probability": pairs[np.arange(len(tasks)), first, other],
            }
        )


@eqx.filter_jit
def fit(
    edges: Edges, start: Float[Array, " W"], points: Float[Array, " Q"], n_iter: int, tol: float
):
    """EM: ((p, prior of q), log-likelihood per answer, steps)."""
    numbers = edges.numbers

    def step(state):
        reliability, prior = state
        first, second, log_likelihood = top_two_law.marginals(edges, reliability, prior, points)
        hits = top_two_law.informed(edges, reliability, first, second, points)
        by_point = jnp.sum(first, axis=(0, 1)) + 1.0
        state = (hits + 0.5) / (numbers + 1.0), by_point / jnp.sum(by_point)
        return state, log_likelihood

    flat = jnp.full(points.shape, 1 / points.shape[0])
    return iterate(step, (start, flat), edges.num_answers, n_iter, tol)


def summarize(
    edges: Edges,
    reliability: Float[Array, " W"],
    prior: Float[Array, " Q"],
    points: Float[Array, " Q"],
    log_likelihood: float,
    number: int,
) -> Estimate:
    """The posterior of every task under the fitted p and prior of q."""
    pairs, confusion, shares = top_two_law.averages(edges, reliability, prior, points)
    pairs, confusion, shares, p = map(np.asarray, (pairs, confusion, shares, reliability))
    probas = pairs.sum(axis=2)
    return Estimate(
        probas,
        p,
        probas.mean(axis=0),
        number,
        log_likelihood,
        pairs,
        confusion @ np.asarray(points),
        shares,
        answer_law=laws.Shares(shares, p),
    )


def of_two_classes(found: Estimate) -> Estimate:
    """The second answer of two classes is the other one."""
    pairs = np.zeros((*found.probas.shape, 2))
    pairs[:, 0, 1], pairs[:, 1, 0] = found.probas[:, 0], found.probas[:, 1]
    confusion = np.full(len(found.probas), np.nan)
    return dataclasses.replace(found, pairs=pairs, confusion=confusion)
