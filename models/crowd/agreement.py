"""Agreement of workers beyond chance: Krippendorff's alpha.

    alpha = 1 - observed disagreement / disagreement of answers dealt out at random

1: all answers to a task are equal; 0: as if dealt out at random. Krippendorff 2011, for nominal,
ordinal or interval labels; computed by the package krippendorff from counts (task x class), so that
no matrix of tasks and workers is made.
"""

import krippendorff
import numpy as np

from jurax.models.crowd.answers import Answers

LEVELS = ("nominal", "ordinal", "interval", "ratio")


def krippendorff_alpha(answers: Answers, level: str = "nominal") -> float:
    """Alpha of a table of answers; tasks with one answer do not count.

    Args:
        answers: repeated answers of a worker count as those of different workers.
        level: "nominal", "ordinal", "interval" or "ratio"; all but the first need ordered classes,
            the last two numbers.

    Raises:
        ValueError: for another level, or if no task has two answers, or all answers are equal.

    Example:
        >>> table = {"task": [1, 1, 2, 2], "worker": [1, 2, 1, 2], "label": ["a", "a", "b", "b"]}
        >>> krippendorff_alpha(Answers(table))
        1.0
    """
    if level not in LEVELS:
        raise ValueError(f"level must be one of {', '.join(LEVELS)}; got {level!r}")
    counts = np.zeros((answers.num_tasks, answers.num_classes))
    np.add.at(counts, (answers.task, answers.label), 1)
    if counts.sum(axis=1).max() < 2:
        raise ValueError("agreement needs a task with two answers; every task has one")
    if (counts.sum(axis=0) > 0).sum() < 2:
        raise ValueError("all answers are equal, so agreement beyond chance is not defined")
    domain = list(answers.classes) if level in ("interval", "ratio") else range(counts.shape[1])
    return float(
        krippendorff.alpha(value_counts=counts, value_domain=domain, level_of_measurement=level)
    )
