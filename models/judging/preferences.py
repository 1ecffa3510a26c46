"""Preferences: a long table (item, model_a, model_b, judge, winner) as counts, checked.

Shape letters: B battles, U distinct battles, C candidates, J judges.
"""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from jurax.models.judging.components import components
from jurax.models.judging.scores import sorted_if_possible
from jurax.models.tables import as_frame, read_columns, show

COLUMNS = ("model_a", "model_b", "winner")
WINNERS = {
    "model_a": 1,
    "a": 1,
    "model_b": -1,
    "b": -1,
    "tie": 0,
    "tie (bothbad)": 0,
    "draw": 0,
}


class Preferences:
    """Who beat whom, by the word of which judge.

    Args:
        table: a pandas frame, a mapping of equally long columns, or the path of a CSV file, with
            the columns model_a, model_b and winner ("model_a", "model_b", "tie", or the name of
            one of the two); item and judge where known. Entries that are missing or unreadable are
            failures of the judge. Where a column `swapped` is true the judge saw the two in the
            other order; `model_a` and `winner` are already mapped back.

    Attributes:
        first, second: of each battle, indices into `candidates`.
        outcome: 1 if the first won, -1 if the second, 0 for a tie.
        shown_first: 1 where the judge saw `first` first, -1 where second.
        judge: index into `judges`.
        components: number of the connected part of each candidate: only within one are ranks known.
        failure_rate: share of a judge's entries that name no winner.

    Example:
        >>> table = {"model_a": ["x", "y"], "model_b": ["y", "z"], "winner": ["model_a", "tie"]}
        >>> Preferences(table)
        Preferences(2 battles, 3 candidates, 1 judge, 50% ties)
    """

    first: Int[np.ndarray, " B"]
    second: Int[np.ndarray, " B"]
    outcome: Int[np.ndarray, " B"]

    def __init__(self, table: Any):
        frame = as_frame(table, "preferences", COLUMNS)
        extra = [name for name in ("item", "judge", "swapped") if name in frame.columns]
        named = ["model_a", "model_b", *extra]
        frame = read_columns(frame, "preferences", [*named, "winner"], named)
        same = frame["model_a"] == frame["model_b"]
        if same.any():
            row = int(same.argmax())
            raise ValueError(f"row {row} compares {show(frame['model_a'][row])} with itself")
        if "judge" not in frame:
            frame["judge"] = "judge"
        outcome = outcomes(frame)
        self.judges = pd.Index(sorted_if_possible(frame["judge"].unique()))
        rates = outcome.isna().groupby(frame["judge"]).mean()
        self.failure_rate = rates.reindex(self.judges)
        frame, outcome = frame[outcome.notna()], outcome.dropna().astype(int)
        if frame.empty:
            raise ValueError("no entry of the column winner can be read")
        names = pd.unique(pd.concat([frame["model_a"], frame["model_b"]]))
        self.candidates = pd.Index(sorted_if_possible(names))
        self.first = self.candidates.get_indexer(pd.Index(frame["model_a"]))
        self.second = self.candidates.get_indexer(pd.Index(frame["model_b"]))
        self.outcome = outcome.to_numpy()
        self.judge = self.judges.get_indexer(pd.Index(frame["judge"]))
        self.shown_first = np.ones(len(frame), int)
        if "swapped" in frame:
            self.shown_first = np.where(truths(frame["swapped"]), -1, 1)
        self.item = pd.factorize(frame["item"])[0] if "item" in frame else np.arange(len(frame))
        size = len(self.candidates)
        self.components = components(self.candidates, self.first, self.second, size, "never met")

    @property
    def num_candidates(self) -> int:
        """C."""
        return len(self.candidates)

    @property
    def num_judges(self) -> int:
        """J."""
        return len(self.judges)

    def __len__(self) -> int:
        return len(self.outcome)

    def __repr__(self) -> str:
        judges = f"{self.num_judges} judge{'s' * (self.num_judges != 1)}"
        ties = np.mean(self.outcome == 0)
        return (
            f"Preferences({len(self)} battles, {self.num_candidates} candidates, {judges}, "
            f"{ties:.0%} ties)"
        )


def truths(column: pd.Series) -> pd.Series:
    """A column of true and false, or of 1 and 0; text is refused, as "False" would be true."""
    strange = ~column.isin([True, False])
    if strange.any():
        row = strange.index[int(strange.argmax())]
        raise ValueError(
            f"column {column.name!r} must hold true or false, got {show(column[row])} in row {row}"
        )
    return column.astype(bool)


def outcomes(frame: pd.DataFrame) -> pd.Series:
    """1, -1 or 0 for each row, NaN where the winner cannot be read.

    Raises:
        ValueError: if a winner is a candidate that did not take part: a mistake, no failure.
    """
    winner = frame["winner"]
    found = winner.map(lambda x: WINNERS.get(str(x).strip().lower(), np.nan)).astype(float)
    found = found.mask(winner == frame["model_a"], 1.0).mask(winner == frame["model_b"], -1.0)
    names = set(frame["model_a"]) | set(frame["model_b"])
    strange = found.isna() & winner.isin(names)
    if strange.any():
        row = int(strange.argmax())
        raise ValueError(
            f"row {row} names the winner {show(winner[row])}, who did not take part: "
            f"{show(frame['model_a'][row])} met {show(frame['model_b'][row])}"
        )
    return found
