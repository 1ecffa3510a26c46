"""How good and how honest label probabilities are, where the truth is known.

    log loss = -mean log P(truth),    Brier = mean |P - one-hot(truth)|^2,
    ECE = sum over bins of (share of tasks) |mean confidence - accuracy|

with confidence the largest probability of a task. Tasks whose truth is not known are left out.
"""

import dataclasses

import numpy as np
import pandas as pd

from jurax.inference.calibration import (
    ReliabilityBins,
    expected_calibration_error,
    reliability_bins,
)

FLOOR = 1e-12  # a probability of zero of what happened costs 27.6 nats, not infinity


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Scores of label probabilities against known labels.

    Attributes:
        num_tasks: tasks with a known label.
        accuracy: share whose most probable label is the known one.
        log_loss: in nats per task; lower is better.
        brier: between 0 and 2; lower is better.
        ece: expected calibration error, between 0 and 1. It is biased upwards: with n tasks an
            honest forecast has about 0.4 sqrt(bins / n).
        bins: confidence against accuracy with 95 % intervals (`inference/calibration.py`).
    """

    num_tasks: int
    accuracy: float
    log_loss: float
    brier: float
    ece: float
    bins: ReliabilityBins


def calibration(probas: pd.DataFrame, truth: pd.Series, num_bins: int = 10) -> Calibration:
    """Compare probabilities (task x label) with known labels (by task).

    Args:
        probas: as `fit_predict_proba` returns them.
        truth: known labels; tasks that `probas` lacks are left out.
        num_bins: equal parts of [0, 1].

    Raises:
        ValueError: if no task has a known label, or num_bins is less than one.

    Example:
        >>> probas = pd.DataFrame({"a": [0.9, 0.2], "b": [0.1, 0.8]}, index=[1, 2])
        >>> found = calibration(probas, pd.Series({1: "a", 2: "a"}))
        >>> found.accuracy, round(found.log_loss, 3)
        (0.5, 0.857)
    """
    known = truth.dropna()
    known = known[known.index.isin(probas.index)]
    if known.empty:
        raise ValueError("no task has a known label: compare the task ids of both tables")
    chances = probas.loc[known.index].to_numpy(float)
    columns = probas.columns.get_indexer(pd.Index(known))  # -1: a label that nobody gave
    right = np.where(columns >= 0, chances[np.arange(len(known)), columns], 0.0)
    # Shares of float32 can sum to a hair more than one.
    confidence, hits = np.minimum(chances.max(axis=1), 1.0), chances.argmax(axis=1) == columns
    brier = (chances**2).sum(axis=1) - 2 * right + 1
    return Calibration(
        len(known),
        float(hits.mean()),
        float(-np.log(np.maximum(right, FLOOR)).mean()),
        float(brier.mean()),
        expected_calibration_error(confidence, hits, num_bins),
        reliability_bins(confidence, hits, num_bins),
    )
