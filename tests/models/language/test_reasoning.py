"""Reasoning: exact laws on small languages and on the executor, packing, budgets, bad input."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from jurax.inference import BestOfN, ImportanceSampling, ParticleFilter, SelfConsistency, infer
from jurax.models.language import tokenizer
from jurax.models.language.dialled_reward import DialledReward
from jurax.models.language.executor import ExecutorDials, executor_law
from jurax.models.language.model import AbstractReward, State, Steps
from jurax.models.language.noisy_executor import NoisyExecutor
from jurax.models.language.programs import EXAMPLE
from jurax.models.language.reasoning import Reasoning
from jurax.models.language.regchain import problems
from jurax.models.language.regchain_corpus import write_step
from jurax.models.language.reward_targets import FORMULAS
from jurax.ppl import Cost, laws
from tests.exact import Language
from tests.models.language.toy import models_of
from tests.statistics import assert_mean, total_variation

REWARD_TARGETS = sorted(FORMULAS)
ODDS_FIRST = ["odds", *(pytest.param(t, marks=pytest.mark.slow) for t in ("emission", "value"))]
ALPHA = 1e-7  # false alarm of one check, as in tests.statistics


# -------------------------------------------------------------------- small languages


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize("reward_target", REWARD_TARGETS)
def test_the_process_has_the_law_of_the_language(reward_target, stop, x64):
    language = Language.draw(3, num_symbols=2, depth=3, stop=stop)
    exact = laws.enumerate_process(toy(language, reward_target, strength=0.7))
    expected = language.masses(reward_target, 0.7)
    found = {tokens_of(path): mass for path, mass in exact.masses.items()}
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[s] for s in expected], list(expected.values()), rtol=1e-10)


@pytest.mark.parametrize("reward_target", ODDS_FIRST)
@pytest.mark.parametrize("threshold", [0.0, 0.95, 1.0])
def test_the_filter_is_unbiased_for_every_string(reward_target, threshold):
    process = toy(Language.draw(5, num_symbols=1, depth=3, stop=True), reward_target)
    algorithm = ParticleFilter(num_particles=2, ess_threshold=threshold)
    report = laws.check_unbiased(algorithm, process)
    assert report.passed, report
    if threshold == 0.95:
        fired, rested = report.branches["resampled"]
        assert fired > 0 and rested > 0


@pytest.mark.parametrize("reward_target", REWARD_TARGETS)
def test_texts_that_end_early_are_weighted_once(reward_target, key):
    language = Language.draw(8, num_symbols=2, depth=4, stop=True)
    process = toy(language, reward_target, packed=1500)
    log_evidence = np.log(sum(language.masses(reward_target).values()))
    posterior = infer(key, process, ParticleFilter(num_particles=8))
    lengths = np.asarray(posterior.particles["length"])
    assert (lengths.min(axis=1) < lengths.max(axis=1)).mean() > 0.5  # they do end apart
    assert_mean(np.exp(posterior.log_evidence - log_evidence), 1.0, resolution=0.05)


def toy(language, reward_target, *, strength=1.0, packed=None):
    model, reward = models_of(language)
    prompt = "x" if packed is None else ["x"] * packed
    return Reasoning(
        model,
        reward,
        prompt,
        reward_target=reward_target,
        strength=strength,
        max_steps=language.depth,
    )


def tokens_of(path):
    """The symbols of a path of records; the first record is that of the prompt."""
    return tuple(dict(record)["tokens"][0] - 1 for record in path[1:])


# -------------------------------------------------------------------- the executor, enumerated


def enumerate_solutions(reward, reward_target, strength):
    """gamma of all 361 solutions of `EXAMPLE` without look-up errors, as `[r1, r2]`, by NumPy.

    Probabilities come from the table of the law, rewards from reading all solutions at once.
    """
    first, second = np.divmod(np.arange(361), 19)
    law = np.exp(executor_law(ExecutorDials(binding_error=0.0)).log_probs)
    probs = law[2, 7, 12][first] * law[1, first, 3, second]
    same = np.ones(361, int)
    steps = [
        write_step(same * 3, same * 0, same * 7, same * 2, same * 1, same * 12, first),
        write_step(same * 4, same * 3, first, same * 1, same * 2, same * 3, second),
        np.stack(
            [same * tokenizer.ANSWER, tokenizer.NUMBER + second, same * tokenizer.END], axis=1
        ),
    ]
    state, log_odds = reward.start(reward.encode([EXAMPLE]), 361, 40), []
    for tokens in steps:
        padded = jnp.asarray(np.pad(tokens, ((0, 0), (0, 12 - tokens.shape[1]))), jnp.int32)
        counts = jnp.full(361, tokens.shape[1], jnp.int32)
        state, scores = score_step(reward, state, Steps(padded, counts, jnp.zeros(361)))
        log_odds.append(np.asarray(scores, np.float64))
    log_odds = np.array(log_odds)
    log_rewards = -np.logaddexp(0, -log_odds)
    potential = {
        "odds": log_odds.sum(axis=0),
        "emission": log_rewards.sum(axis=0),
        "value": log_rewards[-1],
    }[reward_target]
    return (probs * np.exp(strength * potential)).reshape(19, 19)


@eqx.filter_jit
def score_step(reward, state, steps):
    return reward.score(state, steps)


def results_of(posterior):
    """r1 and r2 of every solution of `EXAMPLE`."""
    tokens = np.asarray(posterior.particles["tokens"])
    return tokens[..., 9] - tokenizer.NUMBER, tokens[..., 21] - tokenizer.NUMBER


def executor(reward_target, prompt=EXAMPLE, **options):
    return Reasoning(
        NoisyExecutor(binding_error=0.0),
        DialledReward(),
        prompt,
        reward_target=reward_target,
        max_steps=3,
        **options,
    )


@pytest.mark.slow
def test_enumeration_by_the_library_and_by_numpy_agree(x64):
    process = executor("odds", strength=0.6)
    exact = laws.enumerate_process(process)
    masses = enumerate_solutions(process.reward, "odds", 0.6)
    assert len(exact.paths) == 361
    for path, mass in exact.masses.items():
        first, second = (dict(record)["tokens"] for record in path[1:3])
        results = first[9] - tokenizer.NUMBER, second[9] - tokenizer.NUMBER
        np.testing.assert_allclose(mass, masses[results], rtol=1e-9)


@pytest.mark.parametrize(
    ("reward_target", "num_particles"),
    [("odds", 2)]
    + [
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (("odds", 1), ("odds", 16), ("emission", 2), ("value", 2))
    ],
)
def test_evidence_and_answers_are_unbiased(reward_target, num_particles, key):
    runs = 6000 // num_particles**0.5
    process = executor(reward_target, [EXAMPLE] * int(runs), strength=1.0)
    masses = enumerate_solutions(process.reward, reward_target, 1.0)
    posterior = infer(key, process, ParticleFilter(num_particles=num_particles, history=False))
    scale = np.exp(np.asarray(posterior.log_evidence, np.float64))
    assert_mean(scale / masses.sum(), 1.0, resolution=0.05)
    weights = np.asarray(posterior.normalized(), np.float64) * scale[:, None]
    _, answers = results_of(posterior)
    estimates = np.stack([np.sum(weights * (answers == v), axis=1) for v in range(19)], axis=1)
    likely = masses.sum(axis=0) > 0.01 * masses.sum()  # rarer ones are no means of many draws
    assert likely.sum() >= 2
    assert_mean(estimates[:, likely], masses.sum(axis=0)[likely])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "reward_target"),
    [(ImportanceSampling, "odds"), *((ParticleFilter, target) for target in REWARD_TARGETS)],
)
def test_a_large_pool_is_the_posterior(reward_target, algorithm, key):
    num = 24_000
    process = executor(reward_target, strength=1.0)
    masses = enumerate_solutions(process.reward, reward_target, 1.0)
    exact = masses.sum(axis=0) / masses.sum()
    posterior = infer(key, process, algorithm(num_particles=num, history=False))
    _, answers = results_of(posterior)
    found = np.bincount(answers, np.asarray(posterior.normalized()), minlength=19)
    # TV of n draws: mean <= 1/2 sum sqrt(p (1 - p) / n), and by McDiarmid more by t with
    # probability <= exp(-2 n t^2). Weights and up to two resamplings leave at least the draws of
    # the smallest effective size, which is divided by three for the three stages of noise.
    draws = float(np.min(np.asarray(posterior.info["ess"])[:3])) / 3
    bound = 0.5 * np.sum(np.sqrt(exact * (1 - exact) / draws))
    bound += np.sqrt(np.log(1 / ALPHA) / (2 * draws))
    distance = total_variation(found, exact)
    assert distance < bound < 0.08, (distance, bound)
    prior = enumerate_solutions(process.reward, reward_target, 0.0)
    assert total_variation(prior.sum(axis=0) / prior.sum(), exact) > 2 * bound  # it could fail


@pytest.mark.slow
def test_look_up_errors_are_in_the_posterior(key):
    # One instruction: 19^3 solutions with their probabilities, against the evidence of the filter.
    prompt, reward = "A=7 B=12 C=3 r1: A * B ? r1", DialledReward()
    x, y, result = (axis.reshape(-1) for axis in np.indices((19, 19, 19)))
    law = executor_law(ExecutorDials(binding_error=0.2))
    probs = np.exp(law.log_probs)[2, x, y, result]
    probs = probs * np.where(x == 7, 0.8, 0.2 / 18) * np.where(y == 12, 0.8, 0.2 / 18)
    same = np.ones(19**3, int)
    step = jnp.asarray(write_step(same * 3, same * 0, x, same * 2, same * 1, y, result), jnp.int32)
    state = reward.start(reward.encode([prompt]), 19**3, 40)
    _, log_odds = score_step(reward, state, Steps(step, jnp.full(19**3, 12), jnp.zeros(19**3)))
    potential = 2 * np.asarray(log_odds)  # the answer step repeats the score of a right copy
    evidence = np.sum(probs * np.exp(potential))
    process = Reasoning(
        NoisyExecutor(binding_error=0.2), reward, [prompt] * 2000, strength=1.0, max_steps=2
    )
    posterior = infer(key, process, ParticleFilter(num_particles=8, history=False))
    assert_mean(np.exp(posterior.log_evidence) / evidence, 1.0, resolution=0.03)


def test_temperature_zero_is_one_solution_for_all(key):
    posterior = infer(key, executor("odds", temperature=0.0), ParticleFilter(num_particles=5))
    tokens = np.asarray(posterior.particles["tokens"])
    assert (tokens == tokens[:1]).all()
    assert (np.asarray(posterior.particles["log_prob"]) == 0).all()
    assert "temperature 0" in posterior.target


# -------------------------------------------------------------------- packing


@pytest.mark.slow
@pytest.mark.parametrize("reward_target", ODDS_FIRST)
def test_a_problem_does_not_see_what_it_is_packed_with(reward_target, key):
    suite = problems("test", 6, seed=0, lengths=(1, 6))
    prompts, keys = [p.prompt for p in suite], jax.random.split(key, 6)
    algorithm = ParticleFilter(num_particles=5, ess_threshold=0.98)

    def run(index):
        if isinstance(index, int):
            return infer(keys[index], default(prompts[index], reward_target), algorithm)
        index = np.array(index)
        return infer(keys[index], default([prompts[i] for i in index], reward_target), algorithm)

    whole = run([0, 1, 2, 3, 4, 5])
    assert np.asarray(whole.info["resampled"]).any(axis=1).sum() >= 2  # not all at the same time
    for other in ([5, 4, 3, 2, 1, 0], [3, 3]):
        packed = run(other)
        for place, i in enumerate(other):
            assert_same(whole[i], packed[place])
    assert_same(whole[0], run(0))
    assert_same(whole[5], run(5))


def default(prompt, reward_target, **options):
    return Reasoning(
        NoisyExecutor(),
        DialledReward(),
        prompt,
        reward_target=reward_target,
        strength=1.0,
        **options,
    )


def assert_same(first, second):
    """Particles, weights, evidence, cost and diagnostics are equal bit for bit."""
    assert trees_equal(first.particles, second.particles)
    assert trees_equal(first.log_weights, second.log_weights)
    assert trees_equal(first.log_evidence, second.log_evidence)
    for name in ("decoded_tokens", "reward_tokens", "reward_calls", "sequential_passes"):
        assert trees_equal(getattr(first.cost, name), getattr(second.cost, name))
    steps = min(int(first.info["num_steps"]), int(second.info["num_steps"]))
    for name in ("ancestors", "resampled"):
        assert trees_equal(first.info[name][:steps], second.info[name][:steps])


def trees_equal(first, second):
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)


@pytest.mark.slow
def test_a_finished_problem_is_left_alone(key):
    # One instruction beside eight: the first waits six steps, in which the other resamples.
    suite = [problems("test", 1, seed=1, lengths=(num, num))[0].prompt for num in (1, 8)]
    posterior = infer(
        key, default(suite, "odds"), ParticleFilter(num_particles=6, ess_threshold=1.0)
    )
    resampled, ancestors = (np.asarray(posterior.info[k]) for k in ("resampled", "ancestors"))
    assert not resampled[0, 2:].any() and resampled[1, 2:].any()
    assert (ancestors[0, 2:] == np.arange(6)).all()
    log_odds, length = (np.asarray(posterior.particles[k]) for k in ("log_odds", "length"))
    assert np.isnan(log_odds[0, :, 2:]).all() and not np.isnan(log_odds[1, :, :9]).any()
    assert (length[0] == 15).all() and (length[1] == 8 * 12 + 3).all()
    # Weighted once: the weights since the last resampling are those of its two steps.
    alone = infer(
        jax.random.split(key, 2)[0], default(suite[0], "odds"), ParticleFilter(6, ess_threshold=1.0)
    )
    assert (np.asarray(alone.log_weights) == np.asarray(posterior.log_weights)[0]).all()


# -------------------------------------------------------------------- cost and budgets


@pytest.mark.slow
def test_every_decoded_token_is_counted(key):
    # With a resampling at every step most of what is decoded is discarded; it counts all the same.
    process = default([EXAMPLE, problems("test", 1, seed=2, lengths=(5, 5))[0].prompt], "odds")
    posterior = infer(key, process, ParticleFilter(num_particles=7, ess_threshold=1.0))
    cost = posterior.cost
    assert cost.decoded_tokens.tolist() == [7 * 27, 7 * 63]
    assert cost.prefilled_tokens.tolist() == [13, 25]
    assert cost.reward_tokens.tolist() == [7 * 27 + 13, 7 * 63 + 25]
    assert cost.reward_calls.tolist() == [7 * 3, 7 * 6]
    assert cost.sequential_passes.tolist() == [1 + 27, 1 + 63]
    bare = infer(key, process, SelfConsistency(num_particles=7)).cost
    assert bare.decoded_tokens.tolist() == [7 * 27, 7 * 63]
    assert bare.reward_tokens.tolist() == bare.reward_calls.tolist() == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [1, 47, 48, 96, 107, 108, 1000])
def test_a_budget_is_never_exceeded_and_its_end_is_reported(tokens, key):
    posterior = infer(
        key, default(EXAMPLE, "odds"), ParticleFilter(4), budget=Cost(decoded_tokens=tokens)
    )
    # A step of four rows may take 48 tokens, and so is the answer step judged beforehand.
    steps = min(3, tokens // 48)
    assert int(posterior.cost.decoded_tokens) == [0, 48, 96, 108][steps]
    assert posterior.status == (
        "ok" if steps == 3 else "stopped: the budget does not allow another step"
    )
    assert bool(np.asarray(posterior.particles["finished"]).all()) == (steps == 3)


def test_a_budget_of_nothing_makes_no_step(key):
    process = default(EXAMPLE, "odds")
    posterior = infer(key, process, ParticleFilter(4), budget=Cost())
    assert posterior.status.startswith("stopped")
    assert int(posterior.cost.decoded_tokens) == 0
    assert (np.asarray(posterior.particles["length"]) == 0).all()
    assert posterior.distribution(process.answer).values == [None]


@pytest.mark.slow
def test_budgets_hold_where_resampling_revives_ended_rows(key):
    # Texts that have ended are replaced by unfinished ones: more rows decode than before.
    language = Language.draw(2, num_symbols=2, depth=6, stop=True)
    process = toy(language, "odds", packed=300)
    algorithm = ParticleFilter(num_particles=8, ess_threshold=1.0)
    full = np.asarray(infer(key, process, algorithm).cost.decoded_tokens)
    for tokens in (10, 17, 20, 25, 30):
        posterior = infer(key, process, algorithm, budget=Cost(decoded_tokens=tokens))
        spent = np.asarray(posterior.cost.decoded_tokens)
        assert spent.max() <= tokens
        finished = np.array([status == "ok" for status in posterior.status])
        assert (spent[finished] == full[finished]).all()


# -------------------------------------------------------------------- edges and bad input


@pytest.mark.parametrize("algorithm", [ParticleFilter(3), ImportanceSampling(3), BestOfN(3)])
def test_no_steps_leave_the_prompt(algorithm, key):
    process = default([EXAMPLE, EXAMPLE], "odds", max_steps=0)
    posterior = infer(key, process, algorithm)
    assert (np.asarray(posterior.particles["length"]) == 0).all()
    assert posterior.cost.decoded_tokens.tolist() == [0, 0]
    assert posterior[0].distribution(process.answer).values == [None]
    if not isinstance(algorithm, BestOfN):
        assert posterior.log_evidence.tolist() == [0.0, 0.0]


def test_too_few_steps_leave_texts_unfinished(key):
    process = default(EXAMPLE, "value", max_steps=2)
    posterior = infer(key, process, ParticleFilter(3))
    assert not np.asarray(posterior.particles["finished"]).any()
    assert posterior.distribution(process.answer).values == [None]
    assert process.text(jax.tree.map(lambda x: x[0], posterior.particles)).endswith(";")


def test_one_particle_is_a_sample(key):
    process = default(EXAMPLE, "odds")
    posterior = infer(key, process, ParticleFilter(num_particles=1))
    log_odds = np.asarray(posterior.particles["log_odds"])[0, :3]
    np.testing.assert_allclose(posterior.log_evidence, log_odds.sum(), rtol=1e-5)
    assert not np.asarray(posterior.info["resampled"]).any()
    with pytest.raises(ValueError, match="num_particles must be at least 1, got 0"):
        infer(key, process, ParticleFilter(num_particles=0))


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("", {}, "prompt 0 is empty"),
        ("  ", {}, "prompt 0 is empty"),
        ([], {}, "non-empty list of texts"),
        ([EXAMPLE, ""], {}, "prompt 1 is empty"),
        ("A=7 B=99", {}, "unknown token 'B=99'"),
        ("A=7 B=12 C=3 ? C", {}, "prompt 0 is no RegChain problem"),
        (
            EXAMPLE,
            {"max_steps": 20},
            "prompt has 13 tokens.* may take 240 .*more than the model's 160",
        ),
        (EXAMPLE, {"max_steps": -1}, "max_steps must be at least 0, got -1"),
        (EXAMPLE, {"max_step_tokens": 0}, "max_step_tokens must be at least 1, got 0"),
        (EXAMPLE, {"strength": -0.1}, "strength must be a finite number >= 0, got -0.1"),
        (EXAMPLE, {"strength": float("nan")}, "strength must be a finite number"),
        (EXAMPLE, {"strength": float("inf")}, "strength must be a finite number"),
        (EXAMPLE, {"temperature": -1.0}, "temperature must be a finite number >= 0"),
        (EXAMPLE, {"temperature": float("nan")}, "temperature must be a finite number"),
        (EXAMPLE, {"reward_target": "product"}, "reward_target must be one of .*got 'product'"),
    ],
)
def test_bad_arguments_are_named(prompt, options, message):
    with pytest.raises(ValueError, match=message):
        Reasoning(NoisyExecutor(), DialledReward(), prompt, **options)


def test_a_prompt_longer_than_the_model_is_refused():
    with pytest.raises(ValueError, match="more than the model's 20"):
        Reasoning(NoisyExecutor(max_length=20), None, EXAMPLE, max_steps=1)


def test_a_strength_must_be_stored_or_given():
    reward = DialledReward(strengths=(("odds", 0.6),))
    assert float(Reasoning(NoisyExecutor(), reward, EXAMPLE).strength) == pytest.approx(0.6)
    with pytest.raises(
        ValueError, match="no strength is stored.*reward_target='value'; pass strength"
    ):
        Reasoning(NoisyExecutor(), reward, EXAMPLE, reward_target="value")
    process = Reasoning(NoisyExecutor(), reward, EXAMPLE, reward_target="value", strength=2.0)
    assert "r_T^2" in process.target and "DialledReward" in process.target


class Patched(AbstractReward):
    """A reward whose log-odds are `value` wherever the condition on the row holds, at step `at`."""

    reward: DialledReward
    value: Array
    every: int = eqx.field(static=True)
    at: int = eqx.field(static=True)
    strengths: tuple[tuple[str, float], ...] = eqx.field(static=True, default=(("odds", 1.0),))

    def encode(self, prompts):
        return self.reward.encode(prompts)

    def start(self, context, num_particles, max_tokens):
        state = self.reward.start(context, num_particles, max_tokens)
        zeros = jnp.zeros(state.rows.noise.shape, jnp.int32)
        return State(rows=(state.rows, zeros), shared=state.shared)

    def score(self, state, steps):
        rows, time = state.rows
        inner, log_odds = self.reward.score(State(rows=rows, shared=state.shared), steps)
        chosen = (jnp.arange(len(log_odds)) % self.every == 0) & (time + 1 == self.at)
        moved = State(rows=(inner.rows, time + 1), shared=inner.shared)
        return moved, jnp.where(chosen, self.value, log_odds)


def patched(value, *, every=1, at=1, prompt=EXAMPLE, **options):
    reward = Patched(DialledReward(), jnp.asarray(value), every, at)
    return Reasoning(NoisyExecutor(), reward, prompt, strength=1.0, **options)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_invalid_reward_is_refused_or_reported(value, key):
    process = patched(value, every=2, at=2)
    with pytest.raises(ValueError, match="potential .reward. was NaN or"):
        infer(key, process, ParticleFilter(4))
    posterior = infer(key, process, ImportanceSampling(4), throw=False)
    assert posterior.status.startswith("invalid")
    assert np.isneginf(np.asarray(posterior.log_weights)[[0, 2]]).all()
    assert np.isfinite(np.asarray(posterior.log_weights)[[1, 3]]).all()


@pytest.mark.slow
@pytest.mark.parametrize("reward_target", REWARD_TARGETS)
def test_an_infinite_reward_is_certainty_where_rewards_are_probabilities(reward_target, key):
    process = patched(float("inf"), at=2, reward_target=reward_target)
    posterior = infer(key, process, ParticleFilter(4), throw=False)
    expected = "invalid" if reward_target == "odds" else "ok"
    assert posterior.status.startswith(expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "reward_target"),
    [(ImportanceSampling(4), "odds"), *((ParticleFilter(4), target) for target in REWARD_TARGETS)],
)
def test_rewards_of_zero_for_all_kill_the_population(algorithm, reward_target, key):
    process = patched(-float("inf"), at=2, reward_target=reward_target)
    posterior = infer(key, process, algorithm)
    assert posterior.status == "dead: every weight is zero"
    assert np.isneginf(posterior.log_evidence)
    assert (np.asarray(posterior.particles["length"]) == 24).all()  # it stopped there
    assert posterior.distribution(process.answer).values == []


@pytest.mark.slow
def test_a_dead_problem_does_not_touch_its_neighbour(key):
    # Rows 0, 1 (problem 0) die at step 2; rows 2, 3 (problem 1) live.
    prompts = [EXAMPLE, EXAMPLE]
    process = patched(-float("inf"), every=1, at=2, prompt=prompts)
    dead = infer(key, process, ParticleFilter(2))
    assert [status[:4] for status in dead.status] == ["dead", "dead"]
    half = patched(-float("inf"), every=2, at=2, prompt=prompts)
    posterior = infer(key, half, ParticleFilter(2))
    assert posterior.status == ["ok", "ok"]
    assert np.isfinite(posterior.log_evidence).all()


@pytest.mark.slow
@pytest.mark.parametrize("reward_target", REWARD_TARGETS)
def test_strength_zero_is_the_language_model(reward_target, key):
    plain = infer(key, Reasoning(NoisyExecutor(), None, EXAMPLE), ParticleFilter(4))
    process = default(EXAMPLE, reward_target)
    zero = eqx.tree_at(lambda p: p.strength, process, jnp.zeros(()))
    weighted = infer(key, zero, ParticleFilter(4))
    assert trees_equal(plain.particles["tokens"], weighted.particles["tokens"])
    assert (np.asarray(weighted.log_weights) == 0).all()
    # r^0 = 1 for r = 0 too.
    impossible = patched(-float("inf"), at=2, reward_target=reward_target)
    impossible = eqx.tree_at(lambda p: p.strength, impossible, jnp.zeros(()))
    assert infer(key, impossible, ParticleFilter(4)).status == "ok"
