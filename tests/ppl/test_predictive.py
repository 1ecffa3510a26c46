"""Predictive draws: joint moments by hand, missing data, forecasts of a scan, other data."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import Array
from numpyro.contrib.control_flow import scan

from jurax.inference import ParticleFilter, infer
from jurax.ppl import bind, forecast, posterior_predictive, prior_predictive
from tests.ppl.test_posterior import posterior_of
from tests.statistics import assert_mean


def walk(y):
    """x_t = x_{t-1} + N(0, drift^2), y_t = x_t + N(0, 1); the drift is 1 or 2."""
    kind = numpyro.sample("kind", dist.Bernoulli(0.5))
    x_0 = numpyro.sample("x_0", dist.Normal(0.0, 1.0))

    def step(x, y_t):
        x = numpyro.sample("x", dist.Normal(x, 1.0 + kind))
        numpyro.deterministic("half", x / 2)
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y_t)
        return x, None

    last, _ = scan(step, x_0, y)
    numpyro.deterministic("last", last)


def test_prior_draws_of_a_scan_have_the_joint_law(key: Array) -> None:
    program = bind(walk, jnp.array([1.0, jnp.nan, 3.0]))
    draws = jax.jit(lambda k: prior_predictive(k, program, 20_000))(key)
    x, y = (np.asarray(draws[name], np.float64) for name in ("x", "y"))
    assert x.shape == (20_000, 3) and draws["kind"].shape == (20_000,)
    assert np.isnan(y[:, 1]).all()  # what is missing stays missing
    np.testing.assert_allclose(draws["half"], x / 2, rtol=1e-5)
    np.testing.assert_allclose(draws["last"], x[:, -1], rtol=1e-6)
    # E[drift^2] = (1 + 4) / 2: variances 1 + t 5/2, and one more for y.
    assert_mean(x, 0.0)
    assert_mean(x**2, [3.5, 6.0, 8.5])
    assert_mean(y[:, 2] ** 2, 9.5)
    assert_mean(x[:, 0] * x[:, 2], 3.5)
    assert_mean((y[:, 2] - x[:, 2]) * x[:, 2], 0.0)


def test_posterior_draws_take_the_given_values(key: Array) -> None:
    """A posterior of two known series; y scatters around each with variance 1."""
    series = jnp.array([[0.0, 10.0], [100.0, 200.0]])
    values = {"kind": jnp.array([0, 1]), "x_0": jnp.zeros(2), "x": series}
    posterior = posterior_of(jnp.zeros(2), np.log([0.25, 0.75]))
    posterior = eqx.tree_at(lambda p: p.particles, posterior, values)
    draws = posterior_predictive(key, bind(walk, jnp.zeros(2)), posterior, 4000)
    is_second = np.asarray(draws["x"])[:, 0] == 100
    assert_mean(is_second, 0.75)
    assert_mean((np.asarray(draws["y"]) - np.asarray(draws["x"])) ** 2, 1.0)


def test_forecast_continues_the_series(key: Array) -> None:
    """Two steps ahead: x_2 + N(0, 2 drift^2)."""
    series = {"kind": jnp.zeros(4000, int), "x_0": jnp.zeros(4000), "x": jnp.full((4000, 2), 7.0)}
    posterior = posterior_of(jnp.zeros(4000), jnp.zeros(4000))
    posterior = eqx.tree_at(lambda p: p.particles, posterior, series)
    draws = forecast(key, bind(walk, jnp.zeros(4)), posterior)
    x = np.asarray(draws["x"], np.float64)
    np.testing.assert_array_equal(x[:, :2], 7.0)
    assert_mean((x[:, 2:] - 7) ** 2, [1.0, 2.0])


@pytest.mark.slow
def test_filters_forecast_from_their_trajectories(key: Array) -> None:
    keys = jax.random.split(key)
    posterior = infer(keys[0], bind(walk, jnp.array([1.0, 5.0, 9.0])), ParticleFilter(500))
    draws = forecast(keys[1], bind(walk, jnp.zeros(5)), posterior, 200)
    assert draws["y"].shape == (200, 5)
    assert float(jnp.median(draws["y"][:, 4])) > 5


def test_observing_replaces_data_inside_a_scan_too(key: Array) -> None:
    first = bind(walk, jnp.zeros(3)).observing({"y": jnp.array([1.0, 2.0, 3.0])})
    second = bind(walk, jnp.array([1.0, 2.0, 3.0]))
    values = {"kind": jnp.array(1), "x_0": jnp.array(0.3), "x": jnp.array([0.1, 0.5, 2.0])}
    np.testing.assert_allclose(first.log_density(values), second.log_density(values), rtol=1e-6)
    with pytest.raises(ValueError, match="not observed sites"):
        first.observing({"x": jnp.zeros(3)})


@pytest.mark.slow
def test_filters_see_the_replaced_data(key: Array) -> None:
    first = bind(walk, jnp.zeros(3)).observing({"y": jnp.array([1.0, 2.0, 3.0])})
    second = bind(walk, jnp.array([1.0, 2.0, 3.0]))
    runs = [infer(key, program, ParticleFilter(10)) for program in (first, second)]
    np.testing.assert_array_equal(runs[0].log_weights, runs[1].log_weights)


def test_misuse_is_refused(key: Array) -> None:
    program = bind(walk, jnp.zeros(2))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        prior_predictive(key, program, 0)
    with pytest.raises(ValueError, match="holds no latent site"):
        posterior_predictive(key, program, posterior_of([0.0], [0.0]))
