"""Simulation-based calibration of particle MCMC on three programs with a scan."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import Array
from numpyro.contrib.control_flow import scan

from jurax.inference import PMMH, ParticleFilter, ParticleGibbs, pmmh, sbc
from jurax.ppl import bind
from tests.inference.test_mutations import plant


def random_walk(y):
    scale = numpyro.sample("scale", dist.LogNormal(-0.5, 0.5))

    def step(x, y_t):
        x = numpyro.sample("x", dist.Normal(x, scale))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y_t)
        return x, None

    scan(step, 0.0, y)


def volatility(y):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    persistence = numpyro.sample("persistence", dist.Beta(4.0, 2.0))

    def step(x, y_t):
        x = numpyro.sample("x", dist.Normal(mean + persistence * (x - mean), 0.7))
        numpyro.sample("y", dist.Normal(0.0, jnp.exp(x / 2)), obs=y_t)
        return x, None

    scan(step, 0.0, y)


def switching(y):
    """A discrete state: high or low."""
    stay = numpyro.sample("stay", dist.Beta(3.0, 2.0))
    gap = numpyro.sample("gap", dist.Normal(1.0, 1.0))

    def step(x, y_t):
        x = numpyro.sample("x", dist.Bernoulli(jnp.where(x == 1, stay, 1 - stay)))
        numpyro.sample("y", dist.Normal(gap * x, 1.0), obs=y_t)
        return x, None

    scan(step, jnp.zeros((), jnp.int32), y)


PROGRAMS = {
    "random walk": bind(random_walk, jnp.zeros(4)),
    "volatility": bind(volatility, jnp.zeros(4)),
    "switching": bind(switching, jnp.zeros(4)),
}
THINNING = 20  # sweeps between the 63 draws that are ranked
ALGORITHMS = {
    "gibbs": ParticleGibbs(8, 63 * THINNING, 300, ancestor_sampling="exact"),
    "pmmh": PMMH(ParticleFilter(32), 63 * THINNING, 300),
}


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
@pytest.mark.parametrize("name", list(PROGRAMS))
def test_particle_mcmc_is_calibrated(name: str, algorithm: str, key: Array) -> None:
    """200 replications, log-likelihood of parameters and path among the quantities."""
    calibration = sbc(key, PROGRAMS[name], ALGORITHMS[algorithm], batch_size=200)
    assert {"x[0]", "x[3]", "log likelihood"} <= set(calibration.ranks)
    assert calibration.passed(0.01 / 9), str(calibration)  # nine runs with tempered SMC


@pytest.mark.slow
def test_pmmh_without_its_prior_is_not_calibrated(key: Array, monkeypatch) -> None:
    plant(
        monkeypatch,
        pmmh,
        "log_posterior",
        "state.log_prior + state.trajectory.log_evidence",
        "state.trajectory.log_evidence",
    )
    calibration = sbc(key, PROGRAMS["volatility"], ALGORITHMS["pmmh"], batch_size=200)
    assert not calibration.passed(0.01 / 9), str(calibration)
