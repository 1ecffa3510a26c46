"""Scores of label probabilities against known labels."""

import numpy as np
import pandas as pd
import pytest

from jurax.models.crowd.calibration import calibration


def test_scores_by_hand() -> None:
    probas = pd.DataFrame([[0.7, 0.3], [0.75, 0.25], [0.1, 0.9]], [1, 2, 3], ["a", "b"])
    found = calibration(probas, pd.Series({3: "b", 1: "a", 2: "b", 9: "a"}))
    assert found.num_tasks == 3 and found.accuracy == pytest.approx(2 / 3)
    assert found.log_loss == pytest.approx(-np.log([0.7, 0.25, 0.9]).mean())
    assert found.brier == pytest.approx(np.mean([2 * 0.3**2, 2 * 0.75**2, 2 * 0.1**2]))
    # Bin .7 to .8: confidence .725, accuracy 1/2; bin .9 to 1: .9 and 1.
    assert found.ece == pytest.approx((2 * 0.225 + 0.1) / 3)
    assert found.bins.counts[7:].tolist() == [2, 0, 1]


def test_honest_probabilities_have_a_small_error_and_boasts_a_large_one() -> None:
    rng = np.random.default_rng(0)
    chances = rng.dirichlet(np.ones(3), size=20_000)
    truth = pd.Series((rng.random(20_000)[:, None] > chances.cumsum(axis=1)).sum(axis=1))
    honest = calibration(pd.DataFrame(chances), truth)
    assert honest.ece < 0.02
    bins = honest.bins
    held = bins.counts > 0
    inside = (bins.low <= bins.probability) & (bins.probability <= bins.high)
    assert inside[held].sum() >= held.sum() - 2
    boast = chances**3 / (chances**3).sum(axis=1, keepdims=True)
    assert calibration(pd.DataFrame(boast), truth).ece > 0.1


def test_a_truth_that_nobody_gave_is_an_error_and_not_a_crash() -> None:
    probas = pd.DataFrame([[0.6, 0.4]], [1], ["a", "b"])
    found = calibration(probas, pd.Series({1: "c"}))
    assert found.accuracy == 0 and found.log_loss == pytest.approx(-np.log(1e-12))


def test_tables_without_a_common_task_are_refused() -> None:
    probas = pd.DataFrame([[0.6, 0.4]], [1], ["a", "b"])
    with pytest.raises(ValueError, match="no task has a known label"):
        calibration(probas, pd.Series({"1": "a"}))
    with pytest.raises(ValueError, match="num_bins"):
        calibration(probas, pd.Series({1: "a"}), num_bins=0)
