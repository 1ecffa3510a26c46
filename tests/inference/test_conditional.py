"""Conditional SMC leaves the posterior invariant: by enumeration of its own draws, and its faults.

Languages are path-dependent: the potential of a step depends on the whole prefix. `thin` ends with
a sure symbol, which keeps three times as small as two.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jurax.inference import (
    SSP,
    ConditionalFilter,
    Multinomial,
    ParticleGibbs,
    Residual,
    ResidualSystematic,
    Stratified,
    Systematic,
    Tempered,
    ancestor,
)
from jurax.ppl import laws
from jurax.ppl.pinned import Pinned, replay_path
from jurax.ppl.storing import Storing
from tests.exact import Language
from tests.inference.test_mutations import assert_broken, plant

SCHEMES = {
    "systematic": Systematic(),
    "stratified": Stratified(),
    "multinomial": Multinomial(),
    "residual": Residual(),
    "residual-systematic": ResidualSystematic(),
    "ssp": SSP(),
    "tempered": Tempered(Systematic(), 2.0),
    "tempered ssp": Tempered(SSP(), 2.0),
}
CROSSED = ("systematic", "multinomial", "residual", "ssp", "tempered")  # with both moves
each_scheme = pytest.mark.parametrize("name", SCHEMES)
SHORT = Language.draw(seed=7, num_symbols=2, depth=2, stop=False)
LONG = Language.draw(seed=7, num_symbols=2, depth=3, stop=False)


def sure_end(language: Language) -> Language:
    """The last symbol becomes sure: its potential still depends on those before."""
    width = language.probs.shape[1]
    probs = language.probs.copy()
    probs[sum(width**length for length in range(language.depth - 1)) :] = [1.0, 0.0]
    return dataclasses.replace(language, probs=probs)


def thin() -> Language:
    """Three symbols, the last one sure."""
    return sure_end(LONG)


def law(scheme=None, threshold=0.9, moves=False, language=SHORT, num_particles=2) -> laws.LawReport:
    scheme = Systematic() if scheme is None else scheme
    gibbs = ParticleGibbs(
        num_particles, 1, ancestor_sampling=moves, resampler=scheme, ess_threshold=threshold
    )
    return laws.check_invariant(gibbs, language.process("odds"))


def assert_holds(report: laws.LawReport, *, adaptive: bool = True) -> None:
    assert report, str(report)
    if adaptive:  # the threshold fires in some replays and not in others
        assert min(report.branches["resampled"]) > 20, str(report)


# -------------------------------------------------------------------- the law holds


def test_posterior_is_invariant_with_adaptive_resampling() -> None:
    assert_holds(law())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "moves", "threshold"),
    [
        *((name, False, 0.9) for name in SCHEMES),
        *((name, moves, 0.9) for name in CROSSED for moves in ("exact", "metropolis")),
        ("systematic", "exact", 1.0),
        ("residual", "metropolis", 1.0),
    ],
)
def test_posterior_is_invariant_for_every_scheme_and_move(name, moves, threshold) -> None:
    report = law(SCHEMES[name], threshold, moves, thin())
    assert_holds(report, adaptive=threshold < 1)
    assert not moves or report.branches["ancestor_moved"][0] > 20


@pytest.mark.slow
@each_scheme
def test_posterior_is_invariant_with_three_particles_at_two_times(name) -> None:
    # Multinomial draws have most outcomes: its second symbol is sure, its potential is not.
    language = sure_end(SHORT) if name == "multinomial" else SHORT
    assert_holds(law(SCHEMES[name], language=language, num_particles=3))


@pytest.mark.slow
@pytest.mark.parametrize("moves", [False, "metropolis"])
def test_posterior_is_invariant_over_three_random_times(moves) -> None:
    assert_holds(law(moves=moves, language=LONG))


@pytest.mark.slow
@pytest.mark.parametrize("moves", [False, "exact", "metropolis"])
def test_posterior_is_invariant_where_paths_end_at_different_times(moves) -> None:
    ends = Language.draw(seed=7, num_symbols=1, depth=3, stop=True)
    report = law(moves=moves, language=ends, num_particles=3)
    assert report, str(report)


def test_a_single_particle_never_moves() -> None:
    report = law(num_particles=1)
    assert report and not report.branches["resampled"][0]


# -------------------------------------------------------------------- planted faults


@pytest.mark.parametrize(
    ("scheme", "moves"),
    [
        (Systematic, False),
        pytest.param(Systematic, "exact", marks=pytest.mark.slow),  # the move does not repair it
        pytest.param(Multinomial, False, marks=pytest.mark.slow),
    ],
)
def test_overwriting_a_slot_of_a_sorted_draw_breaks_invariance(scheme, moves, monkeypatch) -> None:
    """With two particles a random slot would hide it: the other one has the right law by itself."""

    def overwrite(self, key, log_weights, num_particles, pinned):
        ancestors = jnp.sort(self(key, log_weights, num_particles))
        return ancestors.at[0].set(pinned), jnp.int32(0)

    monkeypatch.setattr(scheme, "conditional", overwrite)
    assert_broken(law(scheme(), 1.0, moves, thin()), "invariant", 1e-4)


def test_a_path_drawn_uniformly_breaks_invariance(monkeypatch) -> None:
    plant(
        monkeypatch,
        ConditionalFilter,
        "draw",
        "random.categorical(key_pick, run.population.log_weights)",
        "random.categorical(key_pick, jnp.zeros_like(run.population.log_weights))",
    )
    assert_broken(law(), "invariant", 1e-2)


@pytest.mark.slow
def test_never_keeping_the_pinned_path_breaks_invariance(monkeypatch) -> None:
    plant(
        monkeypatch,
        ConditionalFilter,
        "draw",
        "random.categorical(key_pick, run.population.log_weights)",
        "random.categorical(key_pick, jnp.where(run.population.particles.pinned, -jnp.inf, 0.0)"
        " + run.population.log_weights)",
    )
    assert_broken(law(), "invariant", 1e-2)


def deciding_threshold(language: Language) -> float:
    """An ESS share at which three rows decide otherwise with the pinned one than without it.

    Halfway between the shares of two different free rows and of two equal ones, so that without
    the pinned row its potential plays no part; with it rows (a, b, b) are left alone.
    """
    a, b = sorted(np.exp(language.log_potentials("odds")[0]))
    threshold = ((a + b) ** 2 / (a**2 + b**2) + 2) / 6
    assert (a + b) ** 2 / (a**2 + b**2) < 3 * threshold < (a + 2 * b) ** 2 / (a**2 + 2 * b**2)
    return float(threshold)


@pytest.mark.slow
def test_a_decision_that_ignores_the_pinned_weight_breaks_invariance(monkeypatch) -> None:
    threshold = deciding_threshold(SHORT)
    report = law(threshold=threshold, num_particles=3)
    assert report, str(report)
    plant(
        monkeypatch,
        ConditionalFilter,
        "kernel",
        "ess_below(self.ess_threshold), resample",
        "lambda p: ess_below(self.ess_threshold)(eqx.tree_at(lambda q: q.log_weights, p, "
        "jnp.where(p.particles.pinned, -jnp.inf, p.log_weights))), resample",
    )
    assert_broken(law(threshold=threshold, num_particles=3), "invariant", 1e-5)


@pytest.mark.slow
def test_ancestors_without_their_weights_break_invariance(monkeypatch) -> None:
    fault = plant_move(monkeypatch, "exact", "population.log_weights + log_ratios", "log_ratios")
    assert_broken(fault(), "invariant", 1e-4)


@pytest.mark.slow
def test_the_markov_formula_on_a_path_dependent_process_breaks_invariance(monkeypatch) -> None:
    formula = "population.time + 1 if is_markov(process, inner) else process.num_steps"
    fault = plant_move(monkeypatch, "exact", formula, "population.time + 1")
    assert_broken(fault(), "invariant", 1e-4)


@pytest.mark.slow
def test_one_candidate_with_weights_in_the_ratio_breaks_invariance(monkeypatch) -> None:
    weight = "jnp.take_along_axis(population.log_weights, {}[..., None], -1)[..., 0]"
    fault = plant_move(
        monkeypatch,
        "metropolis",
        "rests[..., 1] - rests[..., 0]",
        f"rests[..., 1] - rests[..., 0] + {weight.format('candidate')} - {weight.format('slot')}",
    )
    assert_broken(fault(), "invariant", 1e-4)


def plant_move(monkeypatch, name, fragment, fault):
    plant(monkeypatch, ancestor, name, fragment, fault)
    monkeypatch.setitem(ancestor.MOVES, name, getattr(ancestor, name))
    return lambda: law(moves=name, language=thin(), threshold=1.0)


# -------------------------------------------------------------------- pinned paths


@pytest.mark.slow
def test_a_pinned_row_follows_its_path_whatever_is_resampled(key) -> None:
    process = LONG.process("odds")
    path = jnp.array([1, 0, 1], jnp.int32)
    gibbs = ConditionalFilter(8, ess_threshold=1.0)
    keys = jax.random.split(key, 50)
    _, run, _ = jax.vmap(lambda k: gibbs.draw(k, path, process))(keys)
    number = 0
    for symbol in path.tolist():
        number = number * 2 + symbol + 1
    assert bool(jnp.all(jnp.any(run.population.particles.prefix == number, axis=1)))


def test_the_density_of_a_path_is_its_mass() -> None:
    process = LONG.process("odds")
    for string, mass in LONG.masses("odds").items():
        replayed = replay_path(process, jnp.array(string, jnp.int32))
        np.testing.assert_allclose(replayed.log_density, np.log(mass), rtol=1e-5)


@pytest.mark.slow
def test_stored_particles_stand_in_for_replay() -> None:
    """Pinning needs no density: the same law from stored increments."""
    storing = Storing(process=SHORT.process("odds"))
    report = laws.check_invariant(ParticleGibbs(2, 1, ess_threshold=0.9), storing)
    assert_holds(report)


def test_key_reuse_is_checked(key, key_reuse) -> None:
    gibbs = ConditionalFilter(4, ess_threshold=1.0, ancestor_sampling="metropolis")
    sweep = jax.jit(lambda k, path: gibbs.sweep(k, path, LONG.process("odds")))
    path = sweep(key, jnp.array([1, 0, 1], jnp.int32))
    assert path.shape == (3,)


def test_markov_states_are_recognised(key) -> None:
    from jurax.models.state_space import LinearGaussian

    walk = LinearGaussian.simulate(key, num_steps=3)
    particles, _ = walk.init(key, 2)
    assert ancestor.is_markov(Pinned(process=walk, path=jnp.zeros((4, 1))), particles)  # type: ignore[call-arg]
    language = LONG.process("odds")
    prefixes, _ = language.init(key, 2)
    path = jnp.zeros(3, jnp.int32)
    assert not ancestor.is_markov(Pinned(process=language, path=path), prefixes)  # type: ignore[call-arg]
