"""Laws of answers by hand, and held-out scores that know the model which made the data."""

import numpy as np
import pandas as pd
import pytest

from jurax.models.crowd import (
    GLAD,
    KOS,
    MACE,
    MMSR,
    Answers,
    DawidSkene,
    MajorityVote,
    OneCoinDawidSkene,
    TopTwo,
    held_out,
)
from jurax.models.crowd.comparison import split
from tests.models.crowd.crowds import draw_top_two

MEMBERS = [MajorityVote, OneCoinDawidSkene, DawidSkene, GLAD, MACE, MMSR, TopTwo]


def crowd(num_classes: int = 4) -> Answers:
    table = draw_top_two(np.random.default_rng(0), 60, 12, num_classes, 0.5)[0]
    return Answers(table, classes=range(num_classes))


@pytest.mark.parametrize("member", [*MEMBERS, lambda: TopTwo(method="spectral")])
def test_laws_of_answers_are_laws(member) -> None:
    answers = crowd()
    law = member().fit(answers).estimate_.answer_law
    chances = law(answers.task, answers.worker)
    assert chances.shape == (len(answers), 4) and (chances > 0).all()
    np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-5)


def test_law_of_the_top_two_is_its_equation() -> None:
    answers = crowd()
    model = TopTwo(num_points=1).fit(answers)  # one grid point: q = 3/4 for every task
    pairs, p = model.estimate_.pairs, model.skills_.to_numpy()
    task, worker = np.array([3, 7]), np.array([1, 4])
    found = model.estimate_.answer_law(task, worker)
    for row, (j, i) in enumerate(zip(task, worker, strict=True)):
        informed = 0.75 * pairs[j].sum(axis=1) + 0.25 * pairs[j].sum(axis=0)
        np.testing.assert_allclose(found[row], p[i] * informed + (1 - p[i]) / 4, rtol=1e-5)


def test_law_of_matrices_is_its_equation() -> None:
    answers = crowd()
    model = DawidSkene().fit(answers)
    found = model.estimate_.answer_law(np.array([5]), np.array([2]))[0]
    for k in range(4):
        row = model.errors_.loc[(answers.workers[2], k)].to_numpy()
        assert found[k] == pytest.approx(float(model.probas_.iloc[5] @ row), rel=1e-5)


def test_splits_leave_every_task_and_worker_an_answer() -> None:
    answers = crowd()
    held = split(np.random.default_rng(0), answers, 0.2)
    assert held.sum() == round(0.2 * len(answers))
    kept = answers.subset(~held)
    assert len(np.unique(kept.task)) == answers.num_tasks
    with pytest.raises(ValueError, match="every task must keep an answer"):
        answers.subset(answers.task != 0)


def test_the_model_that_made_the_answers_scores_best() -> None:
    table, *_ = draw_top_two(np.random.default_rng(1), 400, 30, 5, 0.4)
    answers = Answers(table, classes=range(5))
    members = {"top two": TopTwo(), "one coin": OneCoinDawidSkene(), "vote": MajorityVote()}
    table = held_out(answers, members)
    assert list(table.index) == ["top two", "one coin", "vote"]
    assert np.all(table["behind"][1:] < -4 * table["error"][1:])
    assert table.loc["top two", "behind"] == 0.0
    pd.testing.assert_frame_equal(table, held_out(answers, members))


def test_fits_of_the_caller_stay_as_they_are() -> None:
    answers = crowd()
    model = TopTwo().fit(answers)
    labels, estimate = model.labels_, model.estimate_
    held_out(answers, {"top two": model})
    assert model.estimate_ is estimate and model.labels_ is labels


def test_binary_members_can_be_compared() -> None:
    table, *_ = draw_top_two(np.random.default_rng(2), 100, 12, 3, 0.5)
    answers = Answers(table.assign(label=table["label"] % 2))
    assert len(held_out(answers, {"kos": KOS(), "coin": OneCoinDawidSkene()})) == 2


def test_what_cannot_be_held_out_is_refused() -> None:
    answers = Answers({"task": [1, 2], "worker": [1, 2], "label": ["a", "b"]})
    with pytest.raises(ValueError, match="no answer can be held out"):
        held_out(answers, {"vote": MajorityVote()})
    with pytest.raises(ValueError, match="share must be in"):
        held_out(crowd(), {"vote": MajorityVote()}, share=1.0)
