"""The checks themselves: against plain sums, on laws that hold, on laws that are broken."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from jurax.inference import (
    AbstractKernel,
    Extend,
    ImportanceSampling,
    Multinomial,
    ParticleFilter,
    Resample,
    Residual,
    Stratified,
    Systematic,
    ess_below,
    repeat,
    when,
)
from jurax.models.state_space import HiddenMarkovModel
from jurax.ppl import AbstractProcess, Population, StateSpaceModel, laws, random
from jurax.ppl.walk import Walk
from tests.exact import REWARD_TARGETS, Language, RewardTarget, normalize

SCHEMES = [Systematic(), Stratified(), Multinomial(), Residual()]
pytestmark = pytest.mark.usefixtures("x64")


def small_language(stop: bool = True) -> Language:
    return Language.draw(seed=1, num_symbols=2, depth=2, stop=stop)


def two_coins() -> StateSpaceModel:
    return StateSpaceModel(
        initial=dist.Bernoulli(0.5),
        transition=lambda state, t: dist.Bernoulli(jnp.where(state == 1, 0.75, 0.25)),
        potential=lambda state, t: jnp.where(state == 1, -1.0, 0.0),
        num_steps=1,
    )


# -------------------------------------------------------------------- exact posteriors


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize("reward_target", REWARD_TARGETS)
def test_enumeration_equals_plain_sums(reward_target: RewardTarget, stop: bool) -> None:
    language = Language.draw(seed=3, num_symbols=2, depth=3, stop=stop)
    masses = language.masses(reward_target, 0.7)
    exact = laws.enumerate_process(language.process(reward_target, 0.7))
    assert len(masses) == (14 if stop else 8)
    assert exact.masses == pytest.approx(masses, rel=1e-12)
    assert exact.log_evidence == pytest.approx(np.log(sum(masses.values())), abs=1e-12)
    assert exact.probabilities.sum() == pytest.approx(1, abs=1e-14)
    assert all(np.diff(exact.probabilities) <= 0)


def test_strings_that_are_cut_stay_in_the_target() -> None:
    language = Language.draw(seed=3, num_symbols=2, depth=4, stop=True)
    for reward_target in REWARD_TARGETS:
        masses = language.masses(reward_target, num_steps=1)
        exact = laws.enumerate_process(language.process(reward_target, num_steps=1))
        assert exact.masses == pytest.approx(masses, rel=1e-12)


def test_paths_of_mass_zero_are_left_out() -> None:
    language = small_language()
    language.rewards[1] = 0.0  # every continuation of the first symbol is impossible
    exact = laws.enumerate_process(language.process("odds"))
    assert all(path[0] == 1 for path in exact.paths)
    kept = {s: m for s, m in language.masses("odds").items() if m > 0}
    assert exact.masses == pytest.approx(kept, rel=1e-12)


def test_a_process_without_mass_has_no_posterior() -> None:
    language = small_language()
    language.rewards[:] = 0.0
    exact = laws.enumerate_process(language.process("emission"))
    assert exact.paths == [] and exact.log_evidence == -np.inf


def test_a_hidden_markov_model_has_the_evidence_of_its_forward_recursion() -> None:
    model = HiddenMarkovModel(
        observations=jnp.array([0, 1, 1]),
        initial=jnp.array([0.3, 0.7]),
        transition_matrix=jnp.array([[0.9, 0.1], [0.4, 0.6]]),
        emission_matrix=jnp.array([[0.8, 0.2], [0.25, 0.75]]),
    )
    exact = laws.enumerate_process(model)
    assert exact.log_evidence == pytest.approx(float(model.log_evidence()), abs=1e-12)
    assert len(exact.paths) == 2**4
    last = exact.distribution(lambda path: path[-1])
    expected = model.smoothed().smoothed[-1]
    assert [last[0], last[1]] == pytest.approx(expected.tolist(), abs=1e-12)


def test_double_precision_needs_no_setting() -> None:
    with jax.enable_x64(False):
        language = small_language()
        exact = laws.enumerate_process(language.process("odds"))
        report = laws.check_unbiased(ParticleFilter(num_particles=2), language.process("odds"))
        assert exact.log_evidence == pytest.approx(
            np.log(sum(language.masses("odds").values())), abs=1e-6
        )
        assert report and report.max_error < 1e-14


# -------------------------------------------------------------------- laws that hold


@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
@pytest.mark.parametrize("num_particles", [None, 2, 4])
def test_resampling_preserves_every_population(scheme, num_particles: int | None) -> None:
    process = small_language().process("odds")
    particles, _ = process.init(jax.random.key(0), 3)
    particles = eqx.tree_at(lambda p: p.prefix, particles, jnp.array([1, 2, 2]))
    population = Population.start(particles, jnp.log(jnp.array([0.2, 0.9, 0.3])))
    population = eqx.tree_at(lambda p: p.log_evidence, population, jnp.array(0.7))
    report = laws.check_preserving(Resample(scheme, num_particles), process, population)
    assert report, str(report)
    assert report.num_replays > 1


@pytest.mark.parametrize(
    "kernel",
    [
        Extend(),
        Resample(Stratified()) >> Extend(),
        when(ess_below(0.9), Resample()) >> Extend(),
        repeat(when(ess_below(0.9), Resample(Residual())) >> Extend()),
    ],
    ids=["extend", "resample-extend", "when", "repeat"],
)
def test_extensions_advance_every_population(kernel: AbstractKernel) -> None:
    process = Language.draw(seed=1, num_symbols=2, depth=3, stop=True).process("value")
    particles, _ = process.init(jax.random.key(5), 2)
    population = Population.start(particles, jnp.log(jnp.array([0.3, 0.9])))
    report = laws.check_advancing(kernel, process, population)
    assert report, str(report)


def test_finished_and_dead_rows_are_not_advanced() -> None:
    process = Language.draw(seed=1, num_symbols=2, depth=3, stop=True).process("odds")
    particles, _ = process.init(jax.random.key(5), 3)
    particles = eqx.tree_at(lambda p: p.done, particles, jnp.array([True, False, False]))
    population = Population.start(particles, jnp.log(jnp.array([0.5, 0.0, 0.25])))
    report = laws.check_advancing(Extend(), process, population)
    assert report, str(report)


def test_filters_are_unbiased_on_every_kind_of_process() -> None:
    # Distributions drawn by lanes; one key for each particle under `vmap`; a key array.
    algorithm = ParticleFilter(num_particles=2, ess_threshold=1.0)
    for process in (two_coins(), Wanderer(num_steps=1)):
        report = laws.check_unbiased(algorithm, process)
        assert report, str(report)
        assert min(report.branches["resampled"]) > 0


@pytest.mark.parametrize(
    "algorithm",
    [
        ParticleFilter(num_particles=2, ess_threshold=1.0, history=False),
        ImportanceSampling(num_particles=2, history=True),
    ],
    ids=["no history", "importance"],
)
def test_histories_and_resampling_are_optional(algorithm) -> None:
    report = laws.check_unbiased(algorithm, two_coins())
    assert report, str(report)


class Wanderer(AbstractProcess):
    """One key for each particle under `vmap`, a key array, and a record of several leaves."""

    num_steps: int = eqx.field(static=True)
    target: str = eqx.field(static=True, default="a walk")

    def init(self, key, num_particles):
        keys = random.split(key, num_particles)
        side = jax.vmap(lambda key: random.bernoulli(key, 0.25))(keys)
        return {"place": side.astype(jnp.int32)}, jnp.where(side, -0.5, 0.0)

    def extend(self, key, particles, t):
        keys = random.split(key, particles["place"].shape[0])
        place = particles["place"] + random.bernoulli(keys, 0.5)
        return {"place": place}, -0.3 * place * t

    def record(self, particles, t):
        return {"place": particles["place"], "energy": 0.1 * particles["place"]}


def test_invariance_of_an_exact_and_of_a_wrong_sweep() -> None:
    process = two_coins()
    report = laws.check_invariant(Redraw(process, tilt=0.0), process)
    assert report and report.max_error < 1e-14, str(report)
    report = laws.check_invariant(Redraw(process, tilt=0.1), process)
    assert not report and report.law.startswith("invariant") and report.max_error > 1e-3


class Redraw(eqx.Module):
    """Redraw the last state from its full conditional: a Gibbs sweep."""

    process: StateSpaceModel
    tilt: float

    def sweep(self, key, path, process):
        states = jnp.array([0, 1])
        logits = self.process.transition(path[0], 1).log_prob(states)
        logits = logits + jax.vmap(lambda s: self.process.potential(s, 1))(states)
        last = random.categorical(key, logits + self.tilt * states)
        return path.at[1].set(last.astype(path.dtype))


def test_a_program_is_enumerated_too() -> None:
    # Bayes: P(first = 1 | data) from a StateSpaceModel whose parts are samplers of this package.
    process = StateSpaceModel(
        initial=lambda key: random.categorical(key, jnp.log(jnp.array([0.2, 0.8]))),
        transition=lambda key, state, t: random.bernoulli(key, 0.5).astype(state.dtype),
        potential=lambda state, t: jnp.where(t == 0, jnp.where(state == 1, -1.0, 0.0), 0.0),
        num_steps=1,
    )
    first = laws.enumerate_process(process).distribution(lambda path: path[0])
    expected = normalize({(0,): 0.2, (1,): 0.8 * np.exp(-1)})
    assert first == pytest.approx({0: expected[0,], 1: expected[1,]}, abs=1e-12)
    report = laws.check_unbiased(ParticleFilter(num_particles=2, ess_threshold=1.0), process)
    assert report, str(report)


# -------------------------------------------------------------------- laws that are broken


class Twice(AbstractKernel):
    """A resampling that forgets to reset the weights."""

    def step(self, key, population, process):
        resampled, info = Resample().step(key, population, process)
        return eqx.tree_at(lambda p: p.log_weights, resampled, population.log_weights), info


def test_a_broken_law_is_reported_with_its_size_and_place() -> None:
    process = two_coins()
    population = Population.start(jnp.array([0, 1]), jnp.log(jnp.array([0.3, 0.9])))
    report = laws.check_preserving(Twice(), process, population)
    assert not report and not report.passed
    assert report.law.startswith("preserving") and report.function in ("0", "1")
    # E[new mass] of state 1: mean weight .6 times E of the sum of kept weights at copies of 1.
    assert report.max_error > 0.1
    assert "BROKEN" in str(report) and "preserving" in str(report)


def test_total_evidence_is_checked_also_for_particles_of_weight_zero() -> None:
    class Liar(eqx.Module):
        """Reports twice the evidence and half of the weight on paths that do not exist."""

        def run(self, key, process):
            posterior = ImportanceSampling(num_particles=2).run(key, process)
            return eqx.tree_at(
                lambda p: p.log_evidence, posterior, posterior.log_evidence + jnp.log(2.0)
            )

    report = laws.check_unbiased(Liar(), two_coins())
    assert not report and report.max_error > 0.1


def test_wrong_genealogy_is_seen() -> None:
    class Misfiled(eqx.Module):
        """Right particles and weights, wrong ancestors in the history."""

        def run(self, key, process):
            posterior = ParticleFilter(num_particles=2, ess_threshold=1.0).run(key, process)
            ancestors = posterior.history.ancestors[:, ::-1]
            return eqx.tree_at(lambda p: p.history.ancestors, posterior, ancestors)

    report = laws.check_unbiased(Misfiled(), two_coins())
    assert not report and report.law.startswith("genealogy")


@pytest.mark.parametrize(
    ("draws", "words"),
    [
        (lambda k: random.bernoulli(k) + random.bernoulli(k), "use the same key"),
        (lambda k: random.bernoulli(k) + random.bernoulli(random.fold_in(k, 3)), "derived from"),
        (lambda k: random.bernoulli(random.split(k)[1]) + random.bernoulli(k), "derived from"),
        (
            lambda k: jax.vmap(lambda p: random.bernoulli(k, p))(jnp.array([0.3, 0.4])),
            "use the same key",
        ),
        (
            lambda k: random.bernoulli(random.fold_in(k, 1)) + random.bernoulli(random.split(k)[1]),
            "use the same key",
        ),
    ],
    ids=["twice", "folded after", "split before", "shared by lanes", "fold and split agree"],
)
def test_misused_keys_are_seen(draws, words: str) -> None:
    walk = Walk(draws)
    walk.run(lambda probability, result: None)
    assert walk.key_fault is not None and words in walk.key_fault


def test_keys_used_well_are_not_reported() -> None:
    def draws(key):
        first, second = random.split(key)
        loop = jax.lax.fori_loop(
            0, 3, lambda t, x: x + random.bernoulli(random.fold_in(first, t)), 0
        )
        return loop + random.bernoulli(random.split(second, 2), 0.3).sum()

    walk = Walk(draws)
    walk.run(lambda probability, result: None)
    assert walk.key_fault is None and walk.num_replays == 2**5


# -------------------------------------------------------------------- walking


def test_branches_and_loops_are_walked_as_they_are() -> None:
    """A geometric variable cut at 3, by a while_loop with a conditional inside."""

    def draws(key):
        def body(state):
            n, _ = state
            more = random.bernoulli(random.fold_in(key, n), 0.25)
            extra = jax.lax.cond(
                more & (n == 1),
                lambda: random.categorical(random.fold_in(key, 100 + n), jnp.zeros(3)),
                lambda: jnp.int32(0),
            )
            return n + 1, more & (extra < 2)

        return jax.lax.while_loop(lambda s: s[1] & (s[0] < 3), body, (0, True))[0]

    law: dict[int, float] = {}

    def visit(probability, n):
        law[int(n)] = law.get(int(n), 0.0) + probability

    Walk(draws).run(visit)
    third = 0.25 * 0.25 * 2 / 3
    assert law == pytest.approx({1: 0.75, 2: 0.25 - third, 3: third}, abs=1e-14)


def test_nested_jit_is_traced_anew() -> None:
    @jax.jit
    def flip(key):
        return random.bernoulli(key, 0.25)

    flip(jax.random.key(0))  # fills the cache with a trace that draws bits
    chances = []
    Walk(flip).run(lambda probability, heads: chances.append((probability, bool(heads))))
    assert chances == [(0.75, False), (0.25, True)]
    assert flip(jax.random.key(0)).dtype == bool  # and the oracle has left no trace behind


def test_impossible_outcomes_are_skipped() -> None:
    seen = []
    Walk(lambda key: random.categorical(key, jnp.array([0.0, -jnp.inf, 0.0]))).run(
        lambda probability, k: seen.append((probability, int(k)))
    )
    assert seen == [(0.5, 0), (0.5, 2)]


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda key: random.normal(key), "continuous"),
        (lambda key: random.uniform(key), "breaks"),
        (lambda key: jax.random.bernoulli(key), "bypasses"),
        (lambda key: random.categorical(key, jnp.array([0.0, jnp.nan])), "do not sum to 1"),
        (lambda key: random.bernoulli(key, 1.5), "do not sum to 1"),
    ],
)
def test_draws_that_cannot_be_enumerated_are_refused(draw, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Walk(draw).run(lambda probability, result: None)


def test_continuous_processes_are_refused_by_name() -> None:
    process = StateSpaceModel(
        dist.Normal(0.0, 1.0), lambda x, t: dist.Normal(x, 1.0), lambda x, t: 0.0 * x, 1
    )
    with pytest.raises(ValueError, match="Normal has infinitely many outcomes"):
        laws.enumerate_process(process)


def test_too_many_replays_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jurax.ppl.walk.MAX_REPLAYS", 10)
    with pytest.raises(ValueError, match="fewer particles"):
        Walk(lambda key: random.bernoulli(key, 0.5, (5,))).run(lambda probability, result: None)


def test_single_precision_is_refused_with_its_remedy() -> None:
    with jax.enable_x64(False):
        weight = jnp.array(0.3)  # captured by a function: laws cannot widen it

        def potential(state, t):
            return (state * weight).astype(jnp.float32)

        process = StateSpaceModel(
            dist.Bernoulli(0.5), lambda x, t: dist.Bernoulli(0.5), potential, 1
        )
        process = Narrow(process)
        with pytest.raises(ValueError, match="single precision"):
            laws.check_unbiased(ImportanceSampling(num_particles=2), process)
        assert laws.check_unbiased(ImportanceSampling(num_particles=2), process, tolerance=1e-5)


class Narrow(AbstractProcess):
    """A process that computes in float32 whatever the setting."""

    inner: StateSpaceModel
    num_steps: int = eqx.field(static=True, default=1)
    target: str = eqx.field(static=True, default="narrow")

    def init(self, key, num_particles):
        particles, log_weights = self.inner.init(key, num_particles)
        return particles, log_weights.astype(jnp.float32)

    def extend(self, key, particles, t):
        particles, increments = self.inner.extend(key, particles, t)
        return particles, increments.astype(jnp.float32)


def test_algorithms_without_a_sweep_are_refused_by_name() -> None:
    with pytest.raises(NotImplementedError, match="ParticleFilter has no `sweep"):
        laws.check_invariant(ParticleFilter(num_particles=2), two_coins())
