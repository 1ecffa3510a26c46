"""The grid recursion against finer and wider grids, and against quadrature of short series."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jurax.models.state_space import StochasticVolatility
from jurax.models.state_space.stochastic_volatility import grid_filter
from tests.statistics import assert_mean


@pytest.mark.slow
def test_grid_is_converged(x64, key):
    model = StochasticVolatility.simulate(key, num_steps=50)
    default = model.filtered()
    finer = grid_filter(model, num_points=1300, width=10.0)
    np.testing.assert_allclose(default.log_evidence, finer.log_evidence, atol=1e-9)
    np.testing.assert_allclose(default.means, finer.means, atol=1e-9)
    np.testing.assert_allclose(default.variances, finer.variances, atol=1e-9)


@pytest.mark.slow
def test_grid_in_single_precision(key):
    model = StochasticVolatility.simulate(key, num_steps=200)
    single = float(model.log_evidence())
    with jax.enable_x64(True):
        double = float(jax.tree.map(lambda x: jnp.asarray(x, float), model).log_evidence())
    assert abs(single - double) < 5e-3  # against standard deviations of log Zhat near .2


@pytest.mark.slow
def test_grid_equals_quadrature_of_one_step(x64, key):
    """T = 1: x_1 has the stationary law, so p(y_1) is one integral."""
    model = StochasticVolatility.simulate(key, num_steps=1)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    x = float(model.mean) + float(model.stationary_scale) * nodes
    y = float(model.observations[0])
    likelihood = np.exp(-0.5 * (x + y**2 * np.exp(-x))) / np.sqrt(2 * np.pi)
    weights = weights / weights.sum()
    np.testing.assert_allclose(model.log_evidence(), np.log(weights @ likelihood), rtol=1e-9)
    mean = (weights * likelihood) @ x / (weights @ likelihood)
    np.testing.assert_allclose(model.filtered().means[1], mean, rtol=1e-9)
    np.testing.assert_allclose(model.filtered().means[0], model.mean, rtol=1e-9)


def test_missing_observations_add_nothing(x64, key):
    model = StochasticVolatility.simulate(key, num_steps=4)
    gone = eqx.tree_at(lambda m: m.observations, model, jnp.full(4, jnp.nan))
    exact = gone.filtered()
    np.testing.assert_allclose(exact.log_evidence, 0.0, atol=1e-9)
    np.testing.assert_allclose(exact.means, model.mean, atol=1e-9)
    np.testing.assert_allclose(exact.variances, model.stationary_scale**2, rtol=1e-9)


def test_generator_has_the_law_of_the_model(key):
    """E y_t^2 = exp(m + S^2 / 2); log y^2 of two times have covariance r S^2."""
    keys = jax.random.split(key, 20_000)
    y = np.asarray(
        jax.vmap(lambda k: StochasticVolatility.simulate(k, num_steps=2).observations)(keys)
    )
    model = StochasticVolatility.simulate(keys[0], num_steps=2)
    variance = float(model.stationary_scale) ** 2
    assert_mean(y**2, np.exp(float(model.mean) + variance / 2))
    logs = np.log(y.astype(float) ** 2)
    centred = logs - logs.mean(0)
    assert_mean(centred[:, 0] * centred[:, 1], float(model.persistence) * variance)
