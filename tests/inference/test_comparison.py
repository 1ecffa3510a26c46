"""Averages over problems and their differences."""

from math import comb

import jax
import numpy as np
import pytest

from jurax.inference.comparison import (
    bootstrap_standard_error,
    mean_with_error,
    paired_difference,
    wilson_interval,
)


def test_error_of_a_mean_is_that_of_independent_problems() -> None:
    rng = np.random.default_rng(0)
    means = [mean_with_error(rng.random(50) < 0.3) for _ in range(2000)]
    scatter = np.std([m.value for m in means])
    # Relative error of a standard deviation from 2000 values is 1.6 %, of the mean SE less.
    assert np.mean([m.standard_error for m in means]) == pytest.approx(scatter, rel=0.07)


def test_one_problem_has_no_standard_error_and_none_is_an_error() -> None:
    assert np.isnan(mean_with_error(np.ones(1)).standard_error)
    with pytest.raises(ValueError, match="no problems"):
        mean_with_error(np.ones(0))


def test_pairing_removes_what_two_methods_share() -> None:
    difficulty = np.random.default_rng(1).normal(size=400)
    noise = np.random.default_rng(2).normal(size=400)
    first, second = difficulty + 0.1 * noise + 0.05, difficulty
    paired = paired_difference(first, second)
    apart = np.hypot(mean_with_error(first).standard_error, mean_with_error(second).standard_error)
    assert paired.value == pytest.approx(np.mean(first - second))
    assert paired.standard_error < apart / 5


def test_a_pair_needs_the_same_problems() -> None:
    with pytest.raises(ValueError, match="same problems twice, got 3 and 4"):
        paired_difference(np.ones(3), np.ones(4))


def test_bootstrap_agrees_with_the_formula(key: jax.Array) -> None:
    values = np.random.default_rng(3).normal(size=200)
    error = bootstrap_standard_error(key, np.mean, values, num_replicates=1000)
    assert error == pytest.approx(mean_with_error(values).standard_error, rel=0.12)


def test_bootstrap_draws_columns_together(key: jax.Array) -> None:
    values = np.random.default_rng(4).normal(size=30)
    assert bootstrap_standard_error(key, lambda a, b: np.sum(a - b), values, values) == 0


def test_wilson_interval_covers() -> None:
    # Exact coverage at p = .2, n = 20 by summing the binomial law; nominal .95.
    k = np.arange(21)
    low, high = wilson_interval(k, np.full(21, 20))
    law = np.array([comb(20, i) * 0.2**i * 0.8 ** (20 - i) for i in k])
    assert 0.93 < law[(low <= 0.2) & (0.2 <= high)].sum() < 0.97
    assert (low >= 0).all() and (high <= 1).all()
    assert low[0] == pytest.approx(0, abs=1e-12) and high[-1] == pytest.approx(1)


def test_wilson_interval_of_nothing_is_nan() -> None:
    low, high = wilson_interval(np.array([0]), np.array([0]))
    assert np.isnan(low[0]) and np.isnan(high[0])
