"""Calibration scores against predictors whose calibration is known."""

import jax
import numpy as np
import pytest

from jurax.inference.calibration import (
    brier_score,
    calibration_floor,
    clip_bound,
    expected_calibration_error,
    log_score,
    reliability_bins,
)


def calibrated(seed: int, num: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probabilities = rng.beta(2, 1, size=num)
    return probabilities, rng.random(num) < probabilities


def test_error_of_a_calibrated_predictor_is_its_floor(key: jax.Array) -> None:
    errors = [expected_calibration_error(*calibrated(seed, 500)) for seed in range(300)]
    floor = calibration_floor(key, calibrated(0, 500)[0])
    # Mean of 300 errors against the floor of one set of probabilities: the standard error of the
    # mean is about .0006, the floor moves by about .001 from set to set.
    assert np.mean(errors) == pytest.approx(floor, abs=0.004)
    assert 0.02 < floor < 0.05


def test_overconfidence_shows_above_the_floor(key: jax.Array) -> None:
    probabilities, correct = calibrated(1, 2000)
    sure = probabilities**0.3
    gap = expected_calibration_error(sure, correct) - calibration_floor(key, sure)
    assert gap > 0.1


def test_error_by_hand() -> None:
    probabilities = np.array([0.1, 0.15, 0.95, 1.0])
    correct = np.array([True, False, True, False])
    # bin [.1, .2): |1 - .25| ; bin [.9, 1]: |1 - 1.95| ; over 4 problems
    assert expected_calibration_error(probabilities, correct) == pytest.approx((0.75 + 0.95) / 4)


def test_floor_with_one_bin_is_the_mean_deviation_of_a_binomial(key: jax.Array) -> None:
    exact = np.sqrt(2 / np.pi) * 0.5 / np.sqrt(400)
    floor = calibration_floor(key, np.full(400, 0.5), num_bins=1, num_replicates=4000)
    assert floor == pytest.approx(exact, rel=0.05)  # 4000 replicates: 1.2 % each


def test_proper_scores_prefer_the_true_probability() -> None:
    probabilities, correct = calibrated(2, 4000)
    for other in (np.clip(probabilities + 0.1, 0, 1), np.full(4000, probabilities.mean())):
        assert brier_score(probabilities, correct) < brier_score(other, correct)
        better = log_score(probabilities, correct, clip=0.001)
        assert better > log_score(other, correct, clip=0.001)


def test_certainty_is_clipped() -> None:
    right, wrong = np.array([True]), np.array([False])
    assert log_score(np.ones(1), wrong, clip=clip_bound(16)) == pytest.approx(np.log(1 / 34))
    assert log_score(np.zeros(1), wrong, clip=clip_bound(16)) == pytest.approx(np.log(33 / 34))
    assert log_score(np.ones(1), right, clip=0.25) == pytest.approx(np.log(0.75))
    for clip in (0.0, 0.6, float("nan")):
        with pytest.raises(ValueError, match="clip must lie"):
            log_score(np.ones(1), right, clip=clip)


def test_bins_hold_every_problem_once() -> None:
    probabilities, correct = calibrated(3, 777)
    bins = reliability_bins(probabilities, correct)
    assert bins.counts.sum() == 777
    full = bins.counts > 0
    lower, upper = bins.edges[:-1][full], bins.edges[1:][full]
    assert ((lower <= bins.probability[full]) & (bins.probability[full] <= upper)).all()
    assert ((bins.low <= bins.frequency) & (bins.frequency <= bins.high))[full].all()
    gap = np.abs(bins.frequency - bins.probability)[full] @ bins.counts[full] / 777
    assert gap == pytest.approx(expected_calibration_error(probabilities, correct))


def test_single_precision_probabilities_are_taken_as_they_are() -> None:
    probabilities = np.array([0.5, 1.0], np.float32)
    assert brier_score(probabilities, np.array([True, True])) == 0.125


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan])
def test_a_number_that_is_no_probability_is_named(bad: float) -> None:
    with pytest.raises(ValueError, match=r"probability 1 is .*expected a number in \[0, 1\]"):
        brier_score(np.array([0.5, bad]), np.array([True, True]))


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="as many outcomes as probabilities"):
        reliability_bins(np.ones(0), np.ones(0, bool))
