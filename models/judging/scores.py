"""Scores: a long table (item, candidate, judge, score) in integers, checked.

Shape letters: R ratings, P pairs of item and candidate, J judges, C candidates, M levels.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Int

from jurax.models.judging.components import components
from jurax.models.judging.levels import level_index, read_levels
from jurax.models.tables import as_frame, read_columns, show, with_columns

COLUMNS = ("item", "candidate", "judge", "score")
SYNONYMS = {"model": "candidate", "rating": "score", "annotator": "judge", "question": "item"}
REPEATS = ("error", "first", "last")
SELF_JUDGING = ("mask", "keep")


class Own(NamedTuple):
    """Ratings of judges by themselves, indices as those of `Scores`."""

    pair: Int[np.ndarray, " S"]
    judge: Int[np.ndarray, " S"]
    level: Int[np.ndarray, " S"]


class Scores:
    """Which judge gave which level to which candidate on which item.

    Args:
        table: a pandas frame, a mapping of equally long columns, or the path of a CSV file, with
            the columns item, candidate, judge, score; optionally gold, the true score where known.
        levels: all scores that could be given, worst first; by default the numbers that occur,
            whole numbers between them included.
        gold: true scores of some answers, as a table with the columns item, candidate, gold.
        self_map: judge -> candidate that it is; these cells are masked.
        self_judging: "mask" cells in which a judge scores itself, or "keep" them.
        collapse: "binary" joins levels to two, split in the middle of the scale; a number joins
            those below it and those from it on.
        repeats: what to do where a judge scored an answer more than once: "error", "first", "last".

    Attributes:
        pair, judge, level: of each rating, indices into `pairs`, `judges`, `levels`.
        pair_item, pair_candidate: of each pair, indices into `items`, `candidates`.
        gold: index of the true level of each pair, -1 where unknown.
        failure_rate: share of a judge's entries that hold no readable score.
        num_masked: ratings left out because a judge scored itself.
        self_map: as given.
        components: number of the part of each candidate that shares judges, directly or by others.
        own: what judges gave themselves where another judge scored the answer too, masked or not.

    Raises:
        TypeError, ValueError: for tables that hold no scores; the message says what was expected.

    Example:
        >>> names = {"item": [1, 1, 2], "candidate": ["a", "b", "a"], "judge": ["j", "j", "j"]}
        >>> Scores({**names, "score": [0, 1, 1]})
        Scores(3 ratings, 2 items, 2 candidates, 1 judge, levels 0, 1)
    """

    pair: Int[np.ndarray, " R"]
    judge: Int[np.ndarray, " R"]
    level: Int[np.ndarray, " R"]
    gold: Int[np.ndarray, " P"]

    def __init__(
        self,
        table: Any,
        levels: Sequence | None = None,
        gold: Any = None,
        self_map: Mapping | None = None,
        self_judging: str = "mask",
        collapse: str | float | int | None = None,
        repeats: str = "error",
    ):
        for name, value, choices in (
            ("repeats", repeats, REPEATS),
            ("self_judging", self_judging, SELF_JUDGING),
        ):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
        whole = as_frame(table, "scores", COLUMNS)
        frame = read_columns(whole, "scores", COLUMNS, COLUMNS[:-1], SYNONYMS)
        frame = without_repeats(frame, repeats)
        found = read_levels(frame["score"], levels)
        self.judges = pd.Index(sorted_if_possible(frame["judge"].unique()))
        self.candidates = pd.Index(sorted_if_possible(frame["candidate"].unique()))
        if len(self.candidates) < 2:
            raise ValueError(f"there is only the candidate {show(self.candidates[0])}; two needed")
        self.failure_rate = found.isna().groupby(frame["judge"]).mean().reindex(self.judges)
        self._warn_of_failures()
        self.self_map = dict(self_map or {})
        own = found.notna() & self_cells(frame, self.self_map, self.judges, self.candidates)
        kept = found.notna() & (~own if self_judging == "mask" else True)
        self.num_masked = int((own & ~kept).sum())
        known = gold_table(whole, gold)
        self.levels, cut = level_index(found, levels, collapse)
        self.judge = self.judges.get_indexer(pd.Index(frame["judge"][kept]))
        self.level = cut(found[kept])
        pairs = self._index_pairs(frame[kept], known, levels, cut)
        self._check_coverage()
        pair = pairs.get_indexer(pd.MultiIndex.from_frame(frame[own][["item", "candidate"]]))
        judge = self.judges.get_indexer(pd.Index(frame["judge"][own]))
        rated = pair >= 0
        self.own = Own(pair[rated], judge[rated], cut(found[own])[rated])

    def _index_pairs(
        self, frame: pd.DataFrame, known: pd.Series, levels: Any, cut: Any
    ) -> pd.MultiIndex:
        """Number the pairs of item and candidate that have a rating or a known level."""
        rated = pd.MultiIndex.from_frame(frame[["item", "candidate"]])
        codes, pairs = pd.factorize(rated)
        pairs = pd.MultiIndex.from_tuples(pairs, names=["item", "candidate"])
        num_rated = len(pairs)
        if len(known):
            pairs = pairs.append(known.index.difference(pairs, sort=False))
        self.pair = codes
        self.pair_item, self.items = pd.factorize(pairs.get_level_values(0))
        self.pair_candidate = self.candidates.get_indexer(pairs.get_level_values(1))
        if (self.pair_candidate < 0).any():
            name = pairs.get_level_values(1)[int((self.pair_candidate < 0).argmax())]
            raise ValueError(f"gold names the candidate {show(name)}, who has no scores")
        self.gold = np.full(len(pairs), -1)
        if len(known):
            if num_rated and len(pairs) == num_rated + len(known):
                one, other = (", ".join(map(show, x)) for x in (known.index[0], pairs[0]))
                warnings.warn(
                    "no gold belongs to an answer that has scores; are item and candidate written "
                    f"alike? gold has {one}; scores have {other}",
                    stacklevel=4,
                )
            values = read_levels(known, levels)
            if values.isna().any():
                raise ValueError(
                    f"gold holds {show(known[values.isna()].iloc[0])}, which is no level"
                )
            self.gold[pairs.get_indexer(known.index)] = cut(values)
        return pairs

    def _warn_of_failures(self) -> None:
        """A judge whose replies often cannot be read should be seen."""
        if (self.failure_rate == 1).all():
            raise ValueError("no score can be read as a number; pass levels=[...], worst first")
        often = self.failure_rate[self.failure_rate > 0.2]
        if len(often):
            lines = ", ".join(f"{name} {rate:.0%}" for name, rate in often.items())
            warnings.warn(f"many scores are missing or unreadable: {lines}", stacklevel=3)

    def _check_coverage(self) -> None:
        """Every candidate needs a score; groups without a common judge are not comparable."""
        candidate = self.pair_candidate[self.pair]
        counts = np.bincount(candidate, minlength=self.num_candidates)
        if (counts == 0).any():
            lacking = [show(name) for name in self.candidates[counts == 0]]
            raise ValueError(
                f"no usable score for {', '.join(lacking)}: all are missing, unreadable or masked"
            )
        judge, size = self.num_candidates + self.judge, self.num_candidates + self.num_judges
        self.components = components(self.candidates, candidate, judge, size, "share no judge")

    @property
    def num_candidates(self) -> int:
        """C."""
        return len(self.candidates)

    @property
    def num_judges(self) -> int:
        """J."""
        return len(self.judges)

    @property
    def num_levels(self) -> int:
        """M."""
        return len(self.levels)

    @property
    def values(self) -> np.ndarray:
        """A number for each level: its own where levels are numbers, else 1, ..., M."""
        if pd.api.types.is_numeric_dtype(self.levels):
            return self.levels.to_numpy(float)
        return np.arange(1.0, self.num_levels + 1)

    def counts(self) -> np.ndarray:
        """How often judge j gave level l to candidate c, `(J, C, M)`."""
        shape = (self.num_judges, self.num_candidates, self.num_levels)
        counts = np.zeros(shape)
        np.add.at(counts, (self.judge, self.pair_candidate[self.pair], self.level), 1)
        return counts

    def matrix(self) -> np.ndarray:
        """Levels by pair and judge, -1 where there is none, `(P, J)`."""
        levels = np.full((len(self.pair_item), self.num_judges), -1)
        levels[self.pair, self.judge] = self.level
        return levels

    def __len__(self) -> int:
        return len(self.pair)

    def __repr__(self) -> str:
        judges = f"{self.num_judges} judge{'s' * (self.num_judges != 1)}"
        return (
            f"Scores({len(self)} ratings, {len(self.items)} items, {self.num_candidates} "
            f"candidates, {judges}, levels {', '.join(map(str, self.levels))})"
        )


def sorted_if_possible(names: Any) -> list:
    """Sorted where names of different types do not forbid it."""
    try:
        return sorted(names)
    except TypeError:
        return list(names)


def without_repeats(frame: pd.DataFrame, repeats: str) -> pd.DataFrame:
    """One row for each item, candidate and judge."""
    keys = ["item", "candidate", "judge"]
    repeated = frame.duplicated(keys)
    if not repeated.any():
        return frame
    if repeats == "error":
        row = frame[repeated].iloc[0]
        raise ValueError(
            f"{repeated.sum()} scores repeat item, candidate and judge, for instance judge "
            f"{show(row['judge'])} on item {show(row['item'])} of {show(row['candidate'])}; choose "
            "repeats='first' or 'last'"
        )
    kept = frame.drop_duplicates(keys, keep="first" if repeats == "first" else "last")
    return kept.reset_index(drop=True)


def self_cells(
    frame: pd.DataFrame, self_map: Mapping | None, judges: pd.Index, candidates: pd.Index
) -> pd.Series:
    """Rows in which a judge scores the candidate that it is."""
    own = pd.Series(False, frame.index)
    for judge, candidate in (self_map or {}).items():
        if judge not in judges:
            raise ValueError(f"self_map names {show(judge)}, which is no judge: {list(judges)}")
        if candidate not in candidates:
            raise ValueError(
                f"self_map names {show(candidate)}, which is no candidate: {list(candidates)}"
            )
        own |= (frame["judge"] == judge) & (frame["candidate"] == candidate)
    return own


def gold_table(whole: pd.DataFrame, gold: Any) -> pd.Series:
    """True scores by (item, candidate), from a table of their own or the column gold."""
    if gold is None:
        if "gold" not in whole.columns:
            return pd.Series([], pd.MultiIndex.from_tuples([], names=["item", "candidate"]), object)
        frame = whole[["item", "candidate", "gold"]].dropna()
    else:
        frame = as_frame(gold, "gold", ("item", "candidate", "gold"))
        columns = ("item", "candidate", "gold")
        frame = with_columns(frame, columns, {"score": "gold", "label": "gold"}).dropna()
    frame = frame.drop_duplicates()
    known = frame.set_index(["item", "candidate"])["gold"]
    if known.index.has_duplicates:
        item, candidate = known.index[known.index.duplicated()][0]
        raise ValueError(
            f"gold gives two scores to item {show(item)} of {show(candidate)}; give one for each"
        )
    return known
