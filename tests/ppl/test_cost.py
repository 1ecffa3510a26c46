"""The ledger and budgets."""

import jax.numpy as jnp
import numpy as np
import pytest

from jurax.ppl import Cost


def test_entries_add_up() -> None:
    total = Cost(decoded_tokens=3, reward_calls=1) + Cost(decoded_tokens=4, seconds=0.5)
    assert total == Cost(decoded_tokens=7, reward_calls=1, seconds=0.5)


@pytest.mark.parametrize(
    ("spent", "budget", "within"),
    [
        (Cost(decoded_tokens=5), Cost(decoded_tokens=5), True),
        (Cost(decoded_tokens=6), Cost(decoded_tokens=5), False),
        (Cost(decoded_tokens=6, reward_calls=9), Cost(decoded_tokens=7), True),  # 0 does not bind
        (Cost(reward_calls=9), Cost(decoded_tokens=7, reward_calls=8), False),
        (Cost(decoded_tokens=1), Cost(), False),  # an empty budget allows nothing
        (Cost(), Cost(), True),
    ],
)
def test_budgets(spent: Cost, budget: Cost, within: bool) -> None:
    assert bool(spent.within(budget)) is within


def test_problems_are_judged_one_by_one() -> None:
    spent = Cost(decoded_tokens=jnp.array([3, 6]), reward_calls=jnp.array([9, 1]))
    assert spent.within(Cost(decoded_tokens=5)).tolist() == [True, False]
    assert spent.within(Cost(decoded_tokens=5, reward_calls=5)).tolist() == [False, False]


def test_unknown_entries_do_not_exceed_a_budget() -> None:
    assert bool(Cost(seconds=np.nan).within(Cost(seconds=1.0)))


@pytest.mark.parametrize("limit", [-1, np.nan])
def test_bad_budgets_are_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="numbers >= 0"):
        Cost().within(Cost(decoded_tokens=limit))
