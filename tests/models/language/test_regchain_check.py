"""The checker against solutions of a known law, and liveness against brute-force execution."""

import numpy as np
import pytest

from jurax.models.language import tokenizer
from jurax.models.language.executor import clean_law, executor_law
from jurax.models.language.regchain import problems, to_chains
from jurax.models.language.regchain_check import (
    check_answer,
    check_step,
    check_steps,
    extract_answer,
    liveness,
    split_steps,
)
from jurax.models.language.regchain_corpus import write_solutions


def write(problem, law, seed=0):
    return write_solutions(np.random.default_rng(seed), to_chains(problem), law)[0]


def continue_faultlessly(problem, words):
    """The rest of a solution, word by word: an independent reading of the text."""
    values = dict(zip("ABC", problem.leaves, strict=True))
    instructions = problem.prompt.split()[3:-2]
    out = []
    for index in range(problem.num_steps):
        step = words[12 * index : 12 * index + 12]
        while len(step) < 12:
            step = [*step, next_word(step, instructions[4 * index : 4 * index + 4], values)]
        values[step[0][:-1]] = int(step[10].split("=")[1])
        out += step
    tail = words[12 * problem.num_steps :]
    rest = ["#", str(values[f"r{problem.num_steps}"]), "<end>"]
    return out + tail + rest[len(tail) :]


def next_word(step, instruction, values):
    """The true word after the words of an unfinished step."""
    name, x, op, y = instruction
    match len(step):
        case 0 | 1 | 4 | 5:
            return {0: name, 1: x, 4: op, 5: y}[len(step)]
        case 2 | 6:
            return f"{step[-1]}={values[step[-1]]}"
        case 3 | 7:
            return step[-1].split("=")[1]
        case 8 | 11:
            return {8: ">", 11: ";"}[len(step)]
        case 9:
            return str(eval(f"{step[3]} {step[4]} {step[7]}") % 19)
        case _:
            return f"{step[0][:-1]}={step[9]}"


def test_a_faultless_solution_is_right_in_every_respect():
    for problem in problems("test", 40, seed=0):
        solution = write(problem, clean_law())
        assert check_answer(problem, solution)
        assert check_steps(problem, solution) == [True] * (problem.num_steps + 1)
        assert all(liveness(problem, solution[:k]) for k in range(len(solution) + 1))


def test_liveness_is_what_executing_the_rest_gives():
    for seed, problem in enumerate(problems("test", 60, seed=1)):
        solution = write(problem, executor_law(), seed)
        words = tokenizer.decode(solution).split()
        for k in range(len(words) + 1):
            finished = continue_faultlessly(problem, words[:k])
            expected = extract_answer(" ".join(finished)) == problem.answer
            assert liveness(problem, " ".join(words[:k])) == expected, (problem.prompt, words[:k])


def test_some_solutions_are_right_despite_a_wrong_step():
    outcomes = []
    for seed, problem in enumerate(problems("test", 300, seed=2)):
        solution = write(problem, executor_law(), seed)
        outcomes.append((check_answer(problem, solution), all(check_steps(problem, solution))))
    assert outcomes.count((True, False)) > 10
    assert outcomes.count((False, True)) == 0


SOLUTION = "r1: A A=7 7 * B B=12 12 > 8 r1=8 ; # 8 <end>"


@pytest.fixture
def problem():
    for candidate in problems("test", 200, seed=0, lengths=(2, 2)):
        if candidate.answer != "0":
            return candidate
    raise AssertionError("no such problem")


def test_a_step_is_judged_by_the_values_before_it(problem):
    steps = split_steps(tokenizer.decode(write(problem, clean_law())))
    assert check_step(problem, "", steps[0])
    assert check_step(problem, steps[0], steps[1])
    assert not check_step(problem, "", steps[1])
    assert not check_step(problem, "", steps[0].replace(">", "> 18 18", 1))


def test_malformed_text_is_dead_and_has_no_answer(problem):
    good = tokenizer.decode(write(problem, clean_law()))
    for text in ("; ;", "r2: A", "# ", good + " ;", "<end>", "3 4"):
        assert not liveness(problem, text), text
        assert not check_answer(problem, text), text


def test_a_malformed_step_is_dead_even_under_a_right_answer(problem):
    text = tokenizer.decode(write(problem, clean_law())).replace(">", "#", 1)
    assert check_answer(problem, text)
    assert not liveness(problem, text)


def test_an_early_answer_is_live_only_if_it_is_right(problem):
    assert not liveness(problem, "#")
    assert liveness(problem, f"# {problem.answer}")
    assert check_answer(problem, f"# {problem.answer} <end>")
    assert not check_answer(problem, f"# {problem.answer}")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (SOLUTION, "8"),
        ("# 8", None),
        ("# r1 <end>", None),
        ("", None),
        ("# <end>", None),
    ],
)
def test_answers_are_read_from_the_end(text, answer):
    assert extract_answer(text) == answer
