"""Resampling schemes: E[counts] = N W by enumeration, bounds on counts, numerics."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from jurax.inference import Multinomial, Resample, Residual, Stratified, Systematic
from jurax.ppl import Population, random
from jurax.ppl.population import DEAD
from jurax.ppl.walk import Walk
from tests.exact import Language
from tests.statistics import assert_mean

SCHEMES = [Systematic(), Stratified(), Multinomial(), Residual()]
each_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: type(s).__name__)

WEIGHTS = {
    "generic": [0.31, 0.07, 0.42, 0.2],
    "zeros": [0.0, 0.6, 0.0, 0.4],
    "multiples": [0.5, 0.25, 0.25],
    "one": [0.0, 1.0, 0.0],
    "single": [1.0],
}


def ancestor_law(scheme: Callable, w: list[float], num: int) -> dict[tuple[int, ...], float]:
    """The joint law of the ancestors."""
    with np.errstate(divide="ignore"):
        log_weights = np.log(w)
    law: dict[tuple[int, ...], float] = {}

    def visit(probability: float, ancestors: np.ndarray) -> None:
        outcome = tuple(ancestors.tolist())
        law[outcome] = law.get(outcome, 0.0) + probability

    walk = Walk(lambda key, x: scheme(key, x, num), log_weights)
    walk.run(visit, log_weights)
    assert walk.key_fault is None
    return law


def counts_of(outcome: tuple[int, ...], num_parents: int) -> np.ndarray:
    return np.bincount(outcome, minlength=num_parents)


# -------------------------------------------------------------------- laws


@pytest.mark.usefixtures("x64")
@each_scheme
@pytest.mark.parametrize("name", WEIGHTS)
def test_expected_counts_are_exact(scheme, name: str) -> None:
    w = np.array(WEIGHTS[name])
    for num in (1, 2, len(w), 5 if len(w) < 4 else 3):  # more, fewer and as many children
        law = ancestor_law(scheme, list(w), num)
        mean = sum(p * counts_of(outcome, len(w)) for outcome, p in law.items())
        np.testing.assert_allclose(mean, num * w, atol=1e-12)
        for outcome in law:
            check_counts(scheme, counts_of(outcome, len(w)), num * w)


def check_counts(scheme: Callable, counts: np.ndarray, expected: np.ndarray) -> None:
    """Bounds that hold in every outcome; `slack` for expected counts that are whole numbers."""
    slack = 1e-9
    assert not np.any(counts[expected == 0])
    if isinstance(scheme, Systematic):
        assert np.all(counts >= np.floor(expected + slack)), (counts, expected)
        assert np.all(counts <= np.ceil(expected - slack)), (counts, expected)
    if isinstance(scheme, Residual):
        assert np.all(counts >= np.floor(expected + slack)), (counts, expected)
    if isinstance(scheme, Stratified):
        assert np.all(np.abs(counts - expected) < 2), (counts, expected)


@pytest.mark.usefixtures("x64")
def test_multinomial_slots_are_independent() -> None:
    w = WEIGHTS["generic"]
    law = ancestor_law(Multinomial(), w, 3)
    expected = {(i, j, k): w[i] * w[j] * w[k] for i in range(4) for j in range(4) for k in range(4)}
    assert law == pytest.approx(expected, abs=1e-12)


@pytest.mark.usefixtures("x64")
def test_residual_slots_beyond_the_sure_ones_are_independent() -> None:
    # 4 W = (1.24, .28, 1.68, .8): slots 0 and 1 are sure; the rest has law (.24, .28, .68, .8) / 2.
    law = ancestor_law(Residual(), WEIGHTS["generic"], 4)
    rest = np.array([0.24, 0.28, 0.68, 0.8]) / 2
    expected = {(0, 2, i, j): rest[i] * rest[j] for i in range(4) for j in range(4)}
    assert law == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("scheme", [Systematic(), Stratified()], ids=repr)
def test_sorted_schemes_keep_the_order(scheme, key: Array) -> None:
    ancestors = scheme(key, jax.random.normal(key, (100,)), 70)
    assert bool(jnp.all(jnp.diff(ancestors) >= 0))


@pytest.mark.usefixtures("x64")
@each_scheme
def test_result_is_constant_between_breaks(scheme, monkeypatch, seed: int) -> None:
    """What enumeration assumes: a uniform draw matters only by the interval it falls into."""
    generator = np.random.default_rng(seed)
    points: dict[str, np.ndarray] = {}

    def given(key, shape=(), dtype=None, *, breaks):
        u = np.broadcast_to(points["u"][: int(np.prod(shape))].reshape(shape), shape)
        edges = np.broadcast_to(np.asarray(breaks()), (*shape, np.shape(breaks())[-1]))
        inner = np.clip(np.sort(edges, axis=-1), 0, 1)
        ends = np.zeros((*shape, 1))
        ends = np.concatenate([ends, inner, ends + 1], axis=-1)
        index = np.sum(ends[..., 1:-1] <= u[..., None], axis=-1)[..., None]
        low = np.take_along_axis(ends, index, -1)[..., 0]
        high = np.take_along_axis(ends, index + 1, -1)[..., 0]
        return jnp.asarray(u if points["exact"] else (low + high) / 2)

    monkeypatch.setattr(random, "uniform", given)
    log_weights = jnp.log(jnp.asarray(generator.dirichlet(np.ones(5))))
    for _ in range(20):
        points["u"] = generator.uniform(size=6)
        outcomes = []
        for points["exact"] in (True, False):
            outcomes.append(scheme(jax.random.key(0), log_weights, 6).tolist())
        assert outcomes[0] == outcomes[1]


# -------------------------------------------------------------------- numerics


@pytest.mark.slow
@each_scheme
@pytest.mark.parametrize("num", [1, 10, 1000, 1_000_000])
def test_no_parent_of_weight_zero_in_single_precision(scheme, num: int, key: Array) -> None:
    key_weights, key_zeros, key_draw = jax.random.split(key, 3)
    log_weights = 3 * jax.random.normal(key_weights, (num,))
    zero = jax.random.bernoulli(key_zeros, 0.5, (num,)).at[0].set(True).at[-1].set(num > 1)
    log_weights = jnp.where(zero, -jnp.inf, log_weights).at[num // 2].set(0.0)
    for draw in jax.random.split(key_draw, 3):
        ancestors = scheme(draw, log_weights, num)
        assert ancestors.shape == (num,) and ancestors.dtype == jnp.int32
        assert not bool(jnp.any(jnp.isneginf(log_weights[ancestors])))


@each_scheme
def test_counts_of_a_million_particles(scheme, key: Array) -> None:
    """Counts against N W in float32, where a prefix sum of floats would drift."""
    num = 1_000_000
    log_weights = jax.random.normal(key, (num,))
    counts = np.bincount(scheme(key, log_weights, num), minlength=num)
    w = np.exp(np.asarray(log_weights, np.float64))
    expected = num * w / w.sum()
    if isinstance(scheme, Systematic):
        # An end near 1e6 is rounded to 1/16, so now and then a point falls on its other side.
        assert np.mean(np.abs(counts - expected) >= 1) < 1e-3
        assert np.max(np.abs(counts - expected)) < 1.1
    # Ten blocks of a tenth of the parents: their shares, in standard deviations of multinomials.
    blocks = (counts - expected).reshape(10, -1).sum(axis=1)
    assert np.all(np.abs(blocks) < 5 * np.sqrt(num * 0.1))


@each_scheme
def test_degenerate_weights(scheme, key: Array) -> None:
    assert scheme(key, jnp.zeros(1), 1).tolist() == [0]
    alone = jnp.full(6, -jnp.inf).at[4].set(-1e4)
    assert scheme(key, alone, 6).tolist() == [4] * 6
    nothing = scheme(key, jnp.full(6, -jnp.inf), 6)
    assert bool(jnp.all((nothing >= 0) & (nothing < 6)))  # any row: the kernel does not use them


@each_scheme
@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_shifted_weights_give_the_same_ancestors(scheme, shift: float, key: Array) -> None:
    log_weights = jnp.round(jax.random.normal(key, (300,)) * 64) / 64  # exact after the shift
    moved = scheme(key, log_weights + shift, 300)
    np.testing.assert_array_equal(moved, scheme(key, log_weights, 300))


@pytest.mark.slow
@each_scheme
def test_equal_weights_are_left_alone_by_low_variance_schemes(scheme, key: Array) -> None:
    if isinstance(scheme, Multinomial):
        pytest.skip("multinomial resampling draws even then")
    for num in (3, 64, 1024):
        assert scheme(key, jnp.zeros(num), num).tolist() == list(range(num))


@pytest.mark.slow
@each_scheme
def test_jit_vmap_and_eager_agree(scheme, key: Array) -> None:
    keys = jax.random.split(key, 3)
    log_weights = jax.random.normal(key, (3, 40))
    eager = jnp.stack([scheme(k, x, 25) for k, x in zip(keys, log_weights, strict=True)])
    jitted = jax.jit(lambda k, x: scheme(k, x, 25))
    together = jnp.stack([jitted(k, x) for k, x in zip(keys, log_weights, strict=True)])
    mapped = jax.vmap(lambda k, x: scheme(k, x, 25))(keys, log_weights)
    np.testing.assert_array_equal(eager, together)
    np.testing.assert_array_equal(eager, mapped)


@each_scheme
def test_keys_are_consumed_once(scheme, key: Array, key_reuse) -> None:
    jax.jit(lambda k: scheme(k, jnp.zeros(5), 5))(key)


@each_scheme
def test_mean_counts_in_single_precision(scheme, key: Array) -> None:
    """The sampler itself, not its enumeration: 4,000 draws."""
    w = jnp.array(WEIGHTS["generic"])

    def counts(key):
        return jnp.zeros(4).at[scheme(key, jnp.log(w), 8)].add(1.0)

    samples = jax.jit(jax.vmap(counts))(jax.random.split(key, 4000))
    assert_mean(samples, 8 * np.array(WEIGHTS["generic"]), resolution=0.03)


# -------------------------------------------------------------------- the kernel


@pytest.mark.slow
@each_scheme
@pytest.mark.parametrize("num_particles", [None, 3, 9])
def test_the_kernel_moves_mass_into_the_evidence(scheme, num_particles, key: Array) -> None:
    process = Language.draw(seed=1, num_symbols=2, depth=2, stop=True).process("odds")
    population = Population.start(*process.init(key, 6))
    resampled, info = Resample(scheme, num_particles).step(key, population, process)
    assert resampled.num_particles == (num_particles or 6)
    assert resampled.log_weights.tolist() == [0.0] * resampled.num_particles
    assert float(resampled.log_evidence) == pytest.approx(
        float(population.log_evidence_estimate), abs=1e-6
    )
    chosen = population.particles.prefix[info["ancestors"]]
    np.testing.assert_array_equal(resampled.particles.prefix, chosen)
    assert bool(info["resampled"])


@each_scheme
def test_a_dead_population_is_left_alone(scheme, key: Array) -> None:
    process = Language.draw(seed=1, num_symbols=2, depth=2, stop=True).process("odds")
    particles, _ = process.init(key, 6)
    population = Population.start(particles, jnp.full(6, -jnp.inf))
    resampled, info = Resample(scheme).step(key, population, process)
    assert int(resampled.status) == DEAD and not bool(info["resampled"])
    np.testing.assert_array_equal(resampled.particles.prefix, particles.prefix)
    assert bool(jnp.all(jnp.isneginf(resampled.log_weights)))
    assert not bool(jnp.isnan(resampled.log_evidence_estimate))
