"""Rankings: ranks, intervals, tiers and tables from draws whose answers are known."""

import jax
import numpy as np
import pandas as pd
import pytest

from jurax.models.judging import Ranking
from jurax.models.judging.ranking import with_discrepancy

COLUMNS = (
    "candidate score lower_50 upper_50 lower_95 upper_95 expected_rank rank_lower rank_upper "
    "p_best p_top3 num_items num_judges status"
).split()


def ranking(draws: np.ndarray, **fields) -> Ranking:
    size = draws.shape[1]
    names = pd.Index([f"c{k}" for k in range(size)])
    return Ranking(names, draws, np.full(size, 10), np.full(size, 2), **fields)


def test_columns_and_order() -> None:
    rng = np.random.default_rng(0)
    board = ranking(rng.normal(size=(500, 4)) + np.array([0, 9, 3, 6])).leaderboard()
    assert list(board.columns) == COLUMNS
    assert list(board["candidate"]) == ["c1", "c3", "c2", "c0"]
    assert set(board["status"]) == {"settled"}


def test_rank_probabilities_and_superiority_of_two_normals() -> None:
    """P(x > y) = Phi(d / sqrt 2) for unit normals at distance d."""
    rng = np.random.default_rng(1)
    found = ranking(rng.normal(size=(40_000, 2)) + np.array([0.0, 1.0]))
    expected = 0.76025  # Phi(1 / sqrt 2)
    error = np.sqrt(expected * (1 - expected) / 40_000)
    assert abs(found.superiority().loc["c1", "c0"] - expected) < 4 * error
    table = found.rank_probabilities()
    assert abs(table.loc["c1", 1] - expected) < 4 * error
    assert np.allclose(table.sum(axis=1), 1) and np.allclose(table.sum(axis=0), 1)


def test_intervals_hold_the_point_and_equal_scores_share_the_better_rank() -> None:
    draws = np.zeros((100, 3))
    assert np.all(ranking(draws).ranks == 1)
    rare = np.tile([3.0, 2.0, 1.0], (1000, 1))
    rare[:20, 0] = 0.0  # 2 % of draws put the first last
    board = ranking(rare).leaderboard()
    middle = board["expected_rank"].round()
    assert np.all((board["rank_lower"] <= middle) & (middle <= board["rank_upper"]))


def test_tiers() -> None:
    rng = np.random.default_rng(2)
    draws = rng.normal(size=(2000, 4)) * 0.5 + np.array([5.0, 5.2, 0.0, 0.1])
    assert ranking(draws).tiers().to_dict() == {"c0": 1, "c1": 1, "c2": 2, "c3": 2}
    with pytest.raises(ValueError, match="probability must lie in"):
        ranking(draws).tiers(0.3)


def test_score_intervals_stay_within_the_scale() -> None:
    rng = np.random.default_rng(3)
    board = ranking(rng.normal(size=(500, 2)), limits=(-0.5, 0.5)).leaderboard()
    ends = board[["lower_95", "upper_95"]].to_numpy()
    assert np.all(np.abs(ends) <= 0.5)


def test_discrepancy_has_the_stated_size() -> None:
    draws = np.tile([0.0, 2.0, 4.0], (50_000, 1))
    sizes = np.array([0.0, 0.25, 0.5])
    found = with_discrepancy(draws, sizes, np.random.default_rng(4))
    spread = sizes * np.std([0.0, 2.0, 4.0])
    assert np.allclose(found.std(axis=0), spread, rtol=4 / np.sqrt(2 * 50_000))


def test_exports(tmp_path) -> None:
    found = ranking(np.random.default_rng(5).normal(size=(50, 3)))
    found.to_csv(tmp_path / "board.csv")
    assert list(pd.read_csv(tmp_path / "board.csv").columns) == COLUMNS
    assert found.to_markdown().startswith("| candidate | score |")
    assert "<table" in found._repr_html_() and "c0" in repr(found)
    with pytest.raises(ValueError, match="no judges"):
        found.judges()


def test_posterior_intervals_are_those_of_draws() -> None:
    draws = np.asarray(jax.random.normal(jax.random.key(0), (1000, 2)))
    board = ranking(draws).leaderboard().set_index("candidate")
    assert np.allclose(board.loc["c0", "lower_95"], np.quantile(draws[:, 0], 0.025))
    assert np.allclose(board.loc["c0", "upper_50"], np.quantile(draws[:, 0], 0.75))
