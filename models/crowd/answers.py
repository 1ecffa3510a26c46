"""Answers: a long table (task, worker, label) as a compact edge list.

Shape letters: E answers, J tasks, W workers, K classes.
"""

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from jurax.models.crowd.tables import (
    COLUMNS,
    class_index,
    read_table,
    refuse_twice,
    repetition,
    without_repeats,
)
from jurax.models.tables import show

REPEATS = ("error", "first", "last", "all")


class Answers:
    """Who answered what, in integers; ids and labels keep their own types in `tasks`, ....

    Args:
        table: a pandas frame, a mapping of equally long columns, or the path of a CSV file, with
            the columns task, worker and label; others are ignored.
        repeats: what to do where a worker answered a task more than once: "error", keep the
            "first" or the "last" of them, or count "all".
        classes: all labels that were on offer; by default those that occur, sorted if they can be.

    Attributes:
        task: index into `tasks` of each answer.
        worker: index into `workers`.
        label: index into `classes`.
        tasks: ids of the J tasks, in order of appearance.
        workers: ids of the W workers, in order of appearance.
        classes: the K labels.
        num_repeated: answers that repeat a pair of task and worker.

    Raises:
        TypeError, ValueError: for tables that are no answers; the message says what was expected.

    Example:
        >>> answers = Answers({"task": [1, 1, 2], "worker": list("aba"), "label": list("xyy")})
        >>> answers, answers.label.tolist(), list(answers.classes)
        (Answers(3 answers, 2 tasks, 2 workers, 2 classes), [0, 1, 1], ['x', 'y'])
    """

    task: Int[np.ndarray, " E"]
    worker: Int[np.ndarray, " E"]
    label: Int[np.ndarray, " E"]

    def __init__(self, table: Any, repeats: str = "error", classes: Sequence | None = None):
        if repeats not in REPEATS:
            raise ValueError(f"repeats must be one of {', '.join(REPEATS)}; got {repeats!r}")
        frame = read_table(table)
        frame, self.num_repeated = without_repeats(frame, repeats)
        self.task, self.tasks = pd.factorize(frame["task"])
        self.worker, self.workers = pd.factorize(frame["worker"])
        self.classes = class_index(frame["label"], classes)
        self.label = self.classes.get_indexer(pd.Index(frame["label"]))

    @property
    def num_tasks(self) -> int:
        """J."""
        return len(self.tasks)

    @property
    def num_workers(self) -> int:
        """W."""
        return len(self.workers)

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.classes)

    def __len__(self) -> int:
        return len(self.task)

    def __repr__(self) -> str:
        return (
            f"Answers({len(self)} answers, {self.num_tasks} tasks, {self.num_workers} workers, "
            f"{self.num_classes} classes)"
        )

    def added(self, table: Any, repeats: str = "error") -> "Answers":
        """These answers and then those of `table`, with the same classes.

        Args:
            table: as for `Answers`; tasks and workers may be old or new.
            repeats: "error" or "all", for new answers to a pair of task and worker that has one.

        Example:
            >>> old = Answers({"task": [1, 1], "worker": [1, 2], "label": ["a", "b"]})
            >>> old.added({"task": [1], "worker": [3], "label": ["a"]})
            Answers(3 answers, 1 tasks, 3 workers, 2 classes)
        """
        if repeats not in ("error", "all"):
            raise ValueError(f"repeats must be error or all here; got {repeats!r}")
        new = read_table(table)
        both = pd.concat([self.frame, new], ignore_index=True)
        repeated = both.duplicated(["task", "worker"])[len(self) :]
        if repeats == "error" and repeated.any():
            raise ValueError(repetition(both.loc[repeated.index[repeated]]))
        return Answers(both, "all", list(self.classes))

    @property
    def frame(self) -> pd.DataFrame:
        """The table task, worker, label."""
        columns = ((self.tasks, self.task), (self.workers, self.worker))
        names = {name: pd.Index(x).take(i) for name, (x, i) in zip(COLUMNS, columns, strict=False)}
        return pd.DataFrame({**names, "label": self.classes.take(self.label)})

    def subset(self, keep: Bool[np.ndarray, " E"], strict: bool = True) -> "Answers":
        """The answers where `keep` holds, with the same tasks, workers and classes.

        Raises:
            ValueError: if `strict`, and a task or a worker keeps no answer.
        """
        kept = copy.copy(self)
        kept.task, kept.worker, kept.label = (
            column[keep] for column in (self.task, self.worker, self.label)
        )
        for name, column, size in (
            ("task", kept.task, self.num_tasks),
            ("worker", kept.worker, self.num_workers),
        ):
            if strict and len(np.unique(column)) < size:
                raise ValueError(f"every {name} must keep an answer")
        return kept

    def gold(self, labels: Any) -> Int[np.ndarray, " J"]:
        """Known labels as class indices by task; -1 where none is known.

        Args:
            labels: a pandas Series of labels by task, a mapping, or None. Tasks without answers are
                left out with a warning.

        Raises:
            ValueError: a task has two labels, a label is missing or is no class.
        """
        known = np.full(self.num_tasks, -1)
        if labels is None:
            return known
        labels = labels if isinstance(labels, pd.Series) else pd.Series(dict(labels), dtype=object)
        refuse_twice(labels, "gold names")
        if labels.isna().any():
            task = labels.index[labels.isna()][0]
            raise ValueError(f"gold has no label for task {show(task)}; leave unknown tasks out")
        codes = self.classes.get_indexer(pd.Index(labels))
        if (codes < 0).any():
            label = labels.iloc[int((codes < 0).argmax())]
            raise ValueError(
                f"gold label {show(label)} is none of the classes {list(self.classes)}; "
                "pass classes=[...] that hold it"
            )
        rows = pd.Index(self.tasks).get_indexer(labels.index)
        if (rows < 0).any():
            warnings.warn(
                f"{(rows < 0).sum()} gold tasks have no answers and are left out, "
                f"for instance {show(labels.index[rows < 0][0])}",
                stacklevel=2,
            )
        known[rows[rows >= 0]] = codes[rows >= 0]
        return known
