"""Populations of populations: unbiased by enumeration, and SMC^2 against sums over all strings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jurax.inference import PMMH, SMC2, Islands, ParticleFilter, ParticleGibbs, infer
from jurax.ppl import laws, sequential
from tests.exact import Language
from tests.inference.test_mutations import assert_broken, plant
from tests.inference.test_particle_mcmc import LANGUAGE, grid_posterior, strengths
from tests.statistics import assert_estimate, assert_mean, assert_unbiased_evidence

SHORT = Language.draw(seed=7, num_symbols=2, depth=2, stop=False)
ISLANDS = Islands(2, ParticleFilter(2, ess_threshold=0.9), ess_threshold=0.98)


@pytest.mark.slow
def test_islands_are_unbiased_for_every_path() -> None:
    report = laws.check_unbiased(ISLANDS, SHORT.process("odds"))
    assert report, str(report)
    assert min(report.branches["resampled"]) > 0, str(report)


@pytest.mark.slow
def test_islands_that_forget_their_evidence_are_biased(monkeypatch) -> None:
    plant(monkeypatch, Islands, "report", "run.population.log_weights[:, None] + shares", "shares")
    assert_broken(laws.check_unbiased(ISLANDS, SHORT.process("odds")), "unbiased", 1e-4)


def test_evidence_of_islands_is_unbiased(key) -> None:
    algorithm = Islands(4, ParticleFilter(4, ess_threshold=0.9), ess_threshold=0.9)
    run = jax.jit(jax.vmap(lambda k: infer(k, LANGUAGE.process("odds"), algorithm).log_evidence))
    log_evidence = np.log(sum(LANGUAGE.masses("odds").values()))
    assert_unbiased_evidence(run(jax.random.split(key, 2000)), log_evidence)


@pytest.mark.slow
def test_smc2_over_the_reward_strength_agrees_with_the_grid(key) -> None:
    algorithm = SMC2(400, ParticleFilter(20, ess_threshold=0.9), ess_threshold=0.9)

    def run(key):
        posterior = infer(key, strengths(), algorithm)
        return posterior.expectation(lambda p: p["strength"]), posterior.log_evidence

    means, _ = jax.jit(lambda keys: jax.lax.map(run, keys))(jax.random.split(key, 100))
    points, probabilities = grid_posterior()
    mean = float((points * probabilities).sum())
    assert_mean(means, mean, resolution=0.05 * mean, expected_error=0.005 * mean)


# -------------------------------------------------------------------- one program, three samplers


def volatility(y):
    """Stochastic volatility with three parameters; a plain NumPyro program."""
    import numpyro
    import numpyro.distributions as dist
    from numpyro.contrib.control_flow import scan

    mean = numpyro.sample("mean", dist.Normal(-1.0, 1.0))
    persistence = numpyro.sample("persistence", dist.Beta(20.0, 1.5))
    scale = numpyro.sample("scale", dist.HalfNormal(0.5))
    x_0 = numpyro.sample("x_0", dist.Normal(mean, scale / jnp.sqrt(1 - persistence**2)))

    def step(x, y_t):
        x = numpyro.sample("x", dist.Normal(mean + persistence * (x - mean), scale))
        numpyro.sample("y", dist.Normal(0.0, jnp.exp(x / 2)), obs=y_t)
        return x, None

    scan(step, x_0, y)


@pytest.mark.slow
def test_gibbs_pmmh_and_smc2_agree_on_stochastic_volatility(key) -> None:
    """T = 200; means and standard deviations by replicates of each sampler."""
    from jurax.models.state_space import StochasticVolatility

    y = StochasticVolatility.simulate(jax.random.key(1), num_steps=200).observations
    process = sequential(volatility, y)
    gibbs = ParticleGibbs(20, 800, 200, 8, ancestor_sampling="exact")
    pmmh = PMMH(ParticleFilter(150), 800, 200, 8)
    smc2 = SMC2(150, ParticleFilter(100))
    keys = jax.random.split(key, 3)
    found = {"gibbs": infer(keys[0], process, gibbs), "pmmh": infer(keys[1], process, pmmh)}
    replicates = {
        name: np.stack([np.asarray(p.particles[k]).mean(axis=1) for k in process.parameters], 1)
        for name, p in found.items()
    }
    run = jax.jit(lambda k: infer(k, process, smc2).expectation(lambda p: p))
    runs = [run(k) for k in jax.random.split(keys[2], 6)]
    replicates["smc2"] = np.array([[float(r[k]) for k in process.parameters] for r in runs])
    mean = {name: r.mean(axis=0) for name, r in replicates.items()}
    error = {n: r.std(axis=0, ddof=1) / np.sqrt(len(r)) for n, r in replicates.items()}
    for first, second in (("gibbs", "pmmh"), ("gibbs", "smc2"), ("pmmh", "smc2")):
        # Student's t with at least 5 degrees of freedom: 8 stands for the normal 3.9.
        both = np.hypot(error[first], error[second])
        assert_estimate(mean[first], mean[second], both, limit=8.0)
