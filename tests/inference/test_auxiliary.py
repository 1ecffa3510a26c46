"""The auxiliary filter: unbiased for every lookahead, better for a good one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from jurax.inference import (
    SSP,
    AuxiliaryFilter,
    Extend,
    Multinomial,
    ParticleFilter,
    Resample,
    Residual,
    Stratified,
    Systematic,
    Tempered,
    infer,
)
from jurax.models.state_space import LinearGaussian, StochasticVolatility
from jurax.ppl import Population, laws, propose
from tests.exact import Language, Prefixes
from tests.inference.test_contract import Chase, assert_packed_equals_alone, without_seconds
from tests.inference.test_mutations import assert_broken, plant

SCHEMES = [Systematic(), Stratified(), Multinomial(), Residual(), SSP()]
LANGUAGE = Language.draw(seed=7, num_symbols=2, depth=3, stop=True)


def lookahead(particles: Prefixes, t):
    """A guess that depends on prefix and time, far from the truth."""
    return jnp.cos(2.0 * particles.prefix + t)


def filter_law(**arguments) -> laws.LawReport:
    algorithm = AuxiliaryFilter(2, lookahead, **{"ess_threshold": 0.9, **arguments})
    return laws.check_unbiased(algorithm, LANGUAGE.process("odds"))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "scheme",
    [s if isinstance(s, Systematic) else pytest.param(s, marks=pytest.mark.slow)
     for s in SCHEMES],
    ids=repr,
)  # fmt: skip
def test_every_string_is_unbiased_with_a_threshold_that_fires(scheme) -> None:
    report = filter_law(resampler=scheme)
    assert report, str(report)
    assert min(report.branches["resampled"]) > 20, str(report)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_tempered_scheme_with_a_lookahead_is_unbiased() -> None:
    report = filter_law(resampler=Tempered(Stratified(), 2.0), ess_threshold=1.0)
    assert report, str(report)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_resampling_with_a_lookahead_preserves_the_measure() -> None:
    process = LANGUAGE.process("odds")
    rows, _ = process.init(jax.random.key(0), 3)
    rows = type(rows)(jnp.array([1, 2, 3]), rows.length, rows.symbol, jnp.array([0, 1, 0]) > 0)
    population = Population.start(rows, jnp.log(jnp.array([0.2, 0.9, 0.35])))
    for num in (None, 2):
        kernel = Resample(Systematic(), num, lookahead)
        report = laws.check_preserving(kernel, process, population)
        assert report, str(report)
    report = laws.check_advancing(Resample(lookahead=lookahead) >> Extend(), process, population)
    assert report, str(report)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("fragment", "fault"),
    [
        ("population.log_weights - left", "jnp.zeros_like(left)"),  # first stage not corrected
        ("weights.log_mean(selection)", "weights.log_mean(population.log_weights)"),
    ],
)
def test_a_missing_correction_breaks_the_law(monkeypatch, fragment: str, fault: str) -> None:
    plant(monkeypatch, Resample, "step", fragment, fault)
    assert_broken(filter_law(), "unbiased", at_least=1e-3)


@pytest.mark.usefixtures("x64")
def test_finished_rows_are_not_looked_ahead(key: Array) -> None:
    """A lookahead of garbage for finished rows changes nothing."""

    def garbage(particles: Prefixes, t):
        return jnp.where(particles.done, jnp.nan, lookahead(particles, t))

    process = LANGUAGE.process("odds")
    clean = infer(key, process, AuxiliaryFilter(16, lookahead))
    other = infer(key, process, AuxiliaryFilter(16, garbage))
    np.testing.assert_array_equal(clean.log_weights, other.log_weights)


def test_a_constant_lookahead_is_the_particle_filter(key: Array) -> None:
    process = LANGUAGE.process("odds")
    auxiliary = AuxiliaryFilter(16, lambda particles, t: jnp.zeros(16), ess_threshold=0.9)
    plain = ParticleFilter(16, ess_threshold=0.9)
    first, second = infer(key, process, auxiliary), infer(key, process, plain)
    np.testing.assert_array_equal(first.particles.prefix, second.particles.prefix)
    np.testing.assert_allclose(first.log_weights, second.log_weights, atol=1e-6)


def test_the_exact_lookahead_with_the_optimal_proposal_is_fully_adapted(key: Array) -> None:
    """Weights are equal after each step (Pitt and Shephard 1999), so ESS = N throughout."""
    series = LinearGaussian.simulate(jax.random.key(1), num_steps=6)
    scale = jnp.sqrt(2.0)

    def predictive(states, t):
        mean = (states @ series.transition_matrix.T)[:, 0]
        return jax.scipy.stats.norm.logpdf(series.observations[t - 1, 0], mean, scale)

    guided = propose(series, series.optimal_proposal())
    algorithm = AuxiliaryFilter(500, predictive, ess_threshold=1.0)
    posterior = infer(key, guided, algorithm)
    np.testing.assert_allclose(posterior.info["ess"], 500.0, rtol=1e-3)
    assert float(posterior.log_evidence) == pytest.approx(float(series.log_evidence()), abs=0.3)


@pytest.mark.slow
def test_a_good_lookahead_lowers_the_variance(key: Array) -> None:
    """One outlier: the parents that could explain it are chosen before they move."""
    series = StochasticVolatility(jnp.array([0.1, -0.2, 4.0, 0.1]), scale=0.5, persistence=0.9)

    def guess(states, t):
        mean = series.mean + series.persistence * (states - series.mean)
        return jax.vmap(series.potential, (0, None))(mean, t)

    def spread(algorithm) -> float:
        run = jax.vmap(lambda key: algorithm.run(key, series).log_evidence)
        return float(jnp.std(run(jax.random.split(key, 400))))

    kwargs = {"resampler": Systematic(), "ess_threshold": 1.0, "history": False}
    ahead = spread(AuxiliaryFilter(100, guess, **kwargs))
    assert ahead < 0.95 * spread(ParticleFilter(100, **kwargs))


def test_an_invalid_lookahead_is_reported(key: Array) -> None:
    process = LANGUAGE.process("odds")
    broken = AuxiliaryFilter(8, lambda particles, t: jnp.full(8, jnp.nan), ess_threshold=1.0)
    posterior = infer(key, process, broken, throw=False)
    assert not bool(jnp.any(jnp.isnan(posterior.log_weights)))
    with pytest.raises(TypeError, match="lookahead must be a function"):
        AuxiliaryFilter(8, 3.0)  # pyright: ignore


@pytest.mark.slow
def test_packed_problems_do_not_touch_each_other(key: Array) -> None:
    algorithm = AuxiliaryFilter(6, lambda particles, t: -0.1 * particles["x"] ** 2)

    def run(key, process: Chase):
        posterior = without_seconds(infer(key, process, algorithm))
        return posterior.particles, posterior.log_weights, posterior.log_evidence

    assert_packed_equals_alone(run, key)
