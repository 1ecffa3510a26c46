"""Bridge: from one Gaussian posterior to another, near and far, against the exact evidence."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import Array

from jurax.inference import Bridge, infer
from jurax.ppl import bind


def model(y: Array, scale: float = 1.0) -> None:
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", y.shape[0]):
        numpyro.sample("y", dist.Normal(mean, scale), obs=y)


def exact(y: np.ndarray) -> tuple[float, float, float]:
    """Log evidence, mean and variance."""
    covariance = np.eye(len(y)) + 1.0
    log_evidence = dist.MultivariateNormal(jnp.zeros(len(y)), jnp.asarray(covariance)).log_prob(y)
    return float(log_evidence), y.sum() / (len(y) + 1), 1 / (len(y) + 1)


def draws(key: Array, y: np.ndarray, number: int) -> dict:
    _, mean, variance = exact(y)
    return {"mean": mean + variance**0.5 * jax.random.normal(key, (number,))}


@pytest.mark.parametrize(("num_new", "value"), [(1, 0.5), (40, 3.0)])
def test_new_data_are_bridged(num_new: int, value: float, key: Array) -> None:
    """One expected observation takes a stage; forty strange ones take several."""
    old, new = np.array([0.5, -0.2], np.float32), np.full(num_new, value, np.float32)
    both = np.concatenate([old, new])
    key_draws, key_run = jax.random.split(key)
    algorithm = Bridge(draws(key_draws, old, 4000), bind(model, jnp.asarray(old)))
    found = infer(key_run, bind(model, jnp.asarray(both)), algorithm)
    log_evidence, mean, variance = exact(both)
    assert (int(found.info["num_steps"]) > 1) == (num_new > 1)
    # 4,000 particles: sd of the mean 1.6 % of the posterior's, of log Z about .05.
    estimate = found.expectation(lambda p: p["mean"])
    assert float(estimate) == pytest.approx(mean, abs=0.1 * variance**0.5)
    assert float(found.log_evidence) == pytest.approx(log_evidence - exact(old)[0], abs=0.25)


def test_programs_with_other_sites_are_refused(key: Array) -> None:
    def other(y: Array) -> None:
        numpyro.sample("y", dist.Normal(numpyro.sample("centre", dist.Normal()), 1.0), obs=y)

    y = jnp.zeros(2)
    with pytest.raises(ValueError, match="same latent sites"):
        infer(key, bind(other, y), Bridge({"mean": jnp.zeros(4)}, bind(model, y)))
    with pytest.raises(ValueError, match="draws lack"):
        infer(key, bind(model, y), Bridge({"centre": jnp.zeros(4)}, bind(model, y)))
