"""`jurax aggregate`: what it writes, for each kind of model, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from jurax.cli import app
from jurax.models.crowd.report import MODELS, Options, aggregate
from jurax.ppl import Posterior
from tests.models.crowd.crowds import draw_top_two

COMMON = ["labels.csv", "summary.json", "workers.csv", "difficulty.png", "workers.png"]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """(Answers, truth) as CSV."""
    table, first, *_ = draw_top_two(np.random.default_rng(0), 40, 10, 3, 0.6)
    names = np.array(["red", "green", "blue"])
    table.assign(label=names[table["label"]]).to_csv(tmp_path / "answers.csv", index=False)
    truth = pd.DataFrame({"task": np.arange(40), "label": names[first]})
    truth.to_csv(tmp_path / "truth.csv", index=False)
    return tmp_path / "answers.csv", tmp_path / "truth.csv"


def read(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, dict]:
    summary = json.loads((folder / "summary.json").read_text())
    return pd.read_csv(folder / "labels.csv"), pd.read_csv(folder / "workers.csv"), summary


@pytest.mark.parametrize("model", [name for name in MODELS if name not in ("kos", "top-two")])
def test_every_member_writes_its_tables(model: str, files, tmp_path: Path) -> None:
    answers, truth = files
    aggregate(answers, tmp_path / "out", Options(model), truth=truth)
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert found == sorted([*COMMON, "reliability.png"])
    labels, workers, summary = read(tmp_path / "out")
    assert list(labels.columns) == ["task", "label", "probability", "p_wrong", "entropy"]
    assert len(labels) == 40 and set(labels["label"]) <= {"red", "green", "blue"}
    np.testing.assert_allclose(labels["probability"] + labels["p_wrong"], 1)
    right = (labels["label"] == pd.read_csv(truth)["label"][labels["task"]].to_numpy()).mean()
    assert summary["scores"]["accuracy"] == pytest.approx(right)
    assert workers["num_answers"].sum() == summary["num_answers"]
    assert workers["agreement"].between(0, 1).all()


def test_top_two_writes_its_posterior_with_intervals(files, tmp_path: Path) -> None:
    answers, _ = files
    options = Options("top-two", posterior="nuts", num_warmup=50, num_samples=20, num_chains=2)
    aggregate(answers, tmp_path / "out", options)
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert found == sorted([*COMMON, "confusable.png", "posterior.nc"])
    labels, workers, summary = read(tmp_path / "out")
    assert np.all(labels["q_lower"] < labels["q"]) and np.all(labels["q"] < labels["q_upper"])
    assert np.all(workers["skill_lower"] < workers["skill_upper"])
    assert np.all(labels["first"] != labels["second"])
    assert summary["posterior"] == "nuts" and summary["scores"] is None
    draws = Posterior.load(tmp_path / "out" / "posterior.nc")
    assert draws.particles["reliability"].shape[-1] == len(workers)


def test_known_labels_are_kept_and_not_scored(files, tmp_path: Path) -> None:
    answers, truth = files
    known = pd.read_csv(truth).head(10)
    known.to_csv(tmp_path / "known.csv", index=False)
    content = aggregate(
        answers, tmp_path / "out", Options(), truth=truth, gold=tmp_path / "known.csv"
    )
    labels, _, _ = read(tmp_path / "out")
    fitted = labels.set_index("task")["label"]
    assert (fitted[known["task"]].to_numpy() == known["label"].to_numpy()).all()
    assert content["scores"]["num_tasks"] == 30


def test_two_classes_give_one_coin_with_a_warning_and_no_posterior(tmp_path: Path) -> None:
    table = {"task": [1, 1, 2, 2], "worker": [1, 2, 1, 2], "label": [0, 0, 1, 0]}
    content = aggregate(pd.DataFrame(table), tmp_path / "out", Options("top-two"))
    assert "one-coin model is fitted" in content["warnings"][0]
    assert content["posterior"] == "none"


def test_command_line(files, tmp_path: Path) -> None:
    answers, truth = files
    arguments = ["aggregate", str(answers), "--truth", str(truth), "--output", str(tmp_path / "o")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0 and "accuracy" in done.output and "labels.csv" in done.output
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 1 and "is not an empty folder" in again.output


@pytest.mark.parametrize(
    ("text", "arguments", "words"),
    [
        ("task,worker\n1,2\n", [], "lacks the column(s) label"),
        ("task,worker,label\n1,1,a\n1,1,b\n", [], "choose repeats="),
        ("task,worker,label\n1,1,a\n1,2,b\n", ["--model", "best"], "model must be one of"),
        ("task,worker,label\n1,1,a\n1,2,b\n", ["--posterior", "x"], "posterior must be one of"),
        ("task,worker,label\n1,1,a\n1,2,b\n", ["--classes", "a,c"], "labels that are no classes"),
        ("task,worker,label\n1,1,a\n1,2,b\n1,3,c\n", ["--model", "kos"], "KOS is for two classes"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(text, arguments, words, tmp_path: Path) -> None:
    (tmp_path / "answers.csv").write_text(text)
    output = tmp_path / "out"
    command = ["aggregate", str(tmp_path / "answers.csv"), "--output", str(output), *arguments]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1 and words in done.output.replace("\n", " ")
    assert not output.exists()


def test_truth_without_labels_is_refused(files, tmp_path: Path) -> None:
    answers, _ = files
    with pytest.raises(ValueError, match="need the columns task and label"):
        aggregate(answers, tmp_path / "out", Options(), truth={"task": [1], "name": ["x"]})
    with pytest.raises(ValueError, match="no task has a known label"):
        aggregate(answers, tmp_path / "out", Options(), truth={"task": ["z"], "label": ["red"]})
    assert not (tmp_path / "out").exists()


def test_numbers_on_the_command_line_are_numbers(tmp_path: Path) -> None:
    table = pd.DataFrame({"task": [1, 1], "worker": [1, 2], "label": [0, 1]})
    content = aggregate(table, tmp_path / "out", Options(classes=["0", "1", "2"]))
    assert content["labels"] == ["0", "1", "2"]
