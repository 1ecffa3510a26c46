"""The interface of all aggregators: crowd-kit's conventions over one estimate.

Shape letters: J tasks, W workers, K classes.
"""

import abc
import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from jurax.models.crowd.answers import Answers
from jurax.models.crowd.laws import Law
from jurax.ppl.program import Program

TIES = ("first", "random")
Fitted = TypeVar("Fitted", bound="AbstractAggregator")


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What an aggregator finds.

    Attributes:
        probas: probability of each class, by task.
        skills: what a worker's answers are worth; its meaning is the aggregator's.
        priors: share of each class.
        num_iterations: iterations made.
        log_likelihood: per answer, NaN where the method has none.
        pairs: probability of (right answer, most confusing wrong answer), `(J, K, K)`, or None.
        confusion: q of each task, the share of the right answer in the pair, or None.
        shares: E[q 1{k = g} + (1 - q) 1{k = h}], what informed workers answer, or None.
        answer_law: P(answer of a worker to a task), for indices of both; see `laws.py`.
    """

    probas: Float[np.ndarray, "J K"]
    skills: Float[np.ndarray, " W"]
    priors: Float[np.ndarray, " K"]
    num_iterations: int = 0
    log_likelihood: float = float("nan")
    pairs: Float[np.ndarray, "J K K"] | None = None
    confusion: Float[np.ndarray, " J"] | None = None
    shares: Float[np.ndarray, "J K"] | None = None
    answer_law: Law = dataclasses.field(kw_only=True)


@dataclasses.dataclass
class AbstractAggregator(abc.ABC):
    """Answers in; labels, probabilities and skills out.

    Args:
        n_iter: largest number of iterations.
        tol: iterations stop when the log-likelihood per answer rises by less.
        repeats: as in `Answers`. The default counts all answers, as crowd-kit does, and warns.
        classes: as in `Answers`.
        ties: which class of equal probability becomes the label: the "first" in the order of
            `classes`, or a "random" one.
        seed: of random ties.

    After `fit`: `labels_` (Series by task), `probas_` (frame, task x label), `skills_` (Series by
    worker), `priors_` (Series by label), `estimate_`, `answers_`.
    """

    n_iter: int = 100
    tol: float = 1e-5
    repeats: str = "all"
    classes: Sequence | None = None
    ties: str = "first"
    seed: int = 0

    def __post_init__(self):
        if self.ties not in TIES:
            raise ValueError(f"ties must be one of {', '.join(TIES)}; got {self.ties!r}")
        if self.n_iter < 0 or not self.tol >= 0:
            raise ValueError(
                f"n_iter and tol must be numbers >= 0, got {self.n_iter} and {self.tol}"
            )

    @abc.abstractmethod
    def estimate(self, answers: Answers, gold: Int[np.ndarray, " J"]) -> Estimate:
        """The estimate; `gold` holds known class indices and -1."""

    def fit(self: Fitted, data: Any, gold: Any = None) -> Fitted:
        """Fit to a table of answers; tasks in `gold` (Series by task) keep their known label."""
        answers = data
        if not isinstance(data, Answers):
            answers = Answers(data, self.repeats, self.classes)
            if answers.num_repeated and self.repeats == "all":
                warnings.warn(
                    f"{answers.num_repeated} answers repeat a pair of task and worker and are all "
                    "counted; choose repeats='first', 'last' or 'error'",
                    stacklevel=2,
                )
        self.answers_ = answers
        self.estimate_ = self.estimate(answers, answers.gold(gold))
        self._name(self.estimate_)
        return self

    def program(self, answers: Answers, gold: Any = None) -> Program:
        """The model as a NumPyro program for `infer`.

        Raises:
            ValueError: for votes and messages, which have no likelihood.
        """
        del answers, gold
        raise ValueError(
            f"{type(self).__name__} has no likelihood, hence no posterior; use "
            "OneCoinDawidSkene, DawidSkene, GLAD, MACE or TopTwo"
        )

    def fit_predict(self, data: Any, gold: Any = None) -> pd.Series:
        """`fit`, then the most probable label of each task."""
        return self.fit(data, gold).labels_

    def fit_predict_proba(self, data: Any, gold: Any = None) -> pd.DataFrame:
        """`fit`, then the probability of each label, task x label."""
        return self.fit(data, gold).probas_

    def _name(self, found: Estimate) -> None:
        """Give the arrays the names of tasks, workers and classes."""
        answers = self.answers_
        tasks = pd.Index(answers.tasks, name="task")
        columns = pd.Index(answers.classes, name="label")
        self.best_ = most_probable(found.probas, self.ties, self.seed)
        self.probas_ = pd.DataFrame(found.probas, index=tasks, columns=columns)
        self.labels_ = pd.Series(answers.classes.take(self.best_), index=tasks, name="agg_label")
        workers = pd.Index(answers.workers, name="worker")
        self.skills_ = pd.Series(found.skills, index=workers, name="skill")
        self.priors_ = pd.Series(found.priors, index=columns, name="prior")


def most_probable(probas: Float[np.ndarray, "J K"], ties: str, seed: int) -> np.ndarray:
    """The class of the largest probability of each row; equal within rounding is a tie."""
    if ties == "first":
        return np.argmax(probas >= probas.max(axis=1, keepdims=True) - 1e-9, axis=1)
    noise = np.random.default_rng(seed).random(probas.shape)
    tied = probas >= probas.max(axis=1, keepdims=True) - 1e-9
    return np.argmax(np.where(tied, noise, -1.0), axis=1)


def one_hot(gold: Int[np.ndarray, " J"], num_classes: int) -> Float[np.ndarray, "J K"]:
    """Rows of known classes; zero where none is known."""
    return (gold[:, None] == np.arange(num_classes)).astype(np.float32)
