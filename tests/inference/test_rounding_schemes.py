"""Residual-systematic, SSP and tempered resampling: laws by enumeration, bounds, numerics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from jurax.inference import (
    SSP,
    Multinomial,
    ParticleFilter,
    Resample,
    ResidualSystematic,
    Stratified,
    Systematic,
    Tempered,
    infer,
)
from jurax.inference.resampling import ssp
from jurax.inference.resampling.tempered import selection_of
from jurax.ppl import Population, laws
from tests.exact import Language
from tests.inference.test_mutations import assert_broken, plant
from tests.inference.test_resampling import WEIGHTS, ancestor_law, counts_of
from tests.statistics import assert_mean

SCHEMES = [ResidualSystematic(), SSP()]
each_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: type(s).__name__)
TEMPERED = [Tempered(Systematic(), 2.0), Tempered(Multinomial(), 0.6), Tempered(SSP(), jnp.inf)]
each_tempered = pytest.mark.parametrize("scheme", TEMPERED, ids=["warm", "cold", "uniform"])
LANGUAGE = Language.draw(seed=7, num_symbols=2, depth=3, stop=True)


# -------------------------------------------------------------------- laws of counts


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@each_scheme
@pytest.mark.parametrize("name", WEIGHTS)
def test_expected_counts_are_exact_and_counts_are_floor_or_ceil(scheme, name: str) -> None:
    w = np.array(WEIGHTS[name])
    for num in (1, len(w), 5 if len(w) < 4 else 3):
        law = ancestor_law(scheme, list(w), num)
        mean = sum(p * counts_of(outcome, len(w)) for outcome, p in law.items())
        np.testing.assert_allclose(mean, num * w, atol=1e-10)
        for outcome in law:
            assert outcome == tuple(sorted(outcome))
            counts = counts_of(outcome, len(w))
            assert np.all(counts >= np.floor(num * w + 1e-9)), (counts, num * w)
            assert np.all(counts <= np.ceil(num * w - 1e-9)), (counts, num * w)


@pytest.mark.usefixtures("x64")
def test_fractions_are_settled_along_a_tree() -> None:
    """The joint law of four fractions of sum 2, worked out by hand.

    .3 meets .5: 0 for one and .8 for the other; .7 meets .5: 1 for one and .2 for the other; then
    .8 meets .2: their sum is 1, so one of them gets 1 (with its fraction as probability).
    """
    w = np.array([0.3, 0.5, 0.7, 0.5]) / 2
    law = ancestor_law(SSP(), list(w), 2)
    first, second = {0: 3 / 8, 1: 5 / 8}, {2: 0.5 / 0.8, 3: 0.3 / 0.8}  # who goes on; who gets 1
    expected = {}
    for i, p in first.items():
        for j, q in second.items():
            other = 5 - j
            expected[(i, j)] = expected.get((i, j), 0.0) + p * q * 0.8
            pair = (min(j, other), max(j, other))
            expected[pair] = expected.get(pair, 0.0) + p * q * 0.2
    assert law == pytest.approx(expected, abs=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("fragment", "fault"),
    [
        ("jnp.where(is_low, low, high)", "jnp.where(is_low, low, 1 - high)"),
        ("low = first /", "low = second /"),
        ("high = (1 - first)", "high = (1 - second)"),
    ],
)
def test_a_wrong_probability_of_a_meeting_is_seen(monkeypatch, fragment: str, fault: str) -> None:
    plant(monkeypatch, ssp, "meet", fragment, fault)
    law = ancestor_law(SSP(), WEIGHTS["generic"], 4)
    mean = sum(p * counts_of(outcome, 4) for outcome, p in law.items())
    assert np.max(np.abs(mean - 4 * np.array(WEIGHTS["generic"]))) > 0.01


# -------------------------------------------------------------------- the measure


def population(process) -> Population:
    """Three strings with uneven weights, one of them zero."""
    rows, _ = process.init(jax.random.key(0), 4)
    rows = type(rows)(jnp.array([1, 2, 3, 4]), rows.length, rows.symbol, rows.done)
    return Population.start(rows, jnp.log(jnp.array([0.2, 0.9, 0.0, 0.35])))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("scheme", SCHEMES + TEMPERED, ids=repr)
def test_the_measure_is_preserved(scheme) -> None:
    process = LANGUAGE.process("odds")
    for num_particles in (None, 3):
        kernel = Resample(scheme, num_particles)
        report = laws.check_preserving(kernel, process, population(process))
        assert report, str(report)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "scheme", [*SCHEMES, TEMPERED[0], pytest.param(TEMPERED[1], marks=pytest.mark.slow)], ids=repr
)
def test_filters_are_unbiased_for_every_string(scheme) -> None:
    algorithm = ParticleFilter(num_particles=2, resampler=scheme, ess_threshold=0.9)
    report = laws.check_unbiased(algorithm, LANGUAGE.process("odds"))
    assert report, str(report)
    assert min(report.branches["resampled"]) > 20, str(report)


@pytest.mark.usefixtures("x64")
def test_a_dropped_residual_weight_breaks_the_law(monkeypatch) -> None:
    """The resampling temperature of popular samplers: parents by w^(1 / tau), equal weights."""
    plant(
        monkeypatch,
        Resample,
        "step",
        "gather_rows(population.log_weights - left, ancestors)",
        "gather_rows(jnp.zeros_like(left), ancestors)",
    )
    process = LANGUAGE.process("odds")
    report = laws.check_preserving(Resample(TEMPERED[0]), process, population(process))
    assert_broken(report, "preserving", at_least=1e-2)


@pytest.mark.usefixtures("x64")
def test_tempering_twice_is_tempering_by_the_product() -> None:
    log_weights = jnp.log(jnp.array([0.2, 0.9, 0.0, 0.35]))
    twice = Tempered(Tempered(Systematic(), 2.0), 1.5)
    once = Tempered(Systematic(), 3.0)
    np.testing.assert_allclose(twice.selection(log_weights), once.selection(log_weights))
    assert ancestor_law(twice, [0.2, 0.9, 0.35], 3) == pytest.approx(
        ancestor_law(once, [0.2, 0.9, 0.35], 3), abs=1e-12
    )
    assert selection_of(Systematic(), log_weights) is log_weights


@pytest.mark.slow
def test_temperature_one_is_the_scheme_itself(key: Array) -> None:
    process = LANGUAGE.process("odds")
    start = Population.start(*process.init(key, 6))
    plain, _ = Resample(Stratified()).step(key, start, process)
    tempered, _ = Resample(Tempered(Stratified(), 1.0)).step(key, start, process)
    np.testing.assert_array_equal(plain.particles.prefix, tempered.particles.prefix)
    np.testing.assert_allclose(plain.log_weights, tempered.log_weights, atol=1e-6)
    assert float(plain.log_evidence) == pytest.approx(float(tempered.log_evidence), abs=1e-6)


@pytest.mark.parametrize("tau", [0.0, -1.0, float("nan")])
def test_temperatures_must_be_positive(tau: float) -> None:
    with pytest.raises(ValueError, match="tau must be greater than 0"):
        Tempered(Systematic(), tau)


@pytest.mark.slow
@each_tempered
def test_a_dead_population_is_left_alone(scheme, key: Array) -> None:
    process = LANGUAGE.process("odds")
    particles, _ = process.init(key, 6)
    dead = Population.start(particles, jnp.full(6, -jnp.inf))
    resampled, info = Resample(scheme).step(key, dead, process)
    assert int(resampled.status) == 1 and not bool(info["resampled"])
    assert bool(jnp.all(jnp.isneginf(resampled.log_weights)))
    np.testing.assert_array_equal(resampled.particles.prefix, particles.prefix)


# -------------------------------------------------------------------- numerics


@each_scheme
@pytest.mark.parametrize("num", [1, 10, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_no_parent_of_weight_zero_in_single_precision(scheme, num: int, key: Array) -> None:
    key_weights, key_zeros, key_draw = jax.random.split(key, 3)
    log_weights = 3 * jax.random.normal(key_weights, (num,))
    zero = jax.random.bernoulli(key_zeros, 0.5, (num,)).at[0].set(True).at[-1].set(num > 1)
    log_weights = jnp.where(zero, -jnp.inf, log_weights).at[num // 2].set(0.0)
    w = np.exp(np.asarray(log_weights, np.float64))
    expected = num * w / w.sum()
    draw_ancestors = jax.jit(lambda k: scheme(k, log_weights, num))
    for draw in jax.random.split(key_draw, 3):
        ancestors = draw_ancestors(draw)
        assert ancestors.shape == (num,) and ancestors.dtype == jnp.int32
        counts = np.bincount(ancestors, minlength=num)
        assert not np.any(counts[w == 0])
        assert np.max(np.abs(counts - expected)) < 1 + 2e-7 * num


@pytest.mark.slow
@each_scheme
def test_degenerate_and_shifted_weights(scheme, key: Array) -> None:
    scheme = jax.jit(scheme, static_argnums=2)
    assert scheme(key, jnp.zeros(1), 1).tolist() == [0]
    alone = jnp.full(6, -jnp.inf).at[4].set(-1e4)
    assert scheme(key, alone, 6).tolist() == [4] * 6
    nothing = scheme(key, jnp.full(6, -jnp.inf), 6)
    assert bool(jnp.all((nothing >= 0) & (nothing < 6)))
    log_weights = jnp.round(jax.random.normal(key, (300,)) * 64) / 64
    np.testing.assert_array_equal(
        scheme(key, log_weights + 1e4, 300), scheme(key, log_weights, 300)
    )
    for num in (3, 100):
        assert scheme(key, jnp.zeros(num), num).tolist() == list(range(num))


@pytest.mark.slow
@each_scheme
def test_jit_vmap_and_eager_agree(scheme, key: Array) -> None:
    keys = jax.random.split(key, 2)
    log_weights = jnp.sin(jnp.arange(24.0).reshape(2, 12))
    mapped = jax.vmap(lambda k, x: scheme(k, x, 9))(keys, log_weights)
    jitted = jax.jit(lambda k, x: scheme(k, x, 9))
    for i in range(2):
        np.testing.assert_array_equal(scheme(keys[i], log_weights[i], 9), mapped[i])
        np.testing.assert_array_equal(jitted(keys[i], log_weights[i]), mapped[i])


@each_scheme
def test_keys_are_consumed_once(scheme, key: Array, key_reuse) -> None:
    jax.jit(lambda k: scheme(k, jnp.zeros(5), 5))(key)


@each_scheme
def test_mean_counts_in_single_precision(scheme, key: Array) -> None:
    w = jnp.array(WEIGHTS["generic"])

    def counts(key):
        return jnp.zeros(4).at[scheme(key, jnp.log(w), 8)].add(1.0)

    samples = jax.jit(jax.vmap(counts))(jax.random.split(key, 4000))
    assert_mean(samples, 8 * np.array(WEIGHTS["generic"]), resolution=0.03)


@pytest.mark.slow
def test_an_infinite_temperature_never_loses_a_particle_of_positive_weight(key: Array) -> None:
    process = LANGUAGE.process("odds")
    algorithm = ParticleFilter(8, resampler=Tempered(SSP(), jnp.inf), ess_threshold=1.0)
    posterior = infer(key, process, algorithm)
    ancestors = np.asarray(posterior.info["ancestors"])
    np.testing.assert_array_equal(ancestors, np.broadcast_to(np.arange(8), ancestors.shape))
