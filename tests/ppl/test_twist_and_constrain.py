"""`twist` leaves the target alone; `constrain` conditions on a language: by enumeration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jurax.inference import ParticleFilter, infer
from jurax.models.state_space import HiddenMarkovModel
from jurax.ppl import Automaton, constrain, laws, temper, tilt, twist
from jurax.ppl.combinators.constrain import Constrained
from jurax.ppl.combinators.twist import Twisted
from tests.exact import Language, Prefixes
from tests.inference.test_mutations import assert_broken, plant

pytestmark = pytest.mark.usefixtures("x64")
LANGUAGE = Language.draw(seed=7, num_symbols=2, depth=3, stop=True)
FILTER = ParticleFilter(num_particles=2, ess_threshold=0.9)


def some_twist(particles: Prefixes, t):
    """Depends on the whole prefix, and is far from 1 at the end."""
    return jnp.sin(3.0 * particles.prefix) - 0.5


# -------------------------------------------------------------------- twist


@pytest.mark.slow
def test_a_twisted_language_has_the_same_masses() -> None:
    """Strings end at different steps, and some at num_steps."""
    for num_steps in (2, 1):
        process = LANGUAGE.process("odds", num_steps=num_steps)
        masses = laws.enumerate_process(twist(process, some_twist)).masses
        assert masses == pytest.approx(laws.enumerate_process(process).masses, abs=1e-12)


def test_a_filter_on_a_twisted_language_is_unbiased() -> None:
    report = laws.check_unbiased(FILTER, twist(LANGUAGE.process("odds"), some_twist))
    assert report, str(report)
    assert min(report.branches["resampled"]) > 20, str(report)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fragment", "fault"),
    [
        ("jnp.where(self.ended(inner, t), 0.0, log_twist)", "log_twist"),  # never removed
        ("jnp.where(jnp.isneginf(before), 0.0, before)", "0.0"),  # not a ratio
    ],
)
def test_a_twist_that_stays_in_the_target_is_seen(monkeypatch, fragment: str, fault: str) -> None:
    plant(monkeypatch, Twisted, "weigh", fragment, fault)
    process = LANGUAGE.process("odds")
    exact = laws.enumerate_process(process)
    report = laws.check_unbiased(FILTER, twist(process, some_twist), exact=exact)
    assert_broken(report, "unbiased", at_least=1e-2)


def test_twists_tilts_and_powers_combine() -> None:
    def potential(particles: Prefixes, t):
        return -0.3 * particles.symbol.astype(float)

    plain = temper(tilt(LANGUAGE.process("odds"), potential), 0.5)
    twisted = temper(twist(tilt(LANGUAGE.process("odds"), potential), some_twist), 0.5)
    expected = laws.enumerate_process(plain).masses
    assert laws.enumerate_process(twisted).masses == pytest.approx(expected, abs=1e-12)
    assert twisted.target == plain.target


# -------------------------------------------------------------------- constrain

# Words over {0, 1, 2} without two equal symbols in a row, that contain a 2 (which ends a string).
NO_REPEATS = [[1, 2, 5], [-1, 2, 5], [1, -1, 5], [3, 3, 3], [4, 4, 4], [3, 3, 3]]
CONTAINS_TWO = [False, False, False, False, False, True]


def in_language(string: tuple[int, ...]) -> bool:
    return 2 in string and all(a != b for a, b in itertools.pairwise(string))


def automaton() -> Automaton:
    return Automaton(NO_REPEATS, CONTAINS_TWO)


def test_the_automaton_reads_words() -> None:
    for length in range(1, 5):
        for word in itertools.product(range(3), repeat=length):
            if 2 not in word[:-1]:
                assert automaton().run(list(word)) == in_language(word), word
    # States from which no word can be completed are dead at once.
    assert automaton().moves[5].tolist() == [-1, -1, -1]


def test_a_constrained_language_is_the_language_given_the_words() -> None:
    process = constrain(LANGUAGE.process("odds"), automaton())
    masses = LANGUAGE.masses("odds")
    kept = {string: mass for string, mass in masses.items() if in_language(string)}
    exact = laws.enumerate_process(process)
    assert exact.masses == pytest.approx(kept, abs=1e-12)
    assert 1 < len(kept) < len(masses)
    report = laws.check_unbiased(FILTER, process, exact=exact)
    assert report, str(report)


def test_words_that_may_not_end_are_seen(monkeypatch) -> None:
    plant(monkeypatch, Constrained, "weigh", "(extra >= 0) & accepted", "extra >= 0")
    process = constrain(LANGUAGE.process("odds"), automaton())
    wrong = laws.enumerate_process(process).masses
    assert any(not in_language(string) for string in wrong)


@pytest.mark.slow
def test_a_bigram_under_an_automaton_has_the_evidence_of_the_product_chain(key) -> None:
    """Backward recursion on pairs (symbol, state), as for regular constraints of a bigram."""
    hmm = HiddenMarkovModel.simulate(jax.random.key(2), num_steps=5)
    moves, accepting = np.array([[0, 1, -1], [1, 0, 1]]), np.array([False, True])
    weight = np.asarray(hmm.emission_matrix)[:, np.asarray(hmm.observations)].T
    future = np.tile(accepting[None].astype(float), (3, 1))  # (symbol, state)
    for t in range(hmm.num_steps, 0, -1):
        arrive = np.zeros((3, 2))
        for z, s in itertools.product(range(3), range(2)):
            if moves[s, z] >= 0:
                arrive[z, s] = weight[t - 1, z] * future[z, moves[s, z]]
        future = np.asarray(hmm.transition_matrix) @ arrive
    first = [future[z, moves[0, z]] if moves[0, z] >= 0 else 0.0 for z in range(3)]
    exact = np.log(np.asarray(hmm.initial) @ np.array(first))
    process = constrain(hmm, Automaton(moves, accepting))
    posterior = infer(key, process, ParticleFilter(num_particles=20_000))
    assert float(posterior.log_evidence) == pytest.approx(exact, abs=0.05)
    # Moves have densities, so that the other combinators and smoothers may go on top.
    particles, _ = process.init(key, 3)
    moved, increments, log_probs = process.replay(particles, jnp.array([0, 1, 2]), 1)
    expected = jnp.log(hmm.transition_matrix[particles.inner, jnp.array([0, 1, 2])])
    np.testing.assert_allclose(log_probs, expected, atol=1e-12)
    assert moved.extra.shape == increments.shape == (3,)


def test_a_predicate_on_prefixes() -> None:
    process = constrain(LANGUAGE.process("odds"), lambda particles, t: particles.prefix % 5 != 1)

    def allowed(string: tuple[int, ...]) -> bool:
        prefix = 0
        for symbol in string:
            prefix = prefix * 3 + symbol + 1
            if prefix % 5 == 1:
                return False
        return True

    masses = LANGUAGE.masses("odds")
    kept = {string: mass for string, mass in masses.items() if allowed(string)}
    assert laws.enumerate_process(process).masses == pytest.approx(kept, abs=1e-12)
    assert 1 < len(kept) < len(masses)


def test_an_impossible_constraint_is_a_dead_population(key) -> None:
    process = constrain(LANGUAGE.process("odds"), lambda particles, t: particles.prefix < 0)
    posterior = infer(key, process, ParticleFilter(num_particles=4))
    assert posterior.status.startswith("dead") and float(posterior.log_evidence) == -np.inf


def test_bad_constraints_are_refused(key) -> None:
    with pytest.raises(TypeError, match="Automaton or a predicate"):
        constrain(LANGUAGE.process("odds"), 3)  # pyright: ignore
    with pytest.raises(ValueError, match="accepting one flag for each state"):
        Automaton([[0, 1], [1, 0]], [True])
    with pytest.raises(ValueError, match=r"must lie in -1\.\.1"):
        Automaton([[0, 2], [1, 0]], [True, False])
    process = tilt(LANGUAGE.process("odds"), lambda particles, t: jnp.zeros(particles.prefix.shape))
    unread = constrain(Unreadable(process), automaton())
    with pytest.raises(TypeError, match="say how to read them"):
        unread.init(key, 2)


class Unreadable(Twisted):
    """Records that are no symbols."""

    def __init__(self, process):
        self.process, self.log_twist = process, lambda particles, t: jnp.zeros(2)

    def record(self, particles, t):
        return {"text": jnp.zeros(2)}
