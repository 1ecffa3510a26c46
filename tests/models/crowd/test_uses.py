"""Soft labels, the next question, stopping, agreement: by enumeration and by worked examples."""

import itertools

import numpy as np
import pandas as pd
import pytest

from jurax.models.crowd import (
    Answers,
    MajorityVote,
    TaskPosterior,
    TopTwo,
    information_gain,
    krippendorff_alpha,
    next_questions,
    settled,
    soft_labels,
)
from tests.models.crowd.crowds import draw_top_two


def fitted(seed: int = 0, num_points: int = 1) -> TopTwo:
    """One grid point, q = 3/4, so that laws can be written down."""
    table = draw_top_two(np.random.default_rng(seed), 30, 8, 4, 0.5)[0]
    return TopTwo(num_points=num_points).fit(Answers(table, classes=range(4)))


# -------------------------------------------------------------------- soft labels


def test_soft_labels_are_averages_over_pairs() -> None:
    model = fitted()
    answers = np.zeros((model.answers_.num_tasks, 4))
    for g, h in itertools.permutations(range(4), 2):
        answers[:, g] += 0.75 * model.estimate_.pairs[:, g, h]
        answers[:, h] += 0.25 * model.estimate_.pairs[:, g, h]
    np.testing.assert_allclose(soft_labels(model), answers, atol=1e-5)
    np.testing.assert_allclose(soft_labels(model, "label"), model.probas_, atol=1e-7)


def test_top_two_labels_stand_on_two_classes() -> None:
    soft, model = soft_labels(fitted(num_points=16), "top_two"), fitted(num_points=16)
    np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=1e-5)
    assert ((soft > 0).sum(axis=1) == 2).all()
    sure = model.pairs_["probability"].to_numpy() > 0.6
    rows = soft[sure].to_numpy()
    np.testing.assert_array_equal(rows.argmax(axis=1), model.pairs_["first"][sure])


def test_models_without_pairs_have_label_probabilities_alone() -> None:
    vote = MajorityVote().fit(fitted().answers_)
    assert soft_labels(vote, "label").shape == (30, 4)
    with pytest.raises(ValueError, match="MajorityVote has no second answers"):
        soft_labels(vote)
    with pytest.raises(ValueError, match="kind must be one of"):
        soft_labels(vote, "hard")


def test_a_posterior_is_read_as_a_fit_is() -> None:
    """One draw of p at the fit, and one grid point: the same pairs, shares and gains."""
    model = fitted()
    answers, found = model.answers_, model.estimate_
    posterior = TaskPosterior(
        found.pairs, np.ones((30, 1)), found.shares, np.array([0.75]), found.skills[None], answers
    )
    for kind in ("label", "answers", "top_two"):
        pd.testing.assert_frame_equal(soft_labels(posterior, kind), soft_labels(model, kind))
    np.testing.assert_allclose(information_gain(posterior), information_gain(model), atol=1e-6)
    assert (settled(posterior) == settled(model)).all()


# -------------------------------------------------------------------- next question


def test_gain_is_the_mutual_information_of_the_joint_table() -> None:
    model = fitted()
    gains, num = information_gain(model), 4
    pairs, p = model.estimate_.pairs.astype(float), model.skills_.to_numpy()
    for j, i in itertools.product(range(5), range(8)):
        if np.isnan(gains.iloc[j, i]):
            continue
        joint = np.zeros((num, num))  # of g and the answer
        for g, h, y in itertools.product(range(num), repeat=3):
            if g != h:
                chance = p[i] * (0.75 * (y == g) + 0.25 * (y == h)) + (1 - p[i]) / num
                joint[g, y] += pairs[j, g, h] * chance
        alone = joint.sum(axis=1)[:, None] * joint.sum(axis=0)[None, :]
        expected = np.sum(joint * np.log(np.maximum(joint, 1e-300) / np.maximum(alone, 1e-300)))
        assert gains.iloc[j, i] == pytest.approx(expected, abs=2e-6)


def test_questions_already_asked_are_left_out_and_tasks_are_not_repeated() -> None:
    model = fitted()
    best = next_questions(model, 10)
    assert best["task"].is_unique and best["gain"].is_monotonic_decreasing
    asked = set(zip(model.answers_.task, model.answers_.worker, strict=True))
    tasks, workers = (pd.Index(x) for x in (model.answers_.tasks, model.answers_.workers))
    for task, worker in zip(best["task"], best["worker"], strict=True):
        assert (tasks.get_loc(task), workers.get_loc(worker)) not in asked
    more = next_questions(model, 10, per_task=8)
    assert float(np.sum(more["gain"])) >= float(np.sum(best["gain"]))
    with pytest.raises(ValueError, match="num and per_task"):
        next_questions(model, 0)
    with pytest.raises(ValueError, match="no model of pairs"):
        information_gain(MajorityVote().fit(model.answers_))


@pytest.mark.slow
def test_asking_by_gain_needs_fewer_answers_than_asking_at_random() -> None:
    """Twenty crowds; after 200 further answers each the error is smaller, paired by crowd."""
    differences = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        table, first, *_ = draw_top_two(rng, 100, 20, 4, 1.0, easy=0.7)
        start = table.groupby("task").sample(3, random_state=seed)
        rest = table.drop(start.index)
        by_chance = pd.concat([start, rest.sample(200, random_state=seed)])
        by_gain = start
        for _ in range(4):
            model = TopTwo().fit(Answers(by_gain, classes=range(4)))
            asked = next_questions(model, 50)[["task", "worker"]]
            by_gain = pd.concat([by_gain, rest.merge(asked)])
        errors = []
        for answers in (by_gain, by_chance):
            labels = TopTwo().fit_predict(Answers(answers, classes=range(4)))
            errors.append(np.mean(labels.sort_index().to_numpy() != first))
        differences.append(errors[1] - errors[0])
    # Mean advantage three standard errors above zero.
    assert np.mean(differences) > 3 * np.std(differences, ddof=1) / np.sqrt(20)


def test_settled_tasks_are_those_with_a_sure_label() -> None:
    model = fitted()
    wrong = 1 - model.probas_.max(axis=1)
    assert (settled(model, 0.1) == (wrong <= 0.1)).all() and 0 < settled(model, 0.1).sum() < 30
    with pytest.raises(ValueError, match="p_wrong"):
        settled(model, 1.0)


# -------------------------------------------------------------------- agreement


def test_alpha_of_the_worked_example() -> None:
    """Krippendorff 2011, section D: four observers, twelve units, missing data: .743."""
    rows = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ]
    cells = [
        {"task": unit, "worker": observer, "label": label}
        for observer, row in enumerate(rows)
        for unit, label in enumerate(row)
        if label is not None
    ]
    answers = Answers(pd.DataFrame(cells))
    assert krippendorff_alpha(answers) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(answers, "ordinal") == pytest.approx(0.815, abs=1e-3)
    assert krippendorff_alpha(answers, "interval") == pytest.approx(0.849, abs=1e-3)


def test_agreement_that_is_not_defined_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a task with two answers"):
        krippendorff_alpha(Answers({"task": [1, 2], "worker": [1, 2], "label": ["a", "b"]}))
    same = Answers({"task": [1, 1], "worker": [1, 2], "label": ["a", "a"]}, classes=["a", "b"])
    with pytest.raises(ValueError, match="all answers are equal"):
        krippendorff_alpha(same)
    with pytest.raises(ValueError, match="level must be one of"):
        krippendorff_alpha(same, "metric")
