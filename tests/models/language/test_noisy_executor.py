"""The noisy executor against its law: tokens, frequencies, log-probabilities, tempering."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jurax.inference import ImportanceSampling, infer
from jurax.models.language import tokenizer
from jurax.models.language.executor import ExecutorDials, clean_law, executor_law, truth_table
from jurax.models.language.noisy_executor import NoisyExecutor, tempered
from jurax.models.language.programs import EXAMPLE, encode_programs
from jurax.models.language.reasoning import Reasoning
from jurax.models.language.regchain import Chains, execute, problems, to_chains
from jurax.models.language.regchain_check import check_answer, check_steps
from jurax.models.language.regchain_corpus import write_solutions
from jurax.models.language.tokenizer import BINDING, NUMBER
from tests.statistics import assert_estimate, assert_mean

PROMPT = "A=7 B=12 C=3 r1: A * B r2: r1 - A ? r2"
ONE = jnp.asarray(1.0)


def first_steps(key, num_rows, *, temperature=1.0, prompt=PROMPT, **dials):
    """First steps of many rows of one problem."""
    executor = NoisyExecutor(**dials)
    state = executor.start(executor.encode([prompt]), num_rows, 100)
    active = jnp.ones(num_rows, bool)
    return executor.sample_step(key[None], state, active, 12, jnp.asarray(temperature))


def solutions(process, posterior):
    """Token rows of all particles of a packed run, by problem."""
    tokens, lengths = (np.asarray(posterior.particles[name]) for name in ("tokens", "length"))
    return [
        [t[:k] for t, k in zip(*rows, strict=True)] for rows in zip(tokens, lengths, strict=True)
    ]


# -------------------------------------------------------------------- prompts


def test_prompts_are_parsed_into_the_programs_that_wrote_them():
    suite = problems("test", 40, seed=3, lengths=(1, 8))
    programs = encode_programs([p.prompt for p in suite])
    for i, problem in enumerate(suite):
        chains, num = to_chains(problem), problem.num_steps
        columns = (programs.left, programs.operation, programs.right)
        read = Chains(
            np.asarray(programs.leaves)[i, None], *(np.asarray(c)[i, None, :num] for c in columns)
        )
        assert all((a == b).all() for a, b in zip(read, chains, strict=True))
        assert int(programs.num_instructions[i]) == num
        assert int(programs.prompt_lengths[i]) == len(tokenizer.encode(problem.prompt))
        assert str(execute(read)[0, -1]) == problem.answer


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("A=7 B=12 C=3 ? C", "0 instructions"),
        ("A=7 B=12 C=3 r1: A * B ?", "8 words"),
        ("A=7 B=12 C=3 r1: A * B ? C", "ends in"),
        ("A=7 B=12 C=3 r1: A * B r1: A * B ? r2", "does not define r2"),
        ("A=7 B=12 C=3 r1: A * r1 ? r1", "before its definition"),
        ("A=7 B=12 C=3 r1: A ; B ? r1", "no operation"),
        ("A=7 C=12 B=3 r1: A * B ? r1", "value of B"),
        ("A=7 B=12 C=3 ? r1 r1: A * B", "ends in"),
    ],
)
def test_a_malformed_prompt_is_named(prompt, reason):
    with pytest.raises(ValueError, match=f"prompt 1 is no RegChain problem.*{reason}"):
        NoisyExecutor().encode([PROMPT, prompt])


def test_an_unknown_word_is_named():
    with pytest.raises(ValueError, match="unknown token 'D=4'"):
        NoisyExecutor().encode(["A=7 B=12 D=4 r1: A * B ? r1"])


def test_bad_dials_are_named():
    with pytest.raises(ValueError, match="max_slip is 1.5"):
        NoisyExecutor(max_slip=1.5)
    with pytest.raises(TypeError, match="unknown dials slips; the dials are misconceptions"):
        NoisyExecutor(slips=0.1)


# -------------------------------------------------------------------- the law


def test_without_errors_it_writes_what_the_clean_writer_writes(key):
    suite = problems("test", 24, seed=0, lengths=(1, 8))
    executor = NoisyExecutor(misconceptions=0.0, max_slip=0.0, binding_error=0.0)
    process = Reasoning(executor, None, [p.prompt for p in suite])
    posterior = infer(key, process, ImportanceSampling(num_particles=2))
    for problem, rows in zip(suite, solutions(process, posterior), strict=True):
        expected = write_solutions(np.random.default_rng(0), to_chains(problem), clean_law())[0]
        assert all((row == expected).all() for row in rows)
    assert (np.asarray(posterior.particles["log_prob"]) == 0).all()
    assert np.asarray(posterior.particles["finished"]).all()


def test_log_probabilities_are_those_of_the_draws(key):
    _, steps = first_steps(key, 3000, binding_error=0.3)
    tokens = np.asarray(steps.tokens)
    x, y, result = (tokens[:, k] - NUMBER for k in (3, 7, 9))
    law = executor_law(ExecutorDials(binding_error=0.3))
    look_up = np.log(np.where(np.arange(19) == 0, 0.7, 0.3 / 18))
    expected = look_up[(x - 7) % 19] + look_up[(y - 12) % 19] + law.log_probs[2, x, y, result]
    np.testing.assert_allclose(steps.log_probs, expected, rtol=2e-6)  # float32
    assert (tokens[:, 2] - BINDING == x).all() and (tokens[:, 6] - BINDING - 19 == y).all()
    assert (tokens[:, 10] - BINDING - 3 * 19 == result).all()
    assert (np.asarray(steps.counts) == 12).all()


def test_frequencies_are_those_of_the_law(key):
    num = 40_000
    _, steps = first_steps(key, num, binding_error=0.3, max_slip=1.0)
    tokens = np.asarray(steps.tokens)
    x, y, result = (tokens[:, k] - NUMBER for k in (3, 7, 9))
    law = np.exp(executor_law(ExecutorDials(binding_error=0.3, max_slip=1.0)).log_probs[2])
    read = {name: np.where(np.arange(19) == name, 0.7, 0.3 / 18) for name in (7, 12)}
    joint = read[7][:, None, None] * read[12][None, :, None] * law  # [x, y, result]
    for drawn, expected in (
        (x, joint.sum((1, 2))),
        (y, joint.sum((0, 2))),
        (result, joint.sum((0, 1))),
        ((x != 7) * 2 + (y != 12), [0.49, 0.21, 0.21, 0.09]),  # look-ups fail independently
        (result[(x == 7) & (y == 12)], law[7, 12]),
    ):
        expected = np.asarray(expected)
        found = np.bincount(drawn, minlength=len(expected)) / len(drawn)
        error = np.sqrt(expected * (1 - expected) / len(drawn))
        assert_estimate(found, expected, error, resolution=0.004)


@pytest.mark.slow
def test_whole_solutions_follow_the_law_of_the_corpus_writer(key):
    # Two independent writers of one law: the same problems, the share of right answers of each.
    suite = problems("validation", 60, seed=0)
    process = Reasoning(NoisyExecutor(), None, [p.prompt for p in suite])
    posterior = infer(key, process, ImportanceSampling(num_particles=200, history=False))
    differences = []
    for seed, (problem, rows) in enumerate(zip(suite, solutions(process, posterior), strict=True)):
        chains = Chains(*(np.repeat(x, 200, axis=0) for x in to_chains(problem)))
        written = write_solutions(np.random.default_rng(seed), chains, executor_law())
        shares = [
            np.mean([row[-2] - NUMBER == int(problem.answer) for row in pool])
            for pool in (rows, written)
        ]
        differences.append(shares[0] - shares[1])
    assert_mean(differences, 0.0, resolution=0.01)


def test_wrong_steps_are_those_that_the_checker_finds(key):
    problem = problems("test", 1, seed=4)[0]
    process = Reasoning(NoisyExecutor(), None, problem.prompt)
    posterior = infer(key, process, ImportanceSampling(num_particles=300))
    tokens, lengths = (np.asarray(posterior.particles[name]) for name in ("tokens", "length"))
    for row, length in zip(tokens, lengths, strict=True):
        solution = row[:length]
        steps = check_steps(problem, solution)
        words = solution[:-3].reshape(-1, 12)
        names, read = words[:, [1, 5]] - 28, words[:, [3, 7]] - NUMBER
        values = np.array([*problem.leaves, *(words[:, 9] - NUMBER)])
        right = truth_table()[words[:, 4] - 6, read[:, 0], read[:, 1]] == words[:, 9] - NUMBER
        right &= (values[names] == read).all(axis=1)
        assert steps == [*right.tolist(), True]
        assert check_answer(problem, solution) == (values[-1] == int(problem.answer))


# -------------------------------------------------------------------- temperature


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_tempers_each_draw(temperature):
    log_probs = np.log(np.random.default_rng(0).dirichlet(np.ones(19), size=3))
    found = np.exp(tempered(jnp.asarray(log_probs), jnp.asarray(temperature)))
    expected = np.exp(log_probs / temperature)
    np.testing.assert_allclose(found, expected / expected.sum(-1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 1e-40, 1e-30])
def test_temperature_zero_is_its_limit_and_draws_the_mode(temperature, key):
    _, steps = first_steps(key, 50, temperature=temperature)
    mode = executor_law().log_probs[2, 7, 12].argmax()
    assert (np.asarray(steps.tokens)[:, [3, 7, 9]] - NUMBER == [7, 12, mode]).all()
    assert (np.asarray(steps.log_probs) == 0).all()


def test_impossible_results_stay_impossible_when_heated(key):
    dials = {"misconceptions": 0.0, "max_slip": 0.0, "binding_error": 0.0}
    _, steps = first_steps(key, 200, temperature=1e6, **dials)
    assert (np.asarray(steps.tokens)[:, 9] - NUMBER == 7 * 12 % 19).all()
    assert np.isfinite(steps.log_probs).all()


# -------------------------------------------------------------------- rows and steps


def test_rows_at_rest_keep_their_state(key):
    executor = NoisyExecutor()
    state = executor.start(executor.encode([PROMPT, EXAMPLE]), 3, 100)
    keys = jax.random.split(key, 2)
    moved, steps = executor.sample_step(keys, state, jnp.arange(6) % 2 == 0, 12, ONE)
    at_rest = np.array([1, 3, 5])
    assert (np.asarray(steps.counts)[at_rest] == 0).all()
    assert (np.asarray(steps.tokens)[at_rest] == 0).all()
    assert (np.asarray(steps.log_probs)[at_rest] == 0).all()
    for name, old in state.rows.items():
        assert (np.asarray(moved.rows[name])[at_rest] == np.asarray(old)[at_rest]).all()
    assert (np.asarray(steps.counts)[[0, 2, 4]] == 12).all()


@pytest.mark.slow
def test_steps_are_whole_or_refused(key):
    with pytest.raises(ValueError, match="max_step_tokens is 11.*whole steps of 12"):
        infer(
            key, Reasoning(NoisyExecutor(), None, PROMPT, max_step_tokens=11), ImportanceSampling(1)
        )
    process = Reasoning(NoisyExecutor(), None, PROMPT, max_step_tokens=14, max_steps=3)
    wide = infer(key, process, ImportanceSampling(num_particles=4))
    narrow = infer(
        key, Reasoning(NoisyExecutor(), None, PROMPT), ImportanceSampling(num_particles=4)
    )
    assert (wide.particles["length"] == 27).all()
    assert (wide.particles["tokens"][:, :27] == narrow.particles["tokens"][:, :27]).all()
