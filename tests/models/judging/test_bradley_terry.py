"""Bradley-Terry with ties: derivatives, known answers, intervals, and tables that break others."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from jaxtyping import Array
from scipy.optimize import minimize
from scipy.special import expit

from jurax.models.judging import BradleyTerry, Preferences, davidson
from jurax.models.judging.bradley_terry import bootstrap, normal_draws


def battles(
    rng: np.random.Generator, strengths: np.ndarray, num: int, place: float = 0.0, nu: float = 0.0
) -> pd.DataFrame:
    """Battles of random pairs in random order, from Davidson's law."""
    size = len(strengths)
    a = rng.integers(size, size=num)
    b = (a + rng.integers(1, size, size=num)) % size
    eta = strengths[a] - strengths[b] + place
    weights = np.stack([np.exp(eta / 2), np.full(num, nu), np.exp(-eta / 2)], axis=1)
    below = (weights / weights.sum(axis=1, keepdims=True)).cumsum(axis=1)
    outcome = (rng.random((num, 1)) > below[:, :2]).sum(axis=1)
    winner = np.array(["model_a", "tie", "model_b"])[outcome]
    names = np.array([f"m{k}" for k in range(size)])
    return pd.DataFrame({"model_a": names[a], "model_b": names[b], "winner": winner})


def log_posterior(parameters: Array, counts: Array, precision: Array, center: Array) -> Array:
    laws = davidson.log_laws(parameters)
    prior = jnp.sum(precision * (parameters - center) ** 2) / 2
    return jnp.sum(counts * laws) - prior


def test_derivatives_are_those_of_the_law(x64: None) -> None:
    rng = np.random.default_rng(0)
    counts = jnp.asarray(rng.integers(0, 9, (4, 4, 3)) * (1 - np.eye(4))[..., None])
    parameters, center = jnp.asarray(rng.normal(size=6)), jnp.asarray(rng.normal(size=6))
    precision = jnp.asarray(rng.exponential(size=6))
    gradient, information = davidson.derivatives(parameters, counts, precision, center)
    expected = jax.grad(log_posterior)(parameters, counts, precision, center)
    assert jnp.max(jnp.abs(gradient - expected)) < 1e-10
    hessian = jax.hessian(log_posterior)(parameters, counts, precision, center)
    assert jnp.max(jnp.abs(information + hessian)) < 1e-10


def test_laws_sum_to_one_and_are_bradley_terry_without_ties() -> None:
    parameters = jnp.array([0.3, -1.0, 0.2, davidson.NO_TIES])
    laws = np.exp(davidson.log_laws(parameters))
    assert np.allclose(laws.sum(axis=-1), 1)
    assert np.allclose(laws[0, 1, 0], expit(0.3 + 1.0 + 0.2), atol=1e-6)


def test_the_fit_is_the_mode_that_scipy_finds(key: Array) -> None:
    rng = np.random.default_rng(1)
    table = battles(rng, np.array([0.0, 0.5, 1.0, -1.0]), 400, place=0.3, nu=0.6)
    model = BradleyTerry(position=True)
    counts = model.counts(Preferences(table))
    precision, center = model._prior(counts)
    found = davidson.fit(counts, precision, center)

    def loss(x: np.ndarray) -> float:
        return -float(log_posterior(jnp.asarray(x), counts, precision, center))

    other = minimize(loss, np.asarray(found.parameters) + 0.1, method="Nelder-Mead")
    assert loss(np.asarray(found.parameters)) <= other.fun + 1e-2
    assert float(jnp.max(jnp.abs(found.gradient))) < 1e-2


def test_strengths_place_and_ties_are_recovered(key: Array) -> None:
    rng = np.random.default_rng(2)
    strengths = np.linspace(-1, 1, 6)
    table = battles(rng, strengths, 60_000, place=0.4, nu=0.7)
    model = BradleyTerry(position=True)
    counts = model.counts(Preferences(table))
    precision, center = model._prior(counts)
    draws = np.array(normal_draws(key, counts, precision, center, True, 2000))
    draws[:, :-2] -= draws[:, :-2].mean(axis=1, keepdims=True)
    truth = np.append(strengths, [0.4, np.log(0.7)])
    z = (draws.mean(axis=0) - truth) / draws.std(axis=0)
    assert np.max(np.abs(z)) < 4


def test_sandwich_and_bootstrap_agree(key: Array) -> None:
    rng = np.random.default_rng(3)
    table = battles(rng, np.array([0.0, 0.7, 1.4]), 2000, nu=0.5)
    model = BradleyTerry()
    counts = model.counts(Preferences(table))
    precision, center = model._prior(counts)
    keys = jax.random.split(key)
    one = np.asarray(normal_draws(keys[0], counts, precision, center, True, 4000))[:, :3]
    two = np.asarray(bootstrap(keys[1], counts, precision, center, 1000))[:, :3]
    spread = [np.std(x - x.mean(axis=1, keepdims=True), axis=0) for x in (one, two)]
    # The sd of a sd of 1,000 rounds is 2.2 %; four of them.
    assert np.max(np.abs(spread[0] / spread[1] - 1)) < 0.1


