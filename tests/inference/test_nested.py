"""Nested populations: unbiased by enumeration; islands and SMC^2 against exact answers."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from jurax.inference import SMC2, Extend, Islands, ParticleFilter, Resample, infer
from jurax.inference.sampler import AbstractSampler
from jurax.models.state_space import LinearGaussian
from jurax.ppl import Cost, family, laws, nest
from jurax.ppl.nest import Nested
from tests.exact import Language
from tests.inference.test_mutations import plant
from tests.inference.test_particle_mcmc import LANGUAGE
from tests.inference.test_pmmh import grid_posterior, strengths
from tests.statistics import assert_mean

SMALL = Language.draw(seed=7, num_symbols=2, depth=2, stop=False)


def switched():
    """A language under one of two powers of its rewards, with probabilities .3 and .7."""
    process = SMALL.process("odds")

    def at(values):
        powers = jnp.where(values["strong"] == 1, 2.0, 0.5) * process.log_potentials
        return eqx.tree_at(lambda p: p.log_potentials, process, powers)

    return family(at, {"strong": dist.Bernoulli(0.7)})


def exact_evidence() -> float:
    """Z of the mixture, from sums over strings."""
    parts = {s: sum(SMALL.masses("odds", s).values()) for s in (0.5, 2.0)}
    return 0.3 * parts[0.5] + 0.7 * parts[2.0]


class Always(AbstractSampler):
    """A filter that resamples at every step: a conditional under vmap cannot be enumerated."""

    num_particles: int = eqx.field(static=True)
    history: bool | None = eqx.field(static=True, default=False)

    @property
    def kernel(self):
        return Resample() >> Extend()


def nested() -> Nested:
    return nest(switched(), Always(2))


def test_family_is_the_mixture_of_its_members() -> None:
    exact = laws.enumerate_process(switched())
    np.testing.assert_allclose(np.exp(exact.log_evidence), exact_evidence(), rtol=1e-6)


def test_nested_evidence_is_that_of_the_family_for_two_inner_particles() -> None:
    exact = laws.enumerate_process(nested())
    np.testing.assert_allclose(np.exp(exact.log_evidence), exact_evidence(), rtol=1e-6)


@pytest.mark.slow
def test_a_filter_of_filters_is_unbiased() -> None:
    probs = SMALL.probs.copy()
    probs[1:] = [1.0, 0.0]
    small = dataclasses.replace(SMALL, probs=probs)
    islands = nest(small.process("odds"), Always(2))
    report = laws.check_unbiased(ParticleFilter(2, ess_threshold=0.95), islands)
    assert report, str(report)
    assert report.branches["resampled"][0] > 10


@pytest.mark.slow
def test_ratios_that_forget_the_evidence_before_are_biased(monkeypatch) -> None:
    plant(monkeypatch, Nested, "extend", "after - before", "after")
    found = np.exp(laws.enumerate_process(nested()).log_evidence)
    assert abs(found / exact_evidence() - 1) > 1e-3


@pytest.mark.slow
def test_islands_agree_with_kalman(key) -> None:
    model = LinearGaussian.simulate(jax.random.key(1), num_steps=10)
    islands = Islands(8, ParticleFilter(32))

    @jax.jit
    def run(key):
        posterior = infer(key, model, islands)
        return posterior.log_evidence

    found = jax.vmap(run)(jax.random.split(key, 400))
    assert_mean(jnp.exp(found - model.log_evidence()), 1.0, resolution=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [0.0, 0.95], ids=["never", "moves"])
def test_smc2_agrees_with_the_grid(threshold, key) -> None:
    """Weighted means of replicates; with moves the ratio's bias O(1/N) is below the error."""
    algorithm = SMC2(400, ParticleFilter(10), num_moves=2, ess_threshold=threshold)

    @jax.jit
    @jax.vmap
    def run(key):
        posterior = infer(key, strengths(), algorithm)
        mean = posterior.expectation(lambda v: v["strength"])
        return mean, posterior.log_evidence, jnp.sum(posterior.info["resampled"])

    means, log_evidence, resampled = run(jax.random.split(key, 200))
    points, probabilities = grid_posterior()
    assert_mean(means, (points * probabilities).sum(), resolution=0.02)
    evidence = [sum(LANGUAGE.masses("emission", float(s)).values()) for s in points]
    prior = np.exp(np.asarray(dist.Gamma(2.0, 1.0).log_prob(jnp.asarray(points))))
    exact = (np.array(evidence) * prior).sum() * (points[1] - points[0])
    assert_mean(jnp.exp(log_evidence), exact, resolution=0.05 * exact)
    assert bool(jnp.all(resampled > 0)) == (threshold > 0)


@pytest.mark.slow
def test_smc2_moves_and_names_its_parameters(key) -> None:
    posterior = infer(key, strengths(), SMC2(16, ParticleFilter(4), ess_threshold=0.95))
    assert posterior.particles["strength"].shape == (16,)
    assert posterior.particles["particle"].prefix.shape == (16,)
    assert bool(jnp.isfinite(posterior.log_evidence)) and posterior.status == "ok"


@pytest.mark.slow
def test_a_checkpoint_changes_nothing_and_costs_are_unknown(key, tmp_path) -> None:
    smc2 = SMC2(8, ParticleFilter(4), ess_threshold=0.95)
    plain = infer(key, strengths(), smc2)
    kept = infer(key, strengths(), smc2, checkpoint=tmp_path / "state.npz")
    for a, b in zip(jax.tree.leaves(plain.particles), jax.tree.leaves(kept.particles), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    assert np.isnan(plain.cost.decoded_tokens) and np.isnan(kept.cost.sequential_passes)


def test_bad_input_is_refused_by_name(key) -> None:
    with pytest.raises(NotImplementedError, match="parameters"):
        infer(key, SMALL.process("odds"), SMC2(8))
    for algorithm in (SMC2(8), Islands(4)):
        with pytest.raises(NotImplementedError, match="has no budget"):
            infer(key, strengths(), algorithm, budget=Cost(decoded_tokens=10))
    with pytest.raises(TypeError, match="filter"):
        SMC2(8, filter=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="num_particles"):
        nest(SMALL.process("odds"), None)
    with pytest.raises(ValueError, match="at least one parameter"):
        family(lambda v: SMALL.process("odds"), {})
    with pytest.raises(ValueError, match="expected values"):
        switched().at({"weak": 1})
