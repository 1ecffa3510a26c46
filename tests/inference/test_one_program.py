"""One NumPyro program, stochastic volatility with three parameters, under several samplers."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan

from jurax.inference import PMMH, SMC2, ParticleFilter, ParticleGibbs, infer
from jurax.models.state_space import StochasticVolatility
from jurax.ppl import sequential
from tests.statistics import assert_estimate


def volatility(y):
    """Stochastic volatility with three parameters; a plain NumPyro program."""
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