@pytest.mark.parametrize("intervals", ["posterior", "sandwich"])
def test_intervals_cover(intervals: str, key: Array) -> None:
    """95 % intervals of differences to the mean, 200 tables: within four standard errors."""
    strengths = np.linspace(-1, 1, 5)
    model = BradleyTerry(intervals=intervals, num_draws=1000)
    inside = []
    for n in range(200):
        table = battles(np.random.default_rng([4, n]), strengths, 300, nu=0.4)
        board = model.fit(jax.random.fold_in(key, n), table).leaderboard()
        board = board.sort_values("candidate")
        inside.append((board["lower_95"] <= strengths) & (strengths <= board["upper_95"]))
    share = np.mean(inside, axis=1)
    error = share.std() / np.sqrt(len(share))
    assert abs(share.mean() - 0.95) < 4 * error + 0.01  # 0.01: normal intervals of 300 battles


def test_an_undefeated_candidate_stays_finite(key: Array) -> None:
    table = {"model_a": ["x"] * 20 + ["y"] * 20, "model_b": ["y"] * 20 + ["z"] * 20}
    table["winner"] = ["model_a"] * 20 + ["model_a", "model_b"] * 10
    for intervals in ("posterior", "sandwich", "bootstrap"):
        board = BradleyTerry(intervals=intervals, num_draws=200).fit(key, table).leaderboard()
        assert board["candidate"].iloc[0] == "x"
        assert np.all(np.isfinite(board["upper_95"].to_numpy()))


def test_groups_that_never_met_are_named(key: Array) -> None:
    table = {"model_a": ["a", "c"], "model_b": ["b", "d"], "winner": ["model_a", "tie"]}
    with pytest.warns(UserWarning, match="2 groups that never met.*'a', 'b'.*'c', 'd'"):
        BradleyTerry().fit(key, table)


def test_ties_alone_cannot_be_dropped(key: Array) -> None:
    table = {"model_a": ["a"], "model_b": ["b"], "winner": ["tie"]}
    with pytest.raises(ValueError, match="every battle is a tie"):
        BradleyTerry(ties="drop").fit(key, table)


def test_elo_is_a_scale(key: Array) -> None:
    table = battles(np.random.default_rng(5), np.array([0.0, 1.0]), 500)
    logit, elo = (BradleyTerry(scale=s).fit(key, table).draws for s in ("logit", "elo"))
    assert np.allclose(elo, 1000 + 400 / np.log(10) * logit)


def test_order_swapped_and_names_as_winners_say_the_same(key: Array) -> None:
    table = battles(np.random.default_rng(6), np.array([0.0, 1.0, 0.3]), 300, nu=0.3)
    named = table.copy()
    named["winner"] = table["model_a"].where(
        table["winner"] == "model_a", table["model_b"].where(table["winner"] == "model_b", "tie")
    )
    turned = table.rename(columns={"model_a": "model_b", "model_b": "model_a"})
    turned["winner"] = table["winner"].map(
        {"model_a": "model_b", "model_b": "model_a", "tie": "tie"}
    )
    boards = [BradleyTerry().fit(key, t).draws for t in (table, named, turned)]
    assert np.allclose(boards[0], boards[1]) and np.allclose(boards[0], boards[2], atol=1e-4)


def test_swapped_rows_say_who_was_shown_first(key: Array) -> None:
    """A swapped row is the row with the two exchanged, as the judge saw it."""
    table = battles(np.random.default_rng(8), np.array([0.0, 1.0, 0.3]), 300, place=1.0, nu=0.3)
    swapped = np.random.default_rng(9).random(300) < 0.5
    names, winner = table[["model_a", "model_b"]], table["winner"]
    turned = winner.map({"model_a": "model_b", "model_b": "model_a", "tie": "tie"})
    marked = pd.DataFrame(
        {
            "model_a": names["model_a"].where(~swapped, names["model_b"]),
            "model_b": names["model_b"].where(~swapped, names["model_a"]),
            "winner": winner.where(~swapped, turned),
            "swapped": swapped,
        }
    )
    counts = [BradleyTerry().counts(Preferences(t)) for t in (table, marked)]
    assert np.array_equal(*counts)
    cards = [BradleyTerry().fit(key, t).judges()["position_bias"] for t in (table, marked)]
    assert np.array_equal(*cards) and cards[0].iloc[0] > 0.1


def test_a_judge_that_prefers_a_place_is_flagged(key: Array) -> None:
    rng = np.random.default_rng(7)
    fair = battles(rng, np.array([0.0, 0.5, 1.0]), 200).assign(judge="fair")
    biased = battles(rng, np.array([0.0, 0.5, 1.0]), 200, place=3.0).assign(judge="biased")
    cards = BradleyTerry().fit(key, pd.concat([fair, biased])).judges().set_index("judge")
    assert "first place" in cards.loc["biased", "warning"] and not cards.loc["fair", "warning"]


BAD = {
    "itself": ({"model_a": ["x"], "model_b": ["x"], "winner": ["tie"]}, "with itself"),
    "nobody": ({"model_a": ["x"], "model_b": ["y"], "winner": ["?"]}, "can be read"),
    "a third": (
        {"model_a": ["x", "z"], "model_b": ["y", "x"], "winner": ["z", "tie"]},
        "'z', who did not take part",
    ),
    "no column": ({"model_a": ["x"], "winner": ["tie"]}, "lacks the column"),
    "no name": ({"model_a": [None], "model_b": ["y"], "winner": ["tie"]}, "no model_a"),
    "text for swapped": (
        {"model_a": ["x"], "model_b": ["y"], "winner": ["tie"], "swapped": ["False"]},
        "'swapped' must hold true or false, got 'False' in row 0",
    ),
    "empty": ({"model_a": [], "model_b": [], "winner": []}, "no preferences"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tables_are_refused_with_a_reason(case: str) -> None:
    table, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        Preferences(table)
