"""Levels: the ordered scores that a judge can give, read from what a table holds."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jurax.models.tables import show

MOST = 12  # more different scores than this are taken for a continuous scale


def read_levels(column: pd.Series, levels: Sequence | None) -> pd.Series:
    """Entries as levels; NaN where an entry is missing or cannot be read.

    Without `levels` entries are read as numbers. With them an entry that is a number, or stands
    among names, but is no level is an error: it is a typing mistake, no failure of a judge.
    """
    named = levels is not None and not all(isinstance(x, int | float | np.number) for x in levels)
    if named:
        strange = column.notna() & ~column.isin(list(levels or ()))
        refuse(column, strange, levels)
        return column
    found = pd.to_numeric(column, errors="coerce").astype(float)
    found = found.where(np.isfinite(found))
    if levels is not None:
        refuse(column, found.notna() & ~found.isin([float(x) for x in levels]), levels)
    return found


def refuse(column: pd.Series, strange: pd.Series, levels: Sequence | pd.Index | None) -> None:
    """Entries that are no levels."""
    if strange.any():
        names = [] if levels is None else list(levels)
        raise ValueError(
            f"{strange.sum()} scores are no levels, for instance {show(column[strange].iloc[0])} "
            f"in row {strange.index[int(np.argmax(strange))]}; levels are {names}"
        )


def level_index(
    found: pd.Series, levels: Sequence | None, collapse: str | float | int | None
) -> tuple[pd.Index, Callable[[pd.Series], np.ndarray]]:
    """The levels, worst first, and the function that turns entries into indices of them."""
    index = pd.Index(observed(found) if levels is None else list(levels))
    if index.has_duplicates:
        raise ValueError(f"levels holds {show(index[index.duplicated()][0])} twice")
    numeric = pd.api.types.is_numeric_dtype(index)
    if numeric and not index.is_monotonic_increasing:
        raise ValueError(f"levels must go from worst to best, got {list(index)}")
    if len(index) < 2:
        raise ValueError(
            f"only the score {list(index)} occurs; two levels are needed: pass levels=[...] with "
            "all scores that could be given"
        )

    def place(values: pd.Series) -> np.ndarray:
        keys = values.astype(float) if numeric else values
        found = (pd.Index(index.astype(float)) if numeric else index).get_indexer(pd.Index(keys))
        refuse(values.reset_index(drop=True), pd.Series(found < 0), index)
        return found

    if collapse is None:
        return index, place
    first = first_of_upper(index, collapse)
    return pd.Index([0, 1]), lambda values: (place(values) >= first).astype(int)


def observed(found: pd.Series) -> list[Any]:
    """The numbers that occur, with the whole numbers between them."""
    values = np.unique(found.dropna())
    if len(values) > MOST:
        raise ValueError(
            f"there are {len(values)} different scores, from {values[0]:g} to {values[-1]:g}: "
            "averages or a continuous scale are no levels; keep single runs, round the scores, "
            "or pass levels=[...]"
        )
    if np.all(values == np.round(values)) and values[-1] - values[0] < MOST:
        return list(range(int(values[0]), int(values[-1]) + 1))
    return list(values)


def first_of_upper(index: pd.Index, collapse: str | float | int) -> int:
    """Index of the first level that collapses to 1."""
    if collapse == "binary":
        return (len(index) + 1) // 2
    if isinstance(collapse, str) or not pd.api.types.is_numeric_dtype(index):
        raise ValueError(f"collapse must be None, 'binary' or a number, got {collapse!r}")
    first = int(np.searchsorted(index.to_numpy(float), float(collapse)))
    if not 0 < first < len(index):
        raise ValueError(f"collapse must lie above {index[0]} and at most at {index[-1]}")
    return first
