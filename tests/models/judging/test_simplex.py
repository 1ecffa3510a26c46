"""The simplex model: simulated judges, gold, broken judges, and the real ones of TriviaQA."""

from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from jaxtyping import Array
from scipy import stats

from jurax.models.judging import Ranking, Simplex
from tests.models.judging.judges import draw

pytestmark = [
    # numpyro's stick-breaking transform broadcasts one axis against two.
    pytest.mark.rank_promotion("allow"),
    # Chains are short here; that the warning comes is tested by name.
    pytest.mark.filterwarnings("ignore:candidate scores have R-hat"),
    pytest.mark.filterwarnings("ignore:.* divergent draws"),
]
QUICK = dict(num_samples=400, num_warmup=200, num_chains=2, discrepancy=0)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """One table for all that asks about knobs: fits of one shape share a compilation."""
    return draw(np.random.default_rng(4), 2, 60, 3, 2)[0]


def rank_score(ranking: Ranking, truth: pd.Series) -> tuple[float, float, float]:
    """Share of true ranks (ties: any of them) inside the intervals, mean width, Spearman."""
    board = ranking.leaderboard().set_index("candidate")
    gold = truth[board.index]
    first, last = stats.rankdata(-gold, "min"), stats.rankdata(-gold, "max")
    inside = (board["rank_lower"] <= last) & (first <= board["rank_upper"])
    width = (board["rank_upper"] - board["rank_lower"]).mean()
    spearman = stats.spearmanr(-board["expected_rank"], gold).statistic
    return float(inside.mean()), float(width), float(spearman)


@pytest.mark.parametrize("likelihood", ["joint", pytest.param("marginal", marks=pytest.mark.slow)])
def test_true_order_of_clear_candidates(likelihood: str, key: Array) -> None:
    """Judges better than random, candidates far apart: theorem 1, two levels."""
    rng = np.random.default_rng(0)
    shares = {"a": 0.95, "b": 0.6, "c": 0.2}
    rows = []
    for name, share in shares.items():
        right = rng.random(200) < share
        for judge in range(3):
            flipped = rng.random(200) < 0.1 + 0.1 * judge
            for item in range(200):
                rows.append((item, name, judge, int(right[item] ^ flipped[item])))
    table = pd.DataFrame(rows, columns=["item", "candidate", "judge", "score"])
    ranking = Simplex(likelihood=likelihood, drift=0, **QUICK).fit(key, table)
    board = ranking.leaderboard()
    assert list(board["candidate"]) == ["a", "b", "c"] and set(board["status"]) == {"settled"}
    if likelihood == "joint":
        board = board.set_index("candidate")
        for name, share in shares.items():
            assert board.loc[name, "lower_95"] <= share + 0.05
            assert board.loc[name, "upper_95"] >= share - 0.05


@pytest.mark.slow
def test_gold_beside_a_worthless_judge_is_the_answer_of_gold_alone(key: Array) -> None:
    """Scores drawn at random say nothing: posterior means are those of Beta(1 + k, 1 + n - k)."""
    rng = np.random.default_rng(1)
    truth = {name: rng.random(200) < share for name, share in (("a", 0.8), ("b", 0.4))}
    rows = [
        (item, name, "noise", rng.integers(2), float(right[item]) if item < 60 else np.nan)
        for name, right in truth.items()
        for item in range(200)
    ]
    table = pd.DataFrame(rows, columns=["item", "candidate", "judge", "score", "gold"])
    board = Simplex(drift=0, **QUICK).fit(key, table).leaderboard().set_index("candidate")
    for name, right in truth.items():
        wins = right[:60].sum()
        law = stats.beta(1 + wins, 61 - wins)
        assert abs(board.loc[name, "score"] - law.mean()) < 0.5 * law.std()
        width = board.loc[name, "upper_95"] - board.loc[name, "lower_95"]
        assert 0.6 < width / (law.ppf(0.975) - law.ppf(0.025)) < 1.3


@pytest.mark.slow
def test_discrepancy_is_a_quarter_beyond_two_levels(key: Array) -> None:
    table, _, _ = draw(np.random.default_rng(3), 3, 60, 3, 3)
    quick = QUICK | {"levels": range(3), "drift": 0}
    plain = Simplex(**quick).fit(key, table).draws
    default = Simplex(**quick | {"discrepancy": None}).fit(key, table).draws
    extra = default.var(axis=0) - plain.var(axis=0)
    expected = (0.25 * plain.mean(axis=0).std()) ** 2
    # A variance of D draws has a relative error sqrt(2 / D); 800 draws.
    assert np.all(np.abs(extra - expected) < 4 * np.sqrt(2 / 800) * default.var(axis=0) * 2)


