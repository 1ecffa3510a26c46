"""IBIS against conjugate answers, with data that come later, and against NUTS."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import Array

from jurax.inference import HMC, IBIS, NUTS, RWMH, infer
from jurax.ppl import bind
from tests.inference.test_tempered import exact_log_evidence, normal_mean
from tests.statistics import assert_mean, assert_unbiased_evidence

Y = 2.0 + jax.random.normal(jax.random.key(5), (40,))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rwmh", pytest.param("hmc", marks=pytest.mark.slow)])
def test_evidence_and_moments_of_a_conjugate_normal(name: str, key: Array) -> None:
    """More observations than a block holds; the threshold fires."""
    move = {"rwmh": RWMH(), "hmc": HMC(num_leapfrogs=3)}[name]
    algorithm, program = IBIS(400, move), bind(normal_mean, Y)
    posterior = jax.jit(jax.vmap(lambda k: infer(k, program, algorithm)))(
        jax.random.split(key, 200)
    )
    assert_unbiased_evidence(posterior.log_evidence, exact_log_evidence(Y))
    estimate = posterior.expectation(lambda x: x["mean"])
    assert_mean(estimate, float(Y.sum()) / 41, resolution=0.005)
    resampled = np.asarray(posterior.info["resampled"]).sum(axis=1)
    assert resampled.min() >= 2 and posterior.info["num_steps"][0] == 40


@pytest.mark.slow
def test_new_data_later_give_the_evidence_of_all(key: Array, tmp_path) -> None:
    from jurax.ppl import Posterior

    keys = jax.random.split(key)
    first = infer(keys[0], bind(normal_mean, Y[:30]), IBIS(4000, RWMH()))
    first.save(tmp_path / "first.npz")
    start = Posterior.load(tmp_path / "first.npz")
    both = infer(keys[1], bind(normal_mean, Y), IBIS(4000, RWMH(), start=start))
    assert abs(float(both.log_evidence) - exact_log_evidence(Y)) < 0.3
    assert abs(float(both.expectation(lambda x: x["mean"])) - float(Y.sum()) / 41) < 0.03
    assert int(both.info["num_steps"]) == 40
    with pytest.raises(ValueError, match="goes on from 10 particles"):
        IBIS(10, start=start)


def regression(x, y):
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0).expand([2]))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.StudentT(4.0, x @ slope, noise), obs=y)


@pytest.mark.slow
def test_a_regression_agrees_with_nuts(key: Array) -> None:
    """Means and 5, 50, 95 % quantiles, within bands from replicates of both."""
    keys = jax.random.split(key, 4)
    x = jax.random.normal(keys[0], (50, 2))
    y = x @ jnp.array([0.7, -0.4]) + 0.5 * jax.random.normal(keys[1], (50,))
    y = y.at[7].set(jnp.nan)  # missing
    program = bind(regression, x, y)
    ibis = IBIS(2000, HMC(num_leapfrogs=4), num_moves=4)
    run = jax.jit(lambda keys: jax.lax.map(lambda k: infer(k, program, ibis), keys))
    runs = run(jax.random.split(keys[2], 20))
    chains = infer(keys[3], program, NUTS(num_samples=500, num_warmup=400, num_chains=20))

    def summaries(values: Array, weights: Array) -> np.ndarray:
        """Weighted mean and quantiles of one run."""
        order = np.argsort(values)
        cumulative = np.cumsum(np.asarray(weights, np.float64)[order])
        quantiles = [values[order][np.searchsorted(cumulative, q)] for q in (0.05, 0.5, 0.95)]
        return np.array([(values * weights).sum(), *quantiles])

    def all_summaries(posterior_values: dict, weights: np.ndarray) -> np.ndarray:
        columns = [posterior_values["slope"][..., 0], posterior_values["slope"][..., 1]]
        columns.append(posterior_values["noise"])
        return np.array(
            [[summaries(np.asarray(c[i]), weights[i]) for c in columns] for i in range(20)]
        )

    first = all_summaries(runs.particles, np.asarray(runs.normalized()))
    second = all_summaries(chains.particles, np.full((20, 500), 1 / 500))
    error = second.std(axis=0, ddof=1) / np.sqrt(20)
    assert_mean(first, second.mean(axis=0), expected_error=error, resolution=0.02)


def test_programs_without_one_axis_of_data_are_refused(key: Array) -> None:
    def two_lengths(y, z):
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        numpyro.sample("z", dist.Normal(mean, 1.0), obs=z)

    with pytest.raises(ValueError, match="'y': 3, 'z': 2"):
        infer(key, bind(two_lengths, jnp.zeros(3), jnp.zeros(2)), IBIS(4))
    with pytest.raises(ValueError, match="no observed site with a leading axis"):
        infer(key, bind(normal_mean, jnp.array(1.0)), IBIS(4))
