"""The law of judges against sums written out, and its likelihoods against enumeration."""

from itertools import product

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from scipy.special import expit

from jurax.models.judging import Scores
from jurax.models.judging.judge_law import (
    confusion,
    joint_log_likelihood,
    marginal_log_likelihood,
    ordered,
    rows_of,
)
from tests.models.judging.judges import draw


def random_theta(rng: np.random.Generator, judges: int, candidates: int, levels: int) -> Array:
    location = ordered(jnp.asarray(rng.exponential(size=(judges, levels - 1))))
    cut = jnp.zeros((judges, 1))
    if levels > 2:
        cut = ordered(jnp.asarray(rng.exponential(size=(judges, levels - 2))))
    return confusion(location, cut, jnp.asarray(rng.normal(size=(judges, candidates))))


def test_confusion_is_the_cumulative_logit() -> None:
    location, cut = np.array([[-1.0, 0.5, 2.0]]), np.array([[-0.7, 0.7]])
    theta = np.asarray(confusion(jnp.asarray(location), jnp.asarray(cut), jnp.array([[0.3]])))
    for m, level in product(range(3), range(3)):
        upper = 1.0 if level == 2 else expit(cut[0, level] - location[0, m] - 0.3)
        lower = 0.0 if level == 0 else expit(cut[0, level - 1] - location[0, m] - 0.3)
        assert abs(theta[0, 0, m, level] - (upper - lower)) < 1e-6


def test_better_answers_are_never_scored_worse() -> None:
    theta = np.asarray(random_theta(np.random.default_rng(0), 5, 3, 4))
    below = theta.cumsum(axis=-1)
    assert np.all(np.diff(below, axis=2) <= 1e-6)


@pytest.mark.parametrize("levels", [2, 3])
def test_joint_likelihood_by_enumeration(levels: int) -> None:
    """The sum over true levels of every answer, written out; half of the answers have gold."""
    rng = np.random.default_rng(levels)
    frame, truth, _ = draw(rng, 2, 6, 3, levels)
    frame = frame.drop(index=[0, 7, 20])  # answers with fewer judges
    frame["gold"] = np.where(frame["item"] % 2 == 0, np.nan, 0)
    known = frame["item"] % 2 == 1
    frame.loc[known, "gold"] = truth[frame["candidate"][known], frame["item"][known]]
    theta = random_theta(rng, 3, 2, levels)
    prevalence = rng.dirichlet(np.ones(levels), 2)
    rho = 0.3
    expected = 0.0
    for item, candidate in product(range(6), range(2)):
        group = frame[(frame["item"] == item) & (frame["candidate"] == candidate)]
        total = 0.0
        power = 1 / (1 + (len(group) - 1) * rho)
        for m in range(levels):
            if item % 2 == 1 and truth[candidate, item] != m:
                continue
            product_ = prevalence[candidate, m]
            for judge, score in zip(group["judge"], group["score"], strict=True):
                product_ *= float(theta[int(judge[-1]), candidate, m, score]) ** power
            total += product_
        expected += np.log(total)
    rows = rows_of(Scores(frame, levels=range(levels)))
    found = joint_log_likelihood(rows, theta, jnp.asarray(prevalence), jnp.array(rho))
    assert abs(float(found) - expected) < 1e-4 * abs(expected)


def test_marginal_likelihood_is_that_of_counts() -> None:
    rng = np.random.default_rng(2)
    frame, _, _ = draw(rng, 3, 8, 2, 3)
    scores = Scores(frame, levels=range(3))
    theta, prevalence = random_theta(rng, 2, 3, 3), rng.dirichlet(np.ones(3), 3)
    expected = 0.0
    for candidate, judge, score in frame[["candidate", "judge", "score"]].itertuples(index=False):
        law = prevalence[candidate] @ np.asarray(theta)[int(judge[-1]), candidate]
        expected += np.log(law[score])
    found = marginal_log_likelihood(
        jnp.asarray(scores.counts()), theta, jnp.asarray(prevalence), jnp.array(0.0)
    )
    assert abs(float(found) - expected) < 1e-4 * abs(expected)
