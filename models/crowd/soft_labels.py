"""Soft labels: what to train a classifier on when the right class is not certain.

    label:    P(g = k)
    answers:  E[q 1{k = g} + (1 - q) 1{k = h}], what informed workers answer
    top_two:  the same, kept on the two classes of the most probable pair and scaled to sum to one

Two classes instead of all drop the answers of guessers and keep the confusion (Jeong and Chung
2023, section on training with their two soft labels; theirs are raw shares of answers).

Shape letters: J tasks, K classes.
"""

import numpy as np
import pandas as pd

from jurax.models.crowd.aggregator import AbstractAggregator
from jurax.models.crowd.top_two_posterior import TaskPosterior

KINDS = ("label", "answers", "top_two")


def soft_labels(found: AbstractAggregator | TaskPosterior, kind: str = "answers") -> pd.DataFrame:
    """Soft labels of all tasks, task x label; rows sum to one.

    Args:
        found: a fitted aggregator, or what `read_tasks` returns.
        kind: "label", "answers" or "top_two"; all but "label" need a model of pairs (`TopTwo`).

    Raises:
        ValueError: for another kind, or a model without pairs.

    Example:
        >>> from jurax.models.crowd import MajorityVote
        >>> vote = MajorityVote().fit({"task": [1, 1], "worker": [1, 2], "label": ["a", "b"]})
        >>> soft_labels(vote, "label").loc[1].tolist()
        [0.5, 0.5]
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
    estimate, answers = found.estimate_, found.answers_
    if kind != "label" and (estimate.pairs is None or estimate.shares is None):
        raise ValueError(
            f"{type(found).__name__} has no second answers, which kind={kind!r} needs; "
            "use kind='label' or fit TopTwo to three classes or more"
        )
    if kind == "label":
        rows = estimate.probas
    elif kind == "answers":
        rows = estimate.shares
    else:
        rows = on_two(estimate.shares, estimate.pairs)
    index = pd.Index(answers.tasks, name="task")
    return pd.DataFrame(rows, index, pd.Index(answers.classes, name="label"))


def on_two(shares: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Shares on the two classes of the most probable pair, in either order, scaled to one."""
    both = pairs + np.swapaxes(pairs, 1, 2)
    first, second = np.divmod(both.reshape(len(pairs), -1).argmax(axis=1), pairs.shape[1])
    kept, rows = np.zeros_like(shares), np.arange(len(pairs))
    for column in (first, second):
        kept[rows, column] = shares[rows, column]
    return kept / kept.sum(axis=1, keepdims=True)
