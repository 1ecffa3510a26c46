"""Reading tables of answers: what is no table is refused with a reason."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from jurax.models.tables import read_columns, show

COLUMNS = ("task", "worker", "label")


def read_table(table: Any) -> pd.DataFrame:
    """The three columns of a table, checked."""
    return read_columns(table, "answers", COLUMNS, COLUMNS, {"performer": "worker"})


def without_repeats(frame: pd.DataFrame, repeats: str) -> tuple[pd.DataFrame, int]:
    """The frame with repeated (task, worker) pairs treated as `repeats` says, and their number."""
    repeated = frame.duplicated(["task", "worker"])
    number = int(repeated.sum())
    if number and repeats == "error":
        raise ValueError(repetition(frame[repeated]) + ", 'first' or 'last'")
    if number and repeats in ("first", "last"):
        frame = frame.drop_duplicates(["task", "worker"], keep=repeats)  # pyright: ignore
    return frame, number


def repetition(repeated: pd.DataFrame) -> str:
    """What to say of answers that repeat a pair."""
    row = repeated.iloc[0]
    return (
        f"{len(repeated)} answers repeat a pair of task and worker, for instance worker "
        f"{show(row['worker'])} on task {show(row['task'])}; choose repeats='all'"
    )


def class_index(labels: pd.Series, classes: Sequence | None) -> pd.Index:
    """The classes in order; every label must be one of them, and there must be two."""
    if classes is None:
        found = labels.unique()
        try:
            index = pd.Index(sorted(found))
        except TypeError:  # labels of different types have no order
            index = pd.Index(found)
    else:
        index = pd.Index(list(classes))
        if index.has_duplicates:
            raise ValueError(f"classes holds {show(index[index.duplicated()][0])} twice")
        if index.hasnans:
            raise ValueError("classes holds a missing value")
        strange = labels[~labels.isin(index)]
        if len(strange):
            raise ValueError(
                f"{len(strange)} answers have labels that are no classes, for instance "
                f"{show(strange.iloc[0])}; classes are {list(index)}"
            )
    if len(index) < 2:
        raise ValueError(
            f"there is only the class {list(index)}; two are needed: pass classes=[...] with all "
            "labels that were on offer"
        )
    return index


def refuse_twice(labels: pd.Series, who: str) -> None:
    """Refuse two labels of one task."""
    if labels.index.has_duplicates:
        task = labels.index[labels.index.duplicated()][0]
        raise ValueError(f"{who} task {show(task)} more than once; give one label for each")
