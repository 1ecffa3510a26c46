import numpy as np
import pytest

from tests import statistics


def test_threshold_is_the_bonferroni_quantile() -> None:
    # Phi(1.959964) = 0.975, to the digits of printed tables.
    assert statistics.z_threshold(num_checks=1, alpha=0.05) == pytest.approx(1.959964, abs=1e-6)
    assert 5.0 < statistics.z_threshold() < 5.5


def test_false_alarms_are_as_rare_as_stated(seed: int) -> None:
    # 4,000 correct checks at a false-alarm rate of .05 each: 200 expected, sd 14.
    samples = np.random.default_rng(seed).normal(size=(300, 4000))
    limit = statistics.z_threshold(num_checks=1, alpha=0.05)
    mean, error = statistics.mean_and_error(samples)
    alarms = np.mean(np.abs(mean / error) > limit)
    statistics.assert_estimate(alarms, 0.05, np.sqrt(0.05 * 0.95 / 4000))


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_bias_is_seen_on_both_sides(seed: int, sign: int) -> None:
    samples = np.random.default_rng(seed).normal(size=1000) + sign * 0.3
    with pytest.raises(AssertionError, match="differs from"):
        statistics.assert_mean(samples, 0.0)


def test_blunt_and_invalid_checks_are_refused(seed: int) -> None:
    samples = np.random.default_rng(seed).normal(size=10)
    with pytest.raises(AssertionError, match="too blunt"):
        statistics.assert_mean(samples, 0.0, resolution=0.01)
    with pytest.raises(AssertionError, match="not finite"):
        statistics.assert_mean([np.nan, 1.0], 0.0)
    with pytest.raises(AssertionError, match="use more particles"):
        statistics.assert_unbiased_evidence([0.0, 4.0], 0.0)
    with pytest.raises(ValueError, match="at least 2"):
        statistics.assert_mean([1.0], 0.0)


def test_no_spread_demands_equality() -> None:
    statistics.assert_mean([2.0, 2.0], 2.0)
    with pytest.raises(AssertionError):
        statistics.assert_mean([2.0, 2.0], 2.0001)
