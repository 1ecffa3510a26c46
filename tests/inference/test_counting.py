import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from jurax.inference.resampling import Multinomial, Residual, Stratified, Systematic, counting

SCHEMES = [Systematic(), Stratified(), Multinomial(), Residual()]


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 63, 64, 65, 1000, 4097, 70_001])
def test_prefix_sum_is_exact(key: Array, length: int) -> None:
    values = jax.random.randint(key, (length,), 0, 1000)
    assert np.array_equal(counting.prefix_sum(values), np.cumsum(np.asarray(values)))


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 100, 1_000_000])
def test_ends_never_fall_and_zeros_add_nothing(key: Array, length: int) -> None:
    key_weights, key_zeros = jax.random.split(key)
    weights = jnp.exp(3 * jax.random.normal(key_weights, (length,)))
    zero = jax.random.bernoulli(key_zeros, 0.5, (length,)).at[length // 2].set(False)
    ends = np.asarray(counting.scaled_prefix_sum(jnp.where(zero, 0.0, weights), length))
    steps = np.diff(ends, prepend=0)
    assert np.all(steps >= 0) and np.all(steps[np.asarray(zero)] == 0) and ends[-1] == length
    exact = np.cumsum(np.where(zero, 0.0, np.asarray(weights, np.float64)))
    # Rounding of the weights to 2^-30 of their total, and of c to float32.
    tolerance = length * (np.sqrt(length) * 2.0**-30 + 2.0**-23)
    assert np.max(np.abs(ends - exact / exact[-1] * length)) <= tolerance


def test_ends_are_exact_in_double_precision(key: Array, x64: None) -> None:
    weights = jax.random.exponential(key, (1000,))
    ends = counting.scaled_prefix_sum(weights, 1000)
    assert ends.dtype == jnp.float64
    exact = np.cumsum(np.asarray(weights)) / np.sum(np.asarray(weights)) * 1000
    assert np.max(np.abs(ends - exact)) < 1e-10


def test_no_weight_at_all_gives_no_points() -> None:
    assert counting.scaled_prefix_sum(jnp.zeros(5), 5).tolist() == [0.0] * 5


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("length", [7, 100_000])
def test_parents_of_weight_zero_get_no_child(scheme, length: int, key: Array) -> None:
    key_weights, key_zeros, key_resample = jax.random.split(key, 3)
    log_weights = 1.5 * jax.random.normal(key_weights, (length,))
    zero = jax.random.bernoulli(key_zeros, 0.5, (length,)).at[length // 2].set(False)
    zero = zero.at[0].set(True).at[-1].set(True)
    log_weights = jnp.where(zero, -jnp.inf, log_weights)
    draw = jax.jit(lambda key: scheme(key, log_weights, length))
    for k in jax.random.split(key_resample, 20):
        ancestors = draw(k)
        assert ancestors.shape == (length,) and not np.any(np.asarray(zero)[np.asarray(ancestors)])


@pytest.mark.slow
@pytest.mark.parametrize("length", [10, 1000, 100_000])
def test_systematic_counts_are_within_one(key: Array, length: int) -> None:
    key_weights, key_resample = jax.random.split(key)
    log_weights = jax.random.normal(key_weights, (length,))
    counts = np.bincount(Systematic()(key_resample, log_weights, length), minlength=length)
    weights = np.exp(np.asarray(log_weights, np.float64))
    expected = length * weights / weights.sum()
    # Beyond 1 by the rounding of c in float32, twice.
    assert np.max(np.abs(counts - expected)) < 1 + length * 2.0**-22
