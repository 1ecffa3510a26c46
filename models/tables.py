"""Reading tables: what is no table is refused with a reason."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


def as_frame(table: Any, what: str, columns: Sequence[str]) -> pd.DataFrame:
    """A frame from a frame, a mapping of columns or a CSV file; `what` it holds is for messages."""
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
        f"{what} must be a pandas DataFrame, a mapping of columns or the path of a CSV file with "
        f"the columns {', '.join(columns)}; got {type(table).__name__}"
    )


def with_columns(
    frame: pd.DataFrame, columns: Sequence[str], synonyms: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """These columns of a frame; a hint where a lacking one stands there under another name."""
    if frame.columns.has_duplicates:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise ValueError(f"the table has the column {twice!r} twice")
    lacking = [name for name in columns if name not in frame.columns]
    if lacking:
        hints = [
            f"; rename {other!r} to {name!r}"
            for other, name in (synonyms or {}).items()
            if name in lacking and other in frame.columns
        ]
        raise ValueError(
            f"the table lacks the column(s) {', '.join(lacking)}; it has "
            f"{', '.join(map(str, frame.columns)) or 'none'}{''.join(hints)}"
        )
    return frame[list(columns)]


def read_columns(
    table: Any,
    what: str,
    columns: Sequence[str],
    named: Sequence[str],
    synonyms: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """These columns of a table of `what` with at least one row; those `named` have no gaps."""
    frame = with_columns(as_frame(table, what, columns), columns, synonyms).reset_index(drop=True)
    if frame.empty:
        raise ValueError(f"the table holds no {what}")
    for name in named:
        check_column(name, frame[name], what)
    return frame


def check_column(name: str, column: pd.Series, what: str) -> None:
    """Refuse missing and infinite entries, and entries that cannot be compared."""
    missing = column.isna()
    if missing.any():
        raise ValueError(
            f"{missing.sum()} {what} have no {name}, the first in row {int(missing.argmax())}; "
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


def show(value: Any) -> str:
    """A value as a user wrote it: 1, not np.int64(1)."""
    return repr(value.item() if isinstance(value, np.generic) else value)
