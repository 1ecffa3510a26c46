"""Log-weights: shifts, single survivors, dead populations, precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from jurax.ppl import weights

FUNCTIONS = [weights.log_sum, weights.log_mean, weights.normalized, weights.effective_sample_size]
DEAD = jnp.full(4, -jnp.inf)


def test_values_in_double_precision(x64) -> None:
    w = np.array([0.5, 2.0, 0.0, 1.5])
    with np.errstate(divide="ignore"):
        log_weights = jnp.log(w)
    assert float(weights.log_sum(log_weights)) == pytest.approx(np.log(w.sum()), abs=1e-15)
    assert float(weights.log_mean(log_weights)) == pytest.approx(np.log(w.mean()), abs=1e-15)
    np.testing.assert_allclose(weights.normalized(log_weights), w / w.sum(), rtol=1e-15)
    expected = w.sum() ** 2 / (w**2).sum()
    assert float(weights.effective_sample_size(log_weights)) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_shifts_change_sums_alone(shift: float, key: Array) -> None:
    # Multiples of 1/64 stay exact in float32 after a shift by 1e4: equality, not closeness.
    log_weights = jnp.round(jax.random.normal(key, (50,)) * 64) / 64
    moved = log_weights + shift
    np.testing.assert_array_equal(weights.normalized(moved), weights.normalized(log_weights))
    assert weights.effective_sample_size(moved) == weights.effective_sample_size(log_weights)
    gap = weights.log_mean(moved) - weights.log_mean(log_weights)
    assert float(gap) == pytest.approx(shift, abs=2e-3)  # the spacing of float32 at 1e4 is 1e-3


def test_a_dead_population_has_no_nan() -> None:
    assert float(weights.log_sum(DEAD)) == float(weights.log_mean(DEAD)) == -np.inf
    assert weights.normalized(DEAD).tolist() == [0.0] * 4
    assert float(weights.effective_sample_size(DEAD)) == 0.0


def test_one_survivor_has_all_the_weight() -> None:
    log_weights = DEAD.at[2].set(-1e4)
    assert weights.normalized(log_weights).tolist() == [0.0, 0.0, 1.0, 0.0]
    assert float(weights.effective_sample_size(log_weights)) == 1.0
    assert float(weights.log_sum(log_weights)) == -1e4


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_leading_axes_are_problems(function, key: Array) -> None:
    log_weights = jax.random.normal(key, (2, 3, 5)).at[0, 1].set(-jnp.inf)
    together = function(log_weights)
    for i in np.ndindex(2, 3):
        np.testing.assert_allclose(together[i], function(log_weights[i]), rtol=1e-6)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_types_are_kept_and_jit_changes_nothing(function, x64) -> None:
    for dtype in (jnp.float32, jnp.float64):
        log_weights = jnp.linspace(-2, 1, 7, dtype=dtype)
        assert function(log_weights).dtype == dtype
        np.testing.assert_allclose(function(log_weights), jax.jit(function)(log_weights), rtol=1e-6)


def test_a_million_weights_in_single_precision(key: Array) -> None:
    log_weights = 1.5 * jax.random.normal(key, (1_000_000,))
    exact = np.asarray(log_weights, np.float64)
    top = exact.max()
    log_mean = top + np.log(np.mean(np.exp(exact - top)))
    assert float(weights.log_mean(log_weights)) == pytest.approx(log_mean, abs=1e-5)
    assert float(weights.normalized(log_weights).sum()) == pytest.approx(1.0, abs=1e-5)
