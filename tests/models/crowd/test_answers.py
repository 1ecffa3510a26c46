"""Answers: what a table may be, and twenty-odd ways in which it is refused."""

import numpy as np
import pandas as pd
import pytest

from jurax.models.crowd import Answers, DawidSkene, MajorityVote, TopTwo

GOOD = {"task": [1, 1, 2, 2], "worker": ["a", "b", "a", "b"], "label": ["x", "y", "y", "y"]}


def changed(**columns) -> pd.DataFrame:
    return pd.DataFrame({**GOOD, **columns})


def test_ids_and_labels_keep_their_types() -> None:
    answers = Answers(changed(label=[2.5, 1.0, 1.0, 2.5], extra=[0, 0, 0, 0]))
    assert list(answers.tasks) == [1, 2] and list(answers.workers) == ["a", "b"]
    assert list(answers.classes) == [1.0, 2.5] and answers.label.tolist() == [1, 0, 0, 1]
    assert repr(answers) == "Answers(4 answers, 2 tasks, 2 workers, 2 classes)"


def test_frames_mappings_and_files_are_the_same(tmp_path) -> None:
    pd.DataFrame(GOOD).to_csv(tmp_path / "answers.csv", index=False)
    for table in (GOOD, pd.DataFrame(GOOD), tmp_path / "answers.csv"):
        assert Answers(table).label.tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("table", "options", "error", "message"),
    [
        (3, {}, TypeError, "must be a pandas DataFrame"),
        ([("t", "w", "l")], {}, TypeError, "got list"),
        ("nowhere.csv", {}, ValueError, "there is no file nowhere.csv"),
        ({}, {}, ValueError, "lacks the column.s. task, worker, label; it has none"),
        (pd.DataFrame(GOOD).drop(columns="label"), {}, ValueError, "lacks the column.s. label"),
        (
            pd.DataFrame(GOOD).rename(columns={"worker": "performer"}),
            {},
            ValueError,
            "rename 'performer' to 'worker'",
        ),
        (pd.DataFrame(GOOD).iloc[:0], {}, ValueError, "holds no answers"),
        (changed(label=["x", None, "y", "y"]), {}, ValueError, "have no label, the first in row 1"),
        (changed(task=[1, 1, np.nan, 2]), {}, ValueError, "have no task, the first in row 2"),
        (changed(worker=[None, "b", "a", "b"]), {}, ValueError, "have no worker"),
        (changed(label=[1.0, np.inf, 0.0, 0.0]), {}, ValueError, "'label' is infinite in row 1"),
        (changed(label=[["x"], "y", "y", "y"]), {}, TypeError, "must be hashable"),
        ({**GOOD, "label": ["x"]}, {}, ValueError, "columns must be equally long"),
        ({**GOOD, "label": np.zeros((4, 2))}, {}, ValueError, "must have one axis"),
        (changed(worker=list("aaab")), {}, ValueError, "1 answers repeat .* 'a' on task 1"),
        (GOOD, {"repeats": "mean"}, ValueError, "repeats must be one of"),
        (GOOD, {"classes": ["x", "x", "y"]}, ValueError, "classes holds 'x' twice"),
        (GOOD, {"classes": ["x", None]}, ValueError, "classes holds a missing value"),
        (GOOD, {"classes": ["x", "z"]}, ValueError, "3 answers have labels that are no classes"),
        (GOOD, {"classes": []}, ValueError, "labels that are no classes"),
        (changed(label=["y"] * 4), {}, ValueError, "there is only the class .'y'."),
        (
            pd.DataFrame([[1, 1, "a", "x"]], columns=["task", "task", "worker", "label"]),
            {},
            ValueError,
            "has the column 'task' twice",
        ),
    ],
)
def test_what_is_no_table_of_answers_is_refused(table, options, error, message) -> None:
    with pytest.raises(error, match=message):
        Answers(table, **options)


def test_a_file_that_is_no_table_is_refused(tmp_path) -> None:
    path = tmp_path / "answers.csv"
    for content, message in ((b"", "not a readable CSV"), (b"\xff\xfe\x00", "not a readable CSV")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            Answers(path)


@pytest.mark.parametrize(
    ("repeats", "left"), [("first", [0, 1]), ("last", [1, 1]), ("all", [0, 1, 1])]
)
def test_repeated_pairs_are_treated_as_asked(repeats: str, left: list) -> None:
    table = {"task": [1, 1, 2], "worker": ["a", "a", "a"], "label": [0, 1, 1]}
    answers = Answers(table, repeats=repeats, classes=[0, 1])
    assert answers.label.tolist() == left and answers.num_repeated == 1


def test_aggregators_count_repeats_and_say_so() -> None:
    table = {"task": [1, 1, 1], "worker": ["a", "a", "b"], "label": ["x", "x", "y"]}
    with pytest.warns(UserWarning, match="1 answers repeat a pair"):
        assert MajorityVote().fit_predict(table).tolist() == ["x"]


@pytest.mark.parametrize(
    ("gold", "message"),
    [
        (pd.Series(["x", "y"], index=[1, 1]), "names task 1 more than once"),
        ({1: "z"}, "gold label 'z' is none of the classes"),
        ({1: None}, "gold has no label for task 1"),
    ],
)
def test_gold_that_cannot_be_is_refused(gold, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MajorityVote().fit(GOOD, gold=gold)


def test_gold_tasks_without_answers_are_left_out_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="1 gold tasks have no answers"):
        assert MajorityVote().fit_predict(GOOD, gold={1: "y", 9: "x"}).tolist() == ["y", "y"]


@pytest.mark.parametrize(
    ("constructor", "message"),
    [
        (lambda: MajorityVote(ties="best"), "ties must be one of"),
        (lambda: MajorityVote(n_iter=-1), "n_iter and tol must be numbers >= 0"),
        (lambda: DawidSkene(smoothing=-1.0), "smoothing must be a finite number >= 0"),
        (lambda: DawidSkene(priors="flat"), "priors must be one of"),
        (lambda: TopTwo(method="oracle"), "method must be one of"),
        (lambda: TopTwo(num_points=0), "num_points must be at least 1"),
    ],
)
def test_options_that_cannot_be_are_refused(constructor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        constructor()
