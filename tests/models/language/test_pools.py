"""Sub-pools: the largest is the method itself, smaller ones are means over disjoint pools."""

import numpy as np
import pytest

from jurax.models.language.dialled_reward import DialledReward
from jurax.models.language.methods import Setting, run_method
from jurax.models.language.noisy_executor import NoisyExecutor
from jurax.models.language.outcome import Outcome
from jurax.models.language.pools import pooled_accuracy, pooled_curve
from jurax.models.language.questions import generate_questions
from jurax.models.language.results import arrays_of, lines_of


def toy(answers: list[list[str]], truths: list[str | None], log_odds=None) -> Outcome:
    shape = np.shape(answers)
    scores = np.zeros((*shape, 1)) if log_odds is None else np.array(log_odds)[..., None]
    return Outcome(
        setting=Setting("majority" if log_odds is None else "best_of_n", shape[1]),
        truths=truths,
        lines=[{"cost": {"decoded_tokens": 10 * shape[1]}} for _ in answers],
        arrays={
            "answer": np.array(answers),
            "finished": np.array(answers) != "",
            "log_odds": scores.astype(np.float32),
        },
        target="toy",
        seconds=0.0,
        compile_seconds=0.0,
    )


def test_votes_by_hand() -> None:
    pool = toy([["8", "3", "3", "8"], ["1", "2", "2", "2"]], ["8", "2"])
    assert pooled_accuracy(pool, 1).tolist() == [0.5, 0.75]
    assert pooled_accuracy(pool, 2).tolist() == [0.5, 0.5]  # ties go to the first
    assert pooled_accuracy(pool, 4).tolist() == [1.0, 1.0]


def test_best_by_hand() -> None:
    pool = toy([["8", "3", "", "5"]], ["8"], log_odds=[[0.1, 0.0, 9.0, 0.2]])
    assert pooled_accuracy(pool, 1).tolist() == [0.25]
    assert pooled_accuracy(pool, 2).tolist() == [0.5]  # the unfinished one is not eligible
    assert pooled_accuracy(pool, 4).tolist() == [0.0]


def test_problems_without_an_answer_are_left_out() -> None:
    assert pooled_accuracy(toy([["8"], ["1"]], [None, "1"]), 1).tolist() == [1.0]


def test_budgets_are_powers_of_two_and_all() -> None:
    curve = pooled_curve(toy([["8"] * 6], ["8"]))
    assert curve.tokens.tolist() == [10, 20, 40, 60] and curve.accuracy.tolist() == [1] * 4


@pytest.mark.slow
@pytest.mark.parametrize("method", ["majority", "best_of_n"])
def test_the_whole_pool_is_the_method(method: str) -> None:
    questions = generate_questions(12, seed=1)
    setting = Setting(method, 6)
    process, posterior = run_method(setting, NoisyExecutor(), DialledReward(), questions)
    outcome = Outcome(
        setting=setting,
        truths=[question.answer for question in questions],
        lines=lines_of(questions, posterior, process),
        arrays=arrays_of(posterior, process),
        target=posterior.target,
        seconds=0.0,
        compile_seconds=0.0,
    )
    assert (pooled_accuracy(outcome, 6) == outcome.correct).all()
