"""What a table of scores says of its judges, without a model: the cards of `Ranking.judges`.

Shape letters: P pairs of item and candidate, J judges.
"""

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from jurax.models.judging.scores import Scores

COLUMNS = (
    "judge",
    "num_scores",
    "leniency",
    "agreement",
    "failure_rate",
    "position_bias",
    "tie_rate",
    "self_preference",
    "warning",
)
FEW_DISTINCT = 0.95  # a judge that gives one level at least this often separates nothing
OFTEN = 0.2  # share of failures that is worth a warning


def score_cards(scores: Scores) -> pd.DataFrame:
    """One row for each judge.

    leniency: mean difference, in units of the score, from the mean of the other judges on the same
    answers. agreement: Spearman correlation with that mean, over answers. position_bias and
    tie_rate belong to preferences and are NaN. self_preference: see `self_preferences`.
    """
    values = np.append(scores.values, np.nan)[scores.matrix()]
    preferences = self_preferences(scores, values)
    rows = []
    for j, judge in enumerate(scores.judges):
        others = mean_of_others(values, j)
        both = ~np.isnan(values[:, j]) & ~np.isnan(others)
        mine, theirs = values[both, j], others[both]
        agreement = np.nan
        if len(mine) > 2 and np.ptp(mine) > 0 and np.ptp(theirs) > 0:
            agreement = float(stats.spearmanr(mine, theirs).statistic)
        rows.append(
            {
                "judge": judge,
                "num_scores": int((~np.isnan(values[:, j])).sum()),
                "leniency": float((mine - theirs).mean()) if len(mine) else np.nan,
                "agreement": agreement,
                "failure_rate": float(scores.failure_rate[judge]),
                "position_bias": np.nan,
                "tie_rate": np.nan,
                "self_preference": preferences.get(judge, np.nan),
                "warning": warning(values[:, j], agreement, float(scores.failure_rate[judge])),
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def mean_of_others(values: Float[np.ndarray, "P J"], judge: int) -> Float[np.ndarray, " P"]:
    """Mean score of all judges but one, NaN where there is none."""
    others = np.delete(values, judge, axis=1)
    known = ~np.isnan(others)
    number = known.sum(axis=1)
    total = np.where(known, others, 0.0).sum(axis=1)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def warning(values: Float[np.ndarray, " P"], agreement: float, failure_rate: float) -> str:
    """What is wrong with a judge, in words; empty if nothing is."""
    found = []
    given = values[~np.isnan(values)]
    if len(given):
        levels, counts = np.unique(given, return_counts=True)
        share = counts.max() / len(given)
        if share >= FEW_DISTINCT:
            found.append(f"gives {levels[counts.argmax()]:g} to {share:.0%} of answers")
    if agreement <= 0:
        found.append("orders answers against the other judges")
    if failure_rate > OFTEN:
        found.append(f"{failure_rate:.0%} of replies hold no score")
    return "; ".join(found)


def self_preferences(scores: Scores, values: Float[np.ndarray, "P J"]) -> dict:
    """How much more than the other judges a judge gives itself, beyond its leniency to others.

    Counts masked ratings of judges by themselves; `values` are those that are not masked.
    """
    values = values.copy()
    values[scores.own.pair, scores.own.judge] = scores.values[scores.own.level]
    found = {}
    for judge, candidate in scores.self_map.items():
        j = scores.judges.get_loc(judge)
        excess = values[:, j] - mean_of_others(values, j)
        mine = scores.pair_candidate == scores.candidates.get_loc(candidate)
        usable = ~np.isnan(excess)
        if (usable & mine).any() and (usable & ~mine).any():
            found[judge] = float(excess[usable & mine].mean() - excess[usable & ~mine].mean())
    return found
