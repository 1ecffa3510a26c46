"""Reading tables of answers: what is no table is refused with a reason."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

COLUMNS = ("task", "worker", "label")


def read_table(table: Any) -> pd.DataFrame:
    """The three columns of a table, checked."""
    frame = as_frame(table)
    if frame.columns.has_duplicates:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise ValueError(f"the table has the column {twice!r} twice")
    lacking = [name for name in COLUMNS if name not in frame.columns]
    if lacking:
        hint = "; rename 'performer' to 'worker'" if "performer" in frame.columns else ""
        raise ValueError(
            f"the table lacks the column(s) {', '.join(lacking)}; it has "
            f"{', '.join(map(str, frame.columns)) or 'none'}{hint}"
        )
    frame = frame[list(COLUMNS)].reset_index(drop=True)
    if frame.empty:
        raise ValueError("the table holds no answers")
    for name in COLUMNS:
        check_column(name, frame[name])
    return frame


def as_frame(table: Any) -> pd.DataFrame:
    """A frame from a frame, a mapping of columns or a CSV file."""
    if isinstance(table, pd.DataFrame):
        return table
    if isinstance(table, str | Path):
        if not Path(table).is_file():
            raise ValueError(f"there is no file {table}")
        try:
            return pd.read_csv(table)
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise ValueError(f"{table} is not a readable CSV file: {error}") from error
    if isinstance(table, Mapping):
        columns = {name: np.asarray(column) for name, column in table.items()}
        for name, column in columns.items():
            if column.ndim != 1:
                raise ValueError(f"column {name!r} must have one axis, got shape {column.shape}")
        if len({len(column) for column in columns.values()}) > 1:
            lengths = {name: len(column) for name, column in columns.items()}
            raise ValueError(f"columns must be equally long, got {lengths}")
        return pd.DataFrame(columns)
    raise TypeError(
        "answers must be a pandas DataFrame, a mapping of columns or the path of a CSV file with "
        f"the columns task, worker, label; got {type(table).__name__}"
    )


def check_column(name: str, column: pd.Series) -> None:
    """Refuse missing and infinite entries, and entries that cannot be compared."""
    missing = column.isna()
    if missing.any():
        raise ValueError(
            f"{missing.sum()} answers have no {name}, the first in row {int(missing.argmax())}; "
            "drop or mend them"
        )
    if pd.api.types.is_float_dtype(column) and np.isinf(column).any():
        raise ValueError(f"column {name!r} is infinite in row {int(np.isinf(column).argmax())}")
    if column.dtype != object:
        return
    try:
        column.map(hash)
    except TypeError as error:
        raise TypeError(f"entries of column {name!r} must be hashable: {error}") from error


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


def show(value: Any) -> str:
    """A value as a user wrote it: 1, not np.int64(1)."""
    return repr(value.item() if isinstance(value, np.generic) else value)
