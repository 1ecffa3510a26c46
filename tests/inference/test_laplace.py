"""The Laplace approximation, and NUTS that starts from it: exact where the posterior is normal."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import Array

from jurax.inference import NUTS, Laplace, infer
from jurax.inference.mcmc.normal_map import laplace_of
from jurax.ppl import bind
from jurax.ppl.unconstrained import Unconstrained

COVARIATES = jnp.array([[1.0, 0.0, 0.1], [1.0, 1.0, 0.1], [1.0, 2.0, 0.3], [1.0, 3.0, 0.0]])
SCALES = jnp.array([1.0, 5.0, 0.1])


def regression(y):
    b = numpyro.sample("b", dist.Normal(jnp.zeros(3), SCALES).to_event(1))
    numpyro.sample("y", dist.Normal(COVARIATES @ b, 0.5), obs=y)


def skewed(y):
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    numpyro.sample("y", dist.Poisson(rate), obs=y)


Y = jnp.array([0.3, 1.0, 2.5, 2.9])


def exact() -> tuple[np.ndarray, np.ndarray, float]:
    """Mean and covariance of b, and the log evidence."""
    x, y = np.asarray(COVARIATES, float), np.asarray(Y, float)
    prior = np.diag(np.asarray(SCALES, float) ** 2)
    covariance = np.linalg.inv(np.linalg.inv(prior) + x.T @ x / 0.25)
    mean = covariance @ x.T @ y / 0.25
    marginal = dist.MultivariateNormal(
        jnp.zeros(4), jnp.asarray(x @ prior @ x.T + 0.25 * np.eye(4))
    )
    return mean, covariance, float(marginal.log_prob(Y))


def test_a_normal_posterior_is_found_exactly(key: Array) -> None:
    mean, covariance, _ = exact()
    view = Unconstrained.of(bind(regression, Y))
    normal, found = laplace_of(key, view.log_density, view.dim)
    assert found and np.allclose(normal.mode, mean, atol=2e-3)
    assert np.allclose(normal.root @ normal.root.T, covariance, rtol=2e-3, atol=1e-4)
    assert abs(normal.log_det - 0.5 * np.linalg.slogdet(covariance)[1]) < 1e-2


@pytest.mark.parametrize("equal_weights", [False, True])
def test_evidence_of_a_normal_posterior(equal_weights: bool, key: Array) -> None:
    algorithm = Laplace(500, equal_weights=equal_weights)
    posterior = infer(key, bind(regression, Y), algorithm)
    assert abs(posterior.log_evidence - exact()[2]) < 1e-2
    assert posterior.info["ess"] > 499 and posterior.status == "ok"


def test_weights_mend_a_skewed_posterior(key: Array) -> None:
    """Gamma prior, Poisson counts: evidence and mean are known; the plain approximation errs."""
    y = jnp.array([0, 1, 0])
    weighted = infer(key, bind(skewed, y), Laplace(20_000))
    shape, rate = 2.0 + 1.0, 1.0 + 3.0
    evidence = dist.GammaPoisson(2.0, 1.0).log_prob(jnp.array(0.0))
    evidence += dist.GammaPoisson(2.0, 2.0).log_prob(jnp.array(1.0))
    evidence += dist.GammaPoisson(3.0, 3.0).log_prob(jnp.array(0.0))
    weights = jax.nn.softmax(weighted.log_weights)
    error = jnp.sqrt(jnp.sum(weights**2)) * 2
    assert abs(weighted.log_evidence - evidence) < 4 * error
    mean = weighted.expectation(lambda x: x["rate"])
    assert abs(mean - shape / rate) < 4 * error * (shape**0.5 / rate)
    plain = infer(key, bind(skewed, y), Laplace(20_000, equal_weights=True))
    assert abs(plain.log_evidence - evidence) > 1e-3


def test_flat_directions_stay_finite(key: Array) -> None:
    def flat():
        numpyro.sample("p", dist.Beta(0.01, 0.01))

    posterior = infer(key, bind(flat), Laplace(100))
    assert np.all(np.isfinite(posterior.particles["p"]))


def test_nuts_from_the_mode_draws_the_posterior(key: Array) -> None:
    """Scales that differ by fifty: no warm-up finds them in fifty steps, the mode knows them."""
    mean, covariance, _ = exact()
    algorithm = NUTS(2000, 50, num_chains=4, start="laplace")
    posterior = infer(key, bind(regression, Y), algorithm)
    draws = np.asarray(posterior.particles["b"]).reshape(-1, 3)
    deviation = np.sqrt(np.diag(covariance))
    z = (draws.mean(axis=0) - mean) / (deviation / np.sqrt(2000))  # at least 2,000 of 8,000 count
    assert np.max(np.abs(z)) < 4
    assert np.max(np.abs(draws.std(axis=0) / deviation - 1)) < 4 / np.sqrt(2 * 2000)
    assert posterior.info["num_leapfrogs"].mean() < 8 and posterior.info["divergences"] == 0


def test_one_compilation_serves_other_data_and_keys(key: Array) -> None:
    traces = []

    def counted(y):
        traces.append(1)
        regression(y)

    run = jax.jit(lambda key, y: infer(key, bind(counted, y), Laplace(50)).log_evidence)
    first = run(key, Y)
    number = len(traces)
    assert run(jax.random.fold_in(key, 1), Y + 1.0) != first and len(traces) == number


def test_refusals() -> None:
    with pytest.raises(ValueError, match="start must be 'box' or 'laplace'"):
        NUTS(start="mode")
    with pytest.raises(ValueError, match="num_samples"):
        Laplace(0)
