"""`propose` keeps the target of the process: by enumeration and against Kalman."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jaxtyping import Array

from jurax.inference import Multinomial, ParticleFilter, infer
from jurax.models.state_space import HiddenMarkovModel, LinearGaussian
from jurax.ppl import (
    AbstractProcess,
    Proposal,
    StateSpaceModel,
    laws,
    propose,
    random,
    temper,
    tilt,
    twist,
)
from jurax.ppl.combinators.propose import Proposed
from tests.exact import Language
from tests.inference.test_mutations import assert_broken, plant
from tests.statistics import assert_unbiased_evidence


def model(num_steps: int = 2) -> HiddenMarkovModel:
    return HiddenMarkovModel(
        observations=jnp.array([0, 1, 1])[:num_steps],
        initial=jnp.array([0.6, 0.4]),
        transition_matrix=jnp.array([[0.7, 0.3], [0.2, 0.8]]),
        emission_matrix=jnp.array([[0.9, 0.1], [0.3, 0.7]]),
    )


def flat(state, t) -> dist.Distribution:
    """A poor proposal that depends on state and time."""
    return dist.CategoricalProbs(
        jnp.where((state + t) % 2, jnp.array([0.4, 0.6]), jnp.full(2, 0.5))
    )


PROPOSALS = {
    "transition": Proposal(transition=flat),
    "both": Proposal(transition=flat, initial=dist.CategoricalProbs(jnp.array([0.25, 0.75]))),
}


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["both", pytest.param("transition", marks=pytest.mark.slow)])
def test_every_path_is_unbiased_under_a_proposal(name: str) -> None:
    exact = laws.enumerate_process(model())
    assert exact.log_evidence == pytest.approx(float(model().log_evidence()), abs=1e-10)
    guided = propose(model(), PROPOSALS[name])
    assert laws.enumerate_process(guided).masses == pytest.approx(exact.masses, abs=1e-12)
    algorithm = ParticleFilter(num_particles=2, ess_threshold=0.9)
    report = laws.check_unbiased(algorithm, guided, exact=exact)
    assert report, str(report)
    assert min(report.branches["resampled"]) > 10, str(report)


@pytest.mark.usefixtures("x64")
def test_a_proposal_without_its_correction_breaks_the_law(monkeypatch) -> None:
    plant(monkeypatch, Proposed, "_corrected", "log_probs - log_proposed", "log_probs")
    algorithm = ParticleFilter(num_particles=2, ess_threshold=0.9)
    exact = laws.enumerate_process(model())
    report = laws.check_unbiased(algorithm, propose(model(), PROPOSALS["both"]), exact=exact)
    assert_broken(report, "unbiased", at_least=1e-2)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_replay_gives_the_same_mass_of_a_move_as_the_process() -> None:
    guided, plain = propose(model(), PROPOSALS["both"]), model()
    states = jnp.array([0, 1, 1])
    for before, t in ((None, 0), (jnp.array([1, 0, 1]), 2)):
        _, increments, log_probs = guided.replay(before, states, t)
        _, plain_increments, plain_log_probs = plain.replay(before, states, t)
        total = plain_increments + plain_log_probs
        np.testing.assert_allclose(increments + log_probs, total, atol=1e-12)
        assert not np.allclose(log_probs, plain_log_probs)


@pytest.mark.usefixtures("x64")
def test_replay_of_a_move_that_is_never_proposed_has_no_mass(monkeypatch) -> None:
    """Backward sampling weighs such pairs; NaN there was chosen every time."""
    moves = jnp.array([[1.0, 0.0], [0.5, 0.5]])
    sparse = HiddenMarkovModel(model().observations, model().initial, moves, jnp.eye(2))
    guided = propose(
        sparse, Proposal(transition=lambda state, t: dist.CategoricalProbs(moves[state]))
    )

    def mass(before: int, after: int) -> float:
        _, increments, log_probs = guided.replay(jnp.array([before]), jnp.array([after]), 1)
        return float(jnp.exp(increments + log_probs)[0])

    assert [mass(0, 0), mass(0, 1), mass(1, 0), mass(1, 1)] == pytest.approx([1, 0, 0.5, 0])
    plant(
        monkeypatch, Proposed, "replay",
        "jnp.where(jnp.isneginf(log_proposed), -jnp.inf, log_increments)", "log_increments",
    )  # fmt: skip
    assert np.isnan(mass(0, 1))


@pytest.mark.slow
def test_the_optimal_weight_does_not_depend_on_the_draw(key: Array) -> None:
    series = LinearGaussian.simulate(jax.random.key(3), num_steps=3, num_states=2)
    guided = propose(series, series.optimal_proposal())
    before = jnp.broadcast_to(jnp.array([0.3, -0.2]), (6, 2))
    moved, increments = guided.extend(key, before, 1)
    assert float(jnp.ptp(increments)) < 1e-4 and float(jnp.ptp(moved[:, 0])) > 0.1
    predictive = dist.MultivariateNormal(
        series.transition_matrix @ before[0], jnp.eye(2) * 2.0
    ).log_prob(series.observations[0])
    assert float(increments[0]) == pytest.approx(float(predictive), abs=1e-4)


@pytest.mark.slow
def test_ten_dimensions_agree_with_kalman(key: Array) -> None:
    """A bootstrap filter is off by many nats here; the optimal proposal is not."""
    series = LinearGaussian.simulate(jax.random.key(1), num_steps=20, num_states=10)
    guided = propose(series, series.optimal_proposal())
    algorithm = ParticleFilter(num_particles=1_000, history=False)
    run = jax.jit(lambda key: infer(key, guided, algorithm).log_evidence)
    estimates = np.array([run(k) for k in jax.random.split(key, 24)])
    assert_unbiased_evidence(estimates, series.log_evidence(), largest_deviation=2.0)


@pytest.mark.slow
def test_ten_dimensions_with_ten_thousand_particles_within_four_standard_errors(key: Array) -> None:
    series = LinearGaussian.simulate(jax.random.key(1), num_steps=20, num_states=10)
    guided = propose(series, series.optimal_proposal())
    algorithm = ParticleFilter(num_particles=10_000, history=False)
    run = jax.jit(lambda key: infer(key, guided, algorithm).log_evidence)
    estimates = np.array([run(k) for k in jax.random.split(key, 30)])
    assert estimates.std(ddof=1) <= 0.6
    assert_unbiased_evidence(estimates, series.log_evidence(), limit=4.0)


@pytest.mark.slow
def test_a_program_is_guided_by_site_names(key: Array) -> None:
    series = LinearGaussian.simulate(jax.random.key(2), num_steps=8)
    optimal = series.optimal_proposal().transition
    by_name = Proposal(transition=lambda particle, t: {"x": optimal(particle.carry, t)})
    process = series.program().process()
    posterior = infer(key, propose(process, by_name), ParticleFilter(num_particles=4000))
    assert float(posterior.log_evidence) == pytest.approx(float(series.log_evidence()), abs=0.1)
    assert posterior.trajectories()["x"].shape == (4000, 8, 1)


def test_temper_refuses_a_proposal_inside() -> None:
    guided = propose(model(), PROPOSALS["transition"])
    for process in (guided, tilt(guided, lambda states, t: 0.1 * states)):
        with pytest.raises(ValueError, match="propose outermost"):
            temper(process, 0.5)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_tempered_process_may_be_guided() -> None:
    tempered = temper(model(), 0.5)
    guided = propose(tempered, PROPOSALS["transition"])
    expected = laws.enumerate_process(tempered).masses
    assert laws.enumerate_process(guided).masses == pytest.approx(expected, abs=1e-12)


def test_a_process_without_densities_is_refused_by_name(monkeypatch) -> None:
    language = Language.draw(seed=1, num_symbols=2, depth=2, stop=True).process("odds")
    monkeypatch.setattr(type(language), "replay", AbstractProcess.replay)
    with pytest.raises(NotImplementedError, match="PrefixProcess does not define `replay`"):
        propose(language, PROPOSALS["transition"])
    sampler = StateSpaceModel(
        initial=lambda key: random.normal(key),
        transition=lambda key, state, t: state + random.normal(key),
        potential=lambda state, t: 0.0,
        num_steps=1,
    )
    guided = propose(sampler, Proposal(transition=lambda state, t: dist.Normal(state, 1.0)))
    with pytest.raises(NotImplementedError, match="samplers have no density"):
        infer(jax.random.key(0), guided, ParticleFilter(num_particles=2))


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_exact_twist_with_its_proposal_leaves_no_variance(key: Array) -> None:
    """Zhat = Z for every N and key: the twist is log p(y_{t+1:T} | z_t)."""
    hmm = HiddenMarkovModel.simulate(jax.random.key(4), num_steps=6)
    exact = hmm.smoothed()
    log_future = jnp.log(exact.smoothed) - jnp.log(exact.filtered)  # up to a constant for each t
    moves, emissions = jnp.log(hmm.transition_matrix), jnp.log(hmm.emission_matrix)

    def transition(state: Array, t: Array) -> dist.Distribution:
        symbol = hmm.observations[t - 1]
        return dist.CategoricalLogits(moves[state] + emissions[:, symbol] + log_future[t])

    twisted = twist(hmm, lambda states, t: log_future[t][states])
    proposal = Proposal(transition, dist.CategoricalProbs(exact.smoothed[0]))
    guided = propose(twisted, proposal)
    for num_particles in (1, 7):
        algorithm = ParticleFilter(num_particles, Multinomial(), ess_threshold=0.5)
        posterior = infer(key, guided, algorithm)
        assert float(posterior.log_evidence) == pytest.approx(float(exact.log_evidence), abs=1e-9)
        assert float(jnp.ptp(posterior.log_weights)) < 1e-9
