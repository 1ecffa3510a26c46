"""`jurax rank`: what it writes for both kinds of table, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from jurax.cli import app
from jurax.models.judging.judge_cards import COLUMNS as CARD_COLUMNS
from jurax.models.judging.report import Options, rank
from jurax.ppl import Posterior
from tests.models.judging.judges import draw
from tests.models.judging.test_bradley_terry import battles
from tests.models.judging.test_ranking import COLUMNS

pytestmark = pytest.mark.rank_promotion("allow")
COMMON = {
    "judges.csv",
    "leaderboard.csv",
    "leaderboard.md",
    "leaderboard.png",
    "ranks.png",
    "summary.json",
    "superiority.csv",
}


@pytest.mark.slow
def test_scores(tmp_path: Path) -> None:
    table, _, _ = draw(np.random.default_rng(0), 3, 40, 2, 2)
    table.to_csv(tmp_path / "scores.csv", index=False)
    arguments = ["rank", str(tmp_path / "scores.csv"), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*arguments, "--self", "judge 0=1", "--drift", "0"])
    assert result.exit_code == 1 and "'1', which is no candidate" in result.stderr
    named = table.assign(candidate="c" + table["candidate"].astype(str))
    named.to_csv(tmp_path / "scores.csv", index=False)
    result = CliRunner().invoke(app, [*arguments, "--self", "judge 0=c1", "--drift", "0"])
    assert result.exit_code == 0, result.output
    folder = tmp_path / "out"
    assert {path.name for path in folder.iterdir()} == COMMON | {"posterior.nc"}
    board = pd.read_csv(folder / "leaderboard.csv")
    assert list(board.columns) == COLUMNS
    assert board.set_index("candidate")["num_judges"].to_dict() == {"c0": 2, "c1": 1, "c2": 2}
    assert list(pd.read_csv(folder / "judges.csv").columns) == list(CARD_COLUMNS)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["kind"] == "scores" and summary["drift"] == 0
    assert Posterior.load(folder / "posterior.nc").particles["prevalence"].shape[2:] == (3, 2)


def test_preferences(tmp_path: Path) -> None:
    table = battles(np.random.default_rng(1), np.array([0.0, 1.0, 2.0]), 300, nu=0.3)
    table.to_csv(tmp_path / "battles.csv", index=False)
    folder = tmp_path / "out"
    arguments = ["rank", str(tmp_path / "battles.csv"), "--output", str(folder)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert {path.name for path in folder.iterdir()} == COMMON
    board = pd.read_csv(folder / "leaderboard.csv")
    assert list(board["candidate"]) == ["m2", "m1", "m0"]
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 1 and "not an empty folder" in again.stderr


def test_a_table_of_neither_kind_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="either the columns item, candidate, judge, score"):
        rank({"task": [1], "worker": [2], "label": [3]}, tmp_path / "out", Options())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--drift", "much"], "--drift must be a number"), (["--self", "x"], "judge=candidate")],
)
def test_bad_options(options: list[str], message: str, tmp_path: Path) -> None:
    table, _, _ = draw(np.random.default_rng(2), 2, 5, 1, 2)
    table.to_csv(tmp_path / "scores.csv", index=False)
    arguments = ["rank", str(tmp_path / "scores.csv"), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*arguments, *options])
    assert result.exit_code == 1 and message in result.stderr
