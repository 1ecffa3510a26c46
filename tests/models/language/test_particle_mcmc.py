"""Language processes under particle MCMC: `Reasoning.replay`, exact laws by enumeration, samplers.

The languages of `tests.exact` as language models are path-dependent: the potential of a step
depends on the whole prefix, so a rest of a text that is joined to another past is scored anew.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from jurax.inference import (
    PIMH,
    PMMH,
    Independence,
    ParallelTempering,
    ParticleFilter,
    ParticleGibbs,
    infer,
)
from jurax.models.language import Reasoning, load_default, regchain
from jurax.models.language.model import AbstractLanguageModel
from jurax.models.language.noisy_executor import NoisyExecutor
from jurax.models.language.programs import EXAMPLE
from jurax.ppl import laws
from jurax.ppl.family import family
from jurax.ppl.pinned import replay_path
from jurax.ppl.storing import can_replay
from tests.exact import Language, normalize
from tests.models.language.test_reasoning import toy
from tests.statistics import assert_mean, total_variation

REWARD_TARGETS = ["emission", "odds", "value"]
STOPS = Language.draw(5, num_symbols=1, depth=3, stop=True)
FULL = Language.draw(7, num_symbols=2, depth=3, stop=False)
VARIED = Language.draw(5, num_symbols=2, depth=3, stop=True)


def thin() -> Language:
    """Three symbols, the last one sure: its reward still depends on the two before."""
    probs = FULL.probs.copy()
    probs[3:] = [1.0, 0.0]
    return dataclasses.replace(FULL, probs=probs)


# -------------------------------------------------------------------- replay


@pytest.mark.parametrize("reward_target", REWARD_TARGETS)
def test_the_density_of_a_replayed_text_is_its_mass(reward_target, x64) -> None:
    process = toy(VARIED, reward_target, strength=0.7)
    exact = laws.enumerate_process(process)
    paths = jax.tree.map(lambda *x: jnp.stack(x), *exact.trajectories)
    replay = jax.jit(jax.vmap(lambda path: replay_path(process, path).log_density))
    np.testing.assert_allclose(replay(paths), np.log(list(exact.masses.values())), rtol=1e-10)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_executor_scores_the_steps_that_it_draws(temperature, key) -> None:
    """The log-probability of every drawn text, and -inf for a text that it cannot write."""
    process = Reasoning(NoisyExecutor(), None, EXAMPLE, temperature=temperature, max_steps=3)
    check_scores(process, key, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_transformer_scores_the_steps_that_it_draws(temperature, key) -> None:
    """A step read at once has the mass with which it was drawn token by token."""
    model, reward = load_default()
    prompt = regchain.problems("test", 1, seed=3)[0].prompt
    check_scores(Reasoning(model, reward, prompt, temperature=temperature), key, rtol=1e-3)


def check_scores(process: Reasoning, key, rtol: float) -> None:
    posterior = infer(key, process, ParticleFilter(16, ess_threshold=0.0, history=True))
    paths = posterior.trajectories()
    replay = jax.jit(jax.vmap(lambda path: replay_path(process, path)))
    replayed = replay(paths)
    potential = posterior.log_weights
    expected = np.asarray(posterior.particles["log_prob"] + potential)
    assert np.ptp(np.asarray(posterior.particles["log_prob"])) > 0.1
    np.testing.assert_allclose(replayed.log_density, expected, rtol=rtol, atol=rtol)
    np.testing.assert_array_equal(replayed.particles.tokens[:, 0], posterior.particles["tokens"])
    other = paths["tokens"].at[:, 1, 0].add(1)  # no text starts so
    impossible = replay({**paths, "tokens": other}).log_density
    assert bool(jnp.all(impossible < replayed.log_density))


def test_a_model_without_scores_is_refused_where_they_are_needed(key, monkeypatch) -> None:
    monkeypatch.setattr(NoisyExecutor, "score_step", AbstractLanguageModel.score_step)
    process = Reasoning(NoisyExecutor(), None, EXAMPLE, max_steps=3)
    assert not can_replay(process)
    with pytest.raises(NotImplementedError, match="replay"):
        infer(key, process, ParticleGibbs(4, 5, ancestor_sampling="metropolis"))


# -------------------------------------------------------------------- laws by enumeration


@pytest.mark.parametrize(
    "moves",
    [False, *(pytest.param(m, marks=pytest.mark.slow) for m in ("metropolis", "exact"))],
)
def test_gibbs_leaves_the_posterior_of_texts_invariant(moves, x64) -> None:
    """Texts that end apart and texts of one length, N = 2."""
    for language in (STOPS, thin()):
        gibbs = ParticleGibbs(2, 1, ancestor_sampling=moves, ess_threshold=0.9)
        report = laws.check_invariant(gibbs, toy(language, "odds"))
        assert report, str(report)
        assert min(report.branches["resampled"]) > 0
        if moves and language is not STOPS:
            assert report.branches["ancestor_moved"][0] > 0


@pytest.mark.slow
def test_a_rest_that_keeps_its_old_rewards_breaks_invariance(monkeypatch, x64) -> None:
    """The planted mistake: potentials read from the record instead of scored anew."""
    score = Reasoning.replay

    def stale(self, particles, record, t):
        moved, log_increments, log_probs = score(self, particles, record, t)
        if isinstance(t, int) and t == 0:
            return moved, log_increments, log_probs
        return moved, self.strength * jnp.nan_to_num(record["log_odds"]), log_probs

    monkeypatch.setattr(Reasoning, "replay", stale)
    gibbs = ParticleGibbs(2, 1, ancestor_sampling="metropolis", ess_threshold=1.0)
    report = laws.check_invariant(gibbs, toy(thin(), "odds"))
    assert not report and report.max_error > 1e-4


# -------------------------------------------------------------------- samplers


@pytest.mark.slow
@pytest.mark.parametrize(
    "algorithm",
    [
        ParticleGibbs(4, 500, 20, num_chains=64),
        ParticleGibbs(4, 500, 20, num_chains=64, ancestor_sampling="metropolis"),
        PIMH(ParticleFilter(8), 500, 20, num_chains=64),
        ParallelTempering(Independence(), 500, 100, betas=(0.0, 0.5, 1.0), num_chains=64),
    ],
    ids=["gibbs", "gibbs-metropolis", "pimh", "tempering"],
)
def test_samplers_draw_texts_from_the_exact_posterior(algorithm, key) -> None:
    """Every common text by its frequency in 64 chains; total variation of all of them at most .02.

    At 32,000 draws the variation of independent ones is below sqrt(14 / 32,000) = .021 / 2; the
    chains mix within a few sweeps.
    """
    posterior = infer(key, toy(VARIED, "odds"), algorithm)
    tokens = np.asarray(posterior.particles["tokens"]).reshape(64, 500, -1)
    law = normalize(VARIED.masses("odds"))
    table = np.zeros((len(law), VARIED.depth), int)
    for i, string in enumerate(law):
        table[i, : len(string)] = np.array(string) + 1
    found = (tokens[:, :, None, :] == table).all(axis=-1).mean(axis=1)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)  # no other text is drawn
    expected = np.array(list(law.values()))
    common = expected > 0.01  # of others too few are seen for a normal mean
    assert_mean(found[:, common], expected[common], resolution=0.02)
    assert total_variation(found.mean(axis=0), expected) <= 0.02


@pytest.mark.slow
def test_pmmh_over_the_strength_agrees_with_the_grid(key) -> None:
    """log Zhat of 8 particles is noisy; Z(strength) is a plain sum over all texts."""
    texts = VARIED.masses("odds", 1.0)
    prior = np.array([VARIED.masses("odds", 0.0)[s] for s in texts])
    log_reward = np.log(np.array(list(texts.values())) / prior)
    grid = np.linspace(0, 3, 3001)
    evidence = (prior * np.exp(grid[:, None] * log_reward)).sum(axis=1)
    probabilities = evidence / evidence.sum()
    process = toy(VARIED, "odds")
    models = family(
        lambda v: eqx.tree_at(lambda p: p.strength, process, v["strength"]),
        {"strength": dist.Uniform(0.0, 3.0)},
    )
    algorithm = PMMH(ParticleFilter(8), 500, 200, num_chains=64)
    posterior = infer(key, models, algorithm)
    assert np.std(np.asarray(posterior.info["log_evidence"])) > 0.05
    draws = np.asarray(posterior.particles["strength"], np.float64)
    assert_mean(draws.mean(axis=1), (grid * probabilities).sum(), resolution=0.05)
    cumulative = probabilities.cumsum()
    for quantile in (0.05, 0.5, 0.95):
        index = np.searchsorted(cumulative, quantile)
        assert_mean((draws <= grid[index]).mean(axis=1), cumulative[index], resolution=0.02)


@pytest.mark.slow
def test_the_shipped_models_run_under_particle_gibbs(key) -> None:
    """Answers of two runs, with and without ancestor moves, and of a filter are of one law."""
    model, reward = load_default()
    problem = regchain.problems("test", 1, seed=5)[0]
    process = Reasoning(model, reward, problem.prompt)
    for moves in (False, "metropolis"):
        gibbs = ParticleGibbs(8, 10, ancestor_sampling=moves)
        posterior = infer(key, process, gibbs)
        assert posterior.particles["tokens"].shape[:2] == (1, 10)
        assert bool(jnp.all(posterior.particles["finished"]))
        answers = posterior.distribution(process.answer)
        assert abs(answers.probabilities.sum() - 1) < 1e-5
        assert bool(jnp.all(jnp.isfinite(posterior.particles["log_prob"])))
        update = np.asarray(posterior.info["update_rate"])
        assert update[1:].max() > 0  # paths move


def test_keys_are_consumed_once(key, key_reuse) -> None:
    posterior = infer(key, toy(FULL, "odds"), ParticleGibbs(4, 3, ancestor_sampling="metropolis"))
    assert posterior.log_weights.shape == (1, 3)
