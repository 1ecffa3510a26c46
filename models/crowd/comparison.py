"""Which member of the family predicts answers best: the log score of answers that were held out.

    score = mean over held-out answers of log P(y_ij | the other answers)

A strictly proper score that needs no known labels. P is the member's `answer_law` (`laws.py`).
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Bool

from jurax.models.crowd.aggregator import AbstractAggregator
from jurax.models.crowd.answers import Answers


def held_out(
    answers: Answers,
    members: Mapping[str, AbstractAggregator],
    share: float = 0.1,
    num_splits: int = 3,
    seed: int = 0,
) -> pd.DataFrame:
    """Fit each member to most answers and score the rest.

    Splits are the same for all members. Each task and each worker keeps an answer, so that on thin
    tables fewer than `share` of the answers are held out.

    Args:
        answers: without repeated pairs of task and worker, or a repeat can give its twin away.
        members: aggregators by name.
        share: of the answers that are held out, in (0, 1).
        num_splits: at least one.
        seed: of the splits.

    Returns:
        One row for each member, best first: `log_score` in nats per answer (higher is better), and
        `behind` with `error`: mean and standard error of its distance to the best member, answer
        by answer.

    Raises:
        ValueError: for numbers out of range, or if no answer can be held out.

    Example:
        >>> from jurax.models.crowd import MajorityVote, Wawa
        >>> answers = Answers({"task": [1, 1, 1, 2, 2, 2], "worker": [1, 2, 3] * 2,
        ...                    "label": list("aabbbb")})
        >>> held_out(answers, {"vote": MajorityVote(), "wawa": Wawa()}, 0.3).columns.tolist()
        ['log_score', 'behind', 'error']
    """
    if not 0 < share < 1 or num_splits < 1:
        raise ValueError(
            f"share must be in (0, 1) and num_splits at least 1, got {share} and {num_splits}"
        )
    generator = np.random.default_rng(seed)
    masks = [split(generator, answers, share) for _ in range(num_splits)]
    scores = pd.DataFrame(
        {
            name: np.concatenate([log_scores(answers, member, held) for held in masks])
            for name, member in members.items()
        }
    )
    best = scores.mean().idxmax()
    behind = scores.sub(scores[best], axis=0)
    table = {"log_score": scores.mean(), "behind": behind.mean(), "error": behind.sem()}
    return pd.DataFrame(table).sort_values("log_score", ascending=False)


def split(generator: np.random.Generator, answers: Answers, share: float) -> Bool[np.ndarray, " E"]:
    """True at the answers to hold out: a random `share` of those that can be spared."""
    order = generator.permutation(len(answers))
    spare = np.ones(len(answers), bool)
    for column in (answers.task, answers.worker):
        first = np.unique(column[order], return_index=True)[1]
        spare[order[first]] = False
    held = order[spare[order]][: round(share * len(answers))]
    if not len(held):
        raise ValueError(
            "no answer can be held out: each is the only one of its task or worker; gather more "
            "answers for each task"
        )
    return np.isin(np.arange(len(answers)), held)


def log_scores(
    answers: Answers, member: AbstractAggregator, held: Bool[np.ndarray, " E"]
) -> np.ndarray:
    """Log P of each held-out answer, given the others."""
    fresh = dataclasses.replace(member)  # the caller's stays as it is
    law = fresh.fit(answers.subset(~held)).estimate_.answer_law
    chances = law(answers.task[held], answers.worker[held])
    return np.log(np.maximum(chances[np.arange(held.sum()), answers.label[held]], 1e-30))
