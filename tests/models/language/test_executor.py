"""The law of the noisy executor, and the corpus writer against it."""

import dataclasses

import numpy as np
import pytest

from jurax.models.language import regchain
from jurax.models.language.executor import (
    ExecutorDials,
    clean_law,
    executor_law,
    misconception_mask,
    teacher_law,
    truth_table,
)
from jurax.models.language.regchain_corpus import (
    TOKENS_PER_STEP,
    draw_results,
    write_prompts,
    write_solutions,
)
from jurax.models.language.tokenizer import BINDING, NUMBER, decode, encode

# Two-sided normal bound for a false alarm in 10^6 per comparison.
Z = 4.9


def test_the_table_is_what_the_dials_say():
    dials = ExecutorDials()
    probs, mask = np.exp(executor_law(dials).log_probs), misconception_mask(dials)
    truth = np.take_along_axis(probs, truth_table()[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(probs.sum(axis=-1), 1, atol=1e-12)
    assert mask.sum() == round(0.12 * 1083)
    np.testing.assert_allclose(truth[mask], 0.25)
    np.testing.assert_allclose(np.sort(probs[mask], axis=-1)[:, -1], 0.64)
    assert (truth[~mask] >= 1 - 0.14).all()
    # Mean of 953 draws from U(0, .14): standard error .14 / sqrt(12 * 953).
    assert abs((1 - truth[~mask]).mean() - 0.07) < Z * 0.14 / np.sqrt(12 * 953)


def test_seeds_give_other_tables_and_the_same_share():
    a, b = (misconception_mask(ExecutorDials(seed=seed)) for seed in (0, 1))
    assert a.sum() == b.sum() and (a != b).any()


def test_the_clean_law_makes_no_faults():
    law = clean_law()
    assert (law.log_probs.argmax(axis=-1) == truth_table()).all()
    assert law.binding_error == 0


@pytest.mark.parametrize(("shared", "own"), [(0.0, 0.0), (1.0, 0.0), (0.25, 0.2)])
def test_the_teacher_has_the_shares_of_its_dials(shared, own):
    mask = misconception_mask()
    probs = np.exp(teacher_law(shared=shared, own=own).log_probs)
    truth = np.take_along_axis(probs, truth_table()[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(probs.sum(axis=-1), 1, atol=1e-12)
    same = np.isclose(probs, np.exp(executor_law().log_probs)).all(axis=-1)
    assert abs(same[mask].mean() - shared) < Z * np.sqrt(shared * (1 - shared) / mask.sum()) + 1e-9
    wrong = (truth[~mask] < 1).mean()
    assert abs(wrong - own) < Z * np.sqrt(own * (1 - own) / (~mask).sum()) + 1e-9


def test_dials_outside_of_their_range_are_named():
    with pytest.raises(ValueError, match="binding_error is 1.5"):
        ExecutorDials(binding_error=1.5)
    with pytest.raises(ValueError, match="misconception_truth \\+ misconception_wrong"):
        ExecutorDials(misconception_truth=0.5, misconception_wrong=0.6)
    with pytest.raises(ValueError, match="shared is -1"):
        teacher_law(shared=-1.0)


def test_results_are_drawn_from_the_table():
    law, num = executor_law(), 200_000
    fact = tuple(int(x[0]) for x in np.nonzero(misconception_mask()))
    cumulative = np.cumsum(np.exp(law.log_probs), axis=-1)
    op, x, y = (np.full(num, value) for value in fact)
    drawn = draw_results(np.random.default_rng(0), cumulative, op, x, y)
    probs = np.exp(law.log_probs[fact])
    error = np.sqrt(probs * (1 - probs) / num)
    assert (np.abs(np.bincount(drawn, minlength=19) / num - probs) < Z * error).all()


def test_prompts_are_those_of_the_problems():
    for problem in regchain.problems("train", 12, seed=0):
        assert list(write_prompts(regchain.to_chains(problem))[0]) == encode(problem.prompt)


def test_written_solutions_follow_the_law():
    """Binding errors and results of 20,000 solutions, as frequencies given what was written."""
    rng, law = np.random.default_rng(1), executor_law()
    chains = regchain.draw_chains(rng, 20_000, 5, "train")
    tokens = write_solutions(rng, chains, law)
    steps = tokens[:, : TOKENS_PER_STEP * 5].reshape(-1, 5, TOKENS_PER_STEP)
    results = steps[:, :, 9] - NUMBER
    values = np.concatenate([chains.leaves, results], axis=1)
    wrong, surprise, variance = [], 0.0, 0.0
    for step in range(5):
        x, y = steps[:, step, 3] - NUMBER, steps[:, step, 7] - NUMBER
        for name, value in ((chains.left[:, step], x), (chains.right[:, step], y)):
            wrong.append(np.take_along_axis(values, name[:, None], axis=1)[:, 0] != value)
        log_probs = law.log_probs[chains.operations[:, step], x, y]
        probs, finite = np.exp(log_probs), np.where(np.isfinite(log_probs), log_probs, 0)
        mean = (probs * finite).sum(axis=-1)
        drawn = np.take_along_axis(finite, results[:, step, None], axis=1)[:, 0]
        surprise += (drawn - mean).sum()
        variance += ((probs * finite**2).sum(axis=-1) - mean**2).sum()
        # The bindings say what the plain values say.
        assert (steps[:, step, 2] == BINDING + 19 * chains.left[:, step] + x).all()
        assert (steps[:, step, 10] == BINDING + 19 * (3 + step) + results[:, step]).all()
    share, num = np.mean(wrong), np.size(wrong)
    assert abs(share - 0.02) < Z * np.sqrt(0.02 * 0.98 / num)
    assert abs(surprise) < Z * np.sqrt(variance)
    assert (tokens[:, -2] - NUMBER == results[:, -1]).all()


def test_a_corpus_is_fixed_by_its_seed():
    chains = regchain.draw_chains(np.random.default_rng(0), 5, 4, "train")
    laws = executor_law(), dataclasses.replace(executor_law(), binding_error=0.5)
    a, b = (write_solutions(np.random.default_rng(3), chains, laws[0]) for _ in range(2))
    assert (a == b).all()
    assert (a != write_solutions(np.random.default_rng(3), chains, laws[1])).any()
    assert decode(a[0]).endswith("<end>")
