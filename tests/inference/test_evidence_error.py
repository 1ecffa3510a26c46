"""Error of the evidence: the genealogy's estimate is exact by enumeration; replicates by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from jurax.inference import Extend, Multinomial, ParticleFilter, Resample, infer
from jurax.inference.evidence_error import (
    coalescence_time,
    combine_evidence,
    log_evidence_variance,
    relative_variance,
)
from jurax.models.state_space import LinearGaussian
from jurax.ppl import genealogy, random
from jurax.ppl.enumeration import in_double
from jurax.ppl.walk import Walk
from tests.exact import Language
from tests.statistics import assert_mean


def moments(power: int | None = None) -> tuple[float, float]:
    """E[Zhat^2 V] and Var(Zhat) of a filter of N = 2 that resamples by multinomial at each step."""
    process = in_double(Language.draw(seed=7, num_symbols=2, depth=2, stop=False).process("odds"))
    kernel = Resample(Multinomial()) >> Extend()
    sums = np.zeros(4)

    def run(key: Array) -> tuple[Array, Array]:
        key_init, *keys = random.split(key, process.num_steps + 1)
        population = kernel.init(key_init, process, 2)
        ancestors = []
        for step_key in keys:
            population, info = kernel.step(step_key, population, process)
            ancestors.append(info["ancestors"])
        count = process.num_steps + 1 if power is None else power
        lines = genealogy.lineages(jnp.stack(ancestors))[0]
        variance = relative_variance(population.log_weights, lines, count)
        return jnp.exp(population.log_evidence_estimate), variance

    def visit(probability: float, end: tuple) -> None:
        evidence, variance = (float(x) for x in end)
        sums[:] += probability * np.array([1, evidence, evidence**2, evidence**2 * variance])

    with jax.enable_x64(True):
        Walk(run).run(visit)
    np.testing.assert_allclose(sums[0], 1.0, rtol=1e-12)
    return sums[3], sums[2] - sums[1] ** 2


def test_the_variance_from_one_run_is_unbiased() -> None:
    """E[Zhat^2 V] = Var(Zhat), to 1e-10; with the power of one step less it is not."""
    estimate, exact = moments()
    np.testing.assert_allclose(estimate, exact, rtol=1e-10)
    wrong, _ = moments(power=1)
    assert abs(wrong / exact - 1) > 1e-2


def test_variance_by_hand() -> None:
    """N = 4 without resampling: (N sum W^2 - 1) / (N - 1), the sample variance of N W over N."""
    log_weights = jnp.log(jnp.array([0.1, 0.2, 0.3, 0.4]))
    value = relative_variance(log_weights, jnp.arange(4), 1)
    np.testing.assert_allclose(value, np.var([0.4, 0.8, 1.2, 1.6], ddof=1) / 4, rtol=1e-5)


@pytest.mark.slow
def test_the_estimate_agrees_with_replicates(key: Array) -> None:
    model = LinearGaussian.simulate(jax.random.key(0), num_steps=10)
    keys = jax.random.split(key)
    algorithm = ParticleFilter(num_particles=300, resampler=Multinomial(), ess_threshold=0.5)
    run = jax.jit(jax.vmap(lambda k: infer(k, model, algorithm)))
    replicates = run(jax.random.split(keys[0], 400))
    replicates = eqx.tree_at(lambda p: p.history, replicates, None, is_leaf=lambda x: x is None)
    exact = float(jnp.var(replicates.log_evidence))
    estimates = [log_evidence_variance(replicates[i]) for i in range(100)]
    assert_mean(estimates, exact, expected_error=exact * np.sqrt(2 / 400), resolution=0.1 * exact)
    value, error = combine_evidence(replicates.log_evidence)
    assert abs(value - float(model.log_evidence())) < 5 * error
    np.testing.assert_allclose(error, np.sqrt(exact / 400), rtol=0.3)


def test_one_ancestor_left_is_refused_with_advice(key: Array) -> None:
    model = LinearGaussian.simulate(jax.random.key(0), num_steps=30)
    posterior = infer(key, model, ParticleFilter(num_particles=8, ess_threshold=1.0))
    with pytest.raises(ValueError, match="pass a lag below 30"):
        log_evidence_variance(posterior)
    assert 0 <= coalescence_time(posterior) < 30
    assert np.isfinite(log_evidence_variance(posterior, lag=1))
    assert np.isfinite(log_evidence_variance(posterior, lag=1, method="chan_lai"))
    with pytest.raises(ValueError, match="method must be"):
        log_evidence_variance(posterior, method="mean")


def test_replicates_that_cannot_be_combined_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        combine_evidence(jnp.zeros(1))
    with pytest.raises(ValueError, match="every replicate is dead"):
        combine_evidence(jnp.full(3, -jnp.inf))
    value, error = combine_evidence(jnp.array([0.0, -jnp.inf]))
    assert value == pytest.approx(-np.log(2)) and error == np.inf