@pytest.mark.slow
def test_chains_that_are_too_short_are_reported(table: pd.DataFrame, key: Array) -> None:
    model = Simplex(num_samples=10, num_warmup=10, num_chains=2)
    with pytest.warns(UserWarning, match="raise num_samples, or fix drift=0.3"):
        notes = model.fit(key, table).notes
    assert "candidate scores have R-hat" in notes[0]


@pytest.mark.slow
def test_the_same_key_gives_the_same_ranking(table: pd.DataFrame, key: Array) -> None:
    boards = [Simplex(drift=0, **QUICK).fit(key, table).leaderboard() for _ in range(2)]
    pd.testing.assert_frame_equal(*boards)


@pytest.mark.slow
def test_refit_changes_an_assumption_and_nothing_else(table: pd.DataFrame, key: Array) -> None:
    ranking = Simplex(drift=0, **QUICK).fit(key, table)
    assert ranking.refit is not None
    again = ranking.refit()
    assert np.array_equal(again.draws, ranking.draws)
    assert not np.array_equal(ranking.refit(dependence=0.9).draws, ranking.draws)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        (dict(likelihood="both"), "'joint' or 'marginal'"),
        (dict(drift="some"), "drift must be"),
        (dict(drift=-1), "drift must be"),
        (dict(discrepancy=-0.1), "discrepancy must be"),
        (dict(dependence=2), "at most 1"),
    ],
)
def test_bad_knobs(knobs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Simplex(**knobs)


def test_gold_needs_items(key: Array) -> None:
    table, _, _ = draw(np.random.default_rng(6), 2, 10, 2, 2)
    with pytest.raises(ValueError, match="likelihood='joint'"):
        Simplex(likelihood="marginal").fit(key, table.assign(gold=1))


@pytest.mark.slow
def test_trivia_two_broken_judges_do_not_spoil_the_order(data: Path, key: Array) -> None:
    """Averaging covers a quarter of the ranks with Spearman .88 (research/judging.md 4.1)."""
    wide = pd.read_csv(data / "judge" / "triviaqa_judges" / "wide_v2.csv")
    table = wide.melt(["item", "candidate"], list(wide.columns[3:]), "judge", "score")
    ranking = Simplex().fit(key, table)
    truth = wide.groupby("candidate")["gold"].mean()
    inside, width, spearman = rank_score(ranking, truth)
    assert inside >= 0.95 and width <= 2 and spearman >= 0.97
    assert not ranking.notes
    cards = ranking.judges().set_index("judge")["warning"].to_dict()
    flagged = {judge for judge, warning in cards.items() if "unequally" in warning}
    assert flagged == {"JudgeLM", "Gemma-2B"}


@pytest.mark.slow
def test_a_tenth_of_gold_narrows_the_ranks(data: Path, key: Array) -> None:
    wide = pd.read_csv(data / "judge" / "triviaqa_judges" / "wide_v2.csv")
    table = wide.melt(["item", "candidate"], list(wide.columns[3:]), "judge", "score")
    known = wide[["item", "candidate", "gold"]].sample(frac=0.1, random_state=0)
    truth = wide.groupby("candidate")["gold"].mean()
    inside, width, spearman = rank_score(Simplex().fit(key, table, gold=known), truth)
    assert width <= 2.9 and spearman >= 0.95 and inside >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize(("levels", "judges"), [(2, 3), (3, 3)])
def test_intervals_cover_when_the_prior_is_the_generator(levels: int, judges: int) -> None:
    """95 % intervals of candidates' scores, 40 data sets of 6 candidates and 100 items."""
    model = Simplex(
        levels=range(levels),
        drift=0,
        dependence=0,
        discrepancy=0,
        num_samples=250,
    )
    inside, divergences = [], []
    for n in range(40):
        table, _, truth = draw(np.random.default_rng([7, levels, n]), 6, 100, judges, levels)
        ranking = model.fit(jax.random.key(n), table)
        board = ranking.leaderboard().sort_values("candidate")
        inside.append((board["lower_95"] <= truth) & (truth <= board["upper_95"]))
        divergences.append(int(ranking.posterior.info["divergences"]))
    share = np.mean(inside, axis=1)
    error = max(share.std() / np.sqrt(len(share)), np.sqrt(0.95 * 0.05 / 240))
    assert abs(share.mean() - 0.95) < 4 * error
    assert np.mean(np.array(divergences) > 10) <= 0.1  # of 1,000 draws each
