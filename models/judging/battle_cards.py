"""What a table of preferences says of its judges, without a model.

position_bias: share of decided battles won by the place shown first, less one half, among battles
that show both orders of a pair about equally or whose order is random.
"""

import numpy as np
import pandas as pd

from jurax.models.judging.judge_cards import COLUMNS, OFTEN
from jurax.models.judging.preferences import Preferences

MOST_BIAS = 0.15  # of the first place that is worth a warning


def battle_cards(battles: Preferences) -> pd.DataFrame:
    """One row for each judge.

    agreement: share of battles in which the judge says what most other judges of the same item and
    pair say, where there are any. leniency and self_preference belong to scores and are NaN.
    """
    frame = pd.DataFrame(
        {
            "judge": battles.judge,
            "outcome": battles.outcome,
            "first": battles.outcome * battles.shown_first,
            "agrees": agreements(battles),
        }
    )
    rows = []
    for j, judge in enumerate(battles.judges):
        mine = frame[frame["judge"] == j]
        decided = mine["first"][mine["first"] != 0]
        bias = float((decided > 0).mean() - 0.5) if len(decided) else np.nan
        failure = float(battles.failure_rate.iloc[j])
        agreement = float(mine["agrees"].mean())
        rows.append(
            {
                "judge": judge,
                "num_scores": len(mine),
                "leniency": np.nan,
                "agreement": agreement,
                "failure_rate": failure,
                "position_bias": bias,
                "tie_rate": float((mine["outcome"] == 0).mean()) if len(mine) else np.nan,
                "self_preference": np.nan,
                "warning": warning(bias, agreement, failure, len(decided)),
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def agreements(battles: Preferences) -> np.ndarray:
    """1 where a battle ends as most of the other judges of this item and pair have it, else 0.

    NaN where no other judge saw it, or the others are divided.
    """
    low, high = np.minimum(battles.first, battles.second), np.maximum(battles.first, battles.second)
    said = np.where(battles.first == low, battles.outcome, -battles.outcome)
    keys = pd.MultiIndex.from_arrays([battles.item, low, high])
    codes, _ = pd.factorize(keys)
    votes = np.zeros((codes.max() + 1, 3))
    np.add.at(votes, (codes, said + 1), 1)
    others = votes[codes]
    others[np.arange(len(said)), said + 1] -= 1
    top = others.max(axis=1)
    clear = (top > 0) & ((others == top[:, None]).sum(axis=1) == 1)
    return np.where(clear, others.argmax(axis=1) == said + 1, np.nan)


def warning(bias: float, agreement: float, failure_rate: float, number: int) -> str:
    """What is wrong with a judge, in words; a bias must also exceed two standard errors."""
    found = []
    if number and abs(bias) > max(MOST_BIAS, 1 / np.sqrt(number)):
        found.append(f"prefers the {'first' if bias > 0 else 'second'} place ({bias + 0.5:.0%})")
    if agreement < 1 / 3:
        found.append("agrees with the other judges less than chance would")
    if failure_rate > OFTEN:
        found.append(f"{failure_rate:.0%} of replies name no winner")
    return "; ".join(found)
