import numpy as np
import pytest

from jurax.models.language import regchain
from jurax.models.language.regchain import problems


def opening_fact(problem):
    left, operation, right = problem.instructions[0]
    return operation, problem.leaves[left], problem.leaves[right]


def test_no_two_splits_share_an_opening_fact_or_a_problem():
    drawn = {split: problems(split, 400, seed=1) for split in regchain.SPLITS}
    for a in regchain.SPLITS:
        for b in regchain.SPLITS:
            if a != b:
                assert not {p.prompt for p in drawn[a]} & {p.prompt for p in drawn[b]}
                assert not set(map(opening_fact, drawn[a])) & set(map(opening_fact, drawn[b]))


def test_every_fact_has_one_split_with_the_documented_shares():
    counts = np.bincount(regchain.fact_splits().ravel())
    np.testing.assert_allclose(counts / counts.sum(), regchain.SPLIT_SHARES, atol=1e-3)


def test_all_facts_occur_in_later_steps_of_every_split():
    rng = np.random.default_rng(0)
    chains = regchain.draw_chains(rng, 20_000, 6, "test")
    values = regchain.execute(chains)
    seen = set()
    for step in range(1, 6):
        x = np.take_along_axis(values, chains.left[:, step, None], axis=1)[:, 0]
        y = np.take_along_axis(values, chains.right[:, step, None], axis=1)[:, 0]
        seen |= set(zip(chains.operations[:, step], x, y, strict=True))
    assert len(seen) == regchain.fact_splits().size


def test_problems_are_reproducible_different_and_balanced():
    first, more = problems("test", 40, seed=2), problems("test", 80, seed=2)
    assert more[:40] == first
    assert len({p.prompt for p in more}) == 80
    assert problems("test", 40, seed=3) != first
    lengths, counts = np.unique([p.num_steps for p in more], return_counts=True)
    assert list(lengths) == [4, 5, 6, 7] and set(counts) == {20}


def test_short_problems_are_different_too():
    # One instruction on a test fact: repetitions do occur and are redrawn.
    drawn = problems("test", 300, seed=0, lengths=(1, 1))
    assert len({p.prompt for p in drawn}) == 300


def test_operands_are_two_values_defined_before():
    for problem in problems("train", 60, seed=0, lengths=(1, 8)):
        for index, (left, _, right) in enumerate(problem.instructions):
            assert left != right and max(left, right) < 3 + index


def test_the_answer_is_what_python_computes():
    for problem in problems("validation", 40, seed=5):
        values = dict(zip("ABC", problem.leaves, strict=True))
        words = problem.prompt.split()[3:]
        while words[0] != "?":
            name, x, op, y, *words = words
            value = eval(f"{values[x]} {op} {values[y]}") % 19
            values[name.rstrip(":")] = value
        assert problem.answer == str(values[words[1]])


@pytest.mark.parametrize("split", ["", "Test", "dev"])
def test_an_unknown_split_is_named(split):
    with pytest.raises(ValueError, match="expected one of train, reward, validation, test"):
        problems(split, 1, seed=0)


@pytest.mark.parametrize("lengths", [(0, 3), (5, 4), (4, 9)])
def test_bad_lengths_are_refused(lengths):
    with pytest.raises(ValueError, match="1 <= low <= high <= 8"):
        problems("test", 1, seed=0, lengths=lengths)


def test_no_problems_and_a_negative_number():
    assert problems("test", 0, seed=0) == []
    with pytest.raises(ValueError, match="num_problems is -1"):
        problems("test", -1, seed=0)
