"""What a worker will answer to a task: P(y_ij = k | the data), under the models of the family.

Each law holds the fitted arrays and is called with indices of tasks and workers; it returns one row
over the classes for each pair. The label of the task is averaged over its posterior T.

Shape letters: E questions, J tasks, W workers, K classes.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

Law = Callable[[Int[np.ndarray, " E"], Int[np.ndarray, " E"]], Float[np.ndarray, "E K"]]


@dataclasses.dataclass(frozen=True)
class Votes:
    """(votes of the class + 1/2) / (votes of the task + K/2): workers are alike."""

    votes: Float[np.ndarray, "J K"]

    def __call__(self, task, worker):
        """Ignores the worker."""
        del worker
        votes = self.votes[task] + 0.5
        return votes / votes.sum(axis=1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class Matrices:
    """sum_c T_jc pi^i[c, k]."""

    probas: Float[np.ndarray, "J K"]
    matrices: Float[np.ndarray, "W K K"]

    def __call__(self, task, worker):
        """One product of a row and a matrix for each question."""
        return np.einsum("ec,eck->ek", self.probas[task], self.matrices[worker])


@dataclasses.dataclass(frozen=True)
class Accuracies:
    """T_jk a + (1 - T_jk) (1 - a) / (K - 1), with a given by the accuracy of worker i on task j."""

    probas: Float[np.ndarray, "J K"]
    accuracy: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def __call__(self, task, worker):
        """Errors are spread evenly."""
        probas, accuracy = self.probas[task], self.accuracy(task, worker)[:, None]
        return probas * accuracy + (1 - probas) * (1 - accuracy) / (probas.shape[1] - 1)


@dataclasses.dataclass(frozen=True)
class OfWorker:
    """An accuracy that is the worker's alone."""

    values: Float[np.ndarray, " W"]

    def __call__(self, task, worker):
        """Ignores the task."""
        del task
        return self.values[worker]


@dataclasses.dataclass(frozen=True)
class Shares:
    """p_i s_j[k] + (1 - p_i) guess_i[k]: informed workers answer by shares s_j, the others guess.

    Attributes:
        shares: s, what informed workers answer.
        informed: p.
        guesses: what each worker answers uninformed; None: uniform.
    """

    shares: Float[np.ndarray, "J K"]
    informed: Float[np.ndarray, " W"]
    guesses: Float[np.ndarray, "W K"] | None = None

    def __call__(self, task, worker):
        """A mixture for each question."""
        informed = self.informed[worker][:, None]
        num = self.shares.shape[1]
        guesses = 1 / num if self.guesses is None else self.guesses[worker]
        return informed * self.shares[task] + (1 - informed) * guesses
