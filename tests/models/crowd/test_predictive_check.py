"""Predictive checks: silent on the model's own data, loud on copies and third answers."""

import jax
import numpy as np
import pandas as pd
import pytest
from jaxtyping import Array

from jurax.inference import SVI, infer
from jurax.models.crowd import Answers, TopTwo, predictive_check, read_tasks
from jurax.models.crowd.predictive_check import drawn, statistics
from tests.models.crowd.crowds import draw_top_two


def checked(key: Array, table: pd.DataFrame, num_replicates: int = 200) -> pd.DataFrame:
    answers = Answers(table, classes=range(5))
    key_run, key_read = jax.random.split(key)
    posterior = infer(key_run, TopTwo().program(answers), SVI(num_steps=2000, num_samples=200))
    return predictive_check(read_tasks(key_read, posterior, answers), num_replicates)


def test_statistics_by_hand() -> None:
    table = {"task": [1] * 4 + [2] * 2, "worker": [1, 2, 3, 4, 1, 2], "label": list("aabcbb")}
    answers = Answers(table)
    found = statistics(answers, answers.label)
    assert found["plurality"] == pytest.approx((0.5 + 1) / 2)
    assert found["runner-up"] == pytest.approx(0.25 / 2)
    assert found["distinct"] == 2.0
    assert found["spread"] == pytest.approx(np.std([1, 1, 0, 0]))


def test_indices_are_drawn_with_their_chances() -> None:
    chances = np.tile([0.2, 0.0, 0.8], (20_000, 1))
    counts = np.bincount(drawn(np.random.default_rng(0), chances), minlength=3)
    assert counts[1] == 0 and abs(counts[0] - 4000) < 5 * np.sqrt(20_000 * 0.16)


@pytest.mark.slow
@pytest.mark.rank_promotion("allow")  # numpyro's SVI
def test_data_of_the_model_are_not_flagged_and_copies_are(key: Array) -> None:
    table, *_ = draw_top_two(np.random.default_rng(0), 200, 20, 5, 0.5)
    found = checked(key, table)
    assert np.all(found["p_value"] > 0.02)
    assert np.all(found["lower"] <= found["upper"])
    source = table[table["worker"] < 3]
    copies = [source.assign(worker=source["worker"] + 100 * n) for n in range(1, 6)]
    copied = checked(key, pd.concat([table, *copies]))
    assert np.any(copied["p_value"] < 0.02)
    with pytest.raises(ValueError, match="num_replicates must be at least 20"):
        checked(key, table, 5)


@pytest.mark.slow
@pytest.mark.rank_promotion("allow")  # numpyro's SVI
def test_a_third_tempting_answer_is_flagged(key: Array) -> None:
    rng = np.random.default_rng(1)
    task, worker = np.nonzero(rng.random((200, 20)) < 0.6)
    order = np.array([rng.permutation(5) for _ in range(200)])
    label = order[task, rng.choice(3, p=[0.5, 0.25, 0.25], size=len(task))]
    found = checked(key, pd.DataFrame({"task": task, "worker": worker, "label": label}))
    assert np.any(found["p_value"] < 0.02)
