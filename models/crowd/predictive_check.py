"""Posterior predictive check: do crowds drawn from the fitted top-two model look like the data?

Replicates keep who answered what. Each draws, for every task, the pair (g, h) and q from their
posteriors (independently of one another) and new answers by the model, and is compared by

    plurality: mean over tasks of the share of the most frequent answer,
    runner-up: the same of the second most frequent one,
    distinct:  mean number of different answers of a task,
    spread:    standard deviation over workers of their agreement with the plurality.

Gelman, Meng and Stern 1996. A small p-value says how the model fails: workers who copy raise the
plurality and lower the number of distinct answers; a third tempting answer raises `distinct`.

Shape letters: E answers, J tasks, K classes, R replicates.
"""

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from jurax.models.crowd.answers import Answers
from jurax.models.crowd.top_two_posterior import TaskPosterior


def predictive_check(
    found: TaskPosterior, num_replicates: int = 200, seed: int = 0
) -> pd.DataFrame:
    """One row for each statistic: observed, mean, lower, upper, p_value.

    Args:
        found: what `read_tasks` returns.
        num_replicates: R, at least 20.
        seed: of the replicates.

    Returns:
        `lower` and `upper` hold the central 90 % of the replicates; `p_value` is two-sided, at
        least 2 / (R + 1).

    Raises:
        ValueError: for too few replicates.
    """
    if num_replicates < 20:
        raise ValueError(f"num_replicates must be at least 20, got {num_replicates}")
    generator = np.random.default_rng(seed)
    observed = statistics(found.answers_, found.answers_.label)
    replicates = pd.DataFrame(
        statistics(found.answers_, replicate(generator, found)) for _ in range(num_replicates)
    )
    above = (replicates >= pd.Series(observed)).sum() + 1
    below = (replicates <= pd.Series(observed)).sum() + 1
    tail = np.minimum(above, below) / (num_replicates + 1)
    return pd.DataFrame(
        {
            "observed": observed,
            "mean": replicates.mean(),
            "lower": replicates.quantile(0.05),
            "upper": replicates.quantile(0.95),
            "p_value": np.minimum(2 * tail, 1.0),
        }
    )


def replicate(generator: np.random.Generator, found: TaskPosterior) -> Int[np.ndarray, " E"]:
    """New labels of all answers."""
    answers, size = found.answers_, found.pairs.shape[1]
    pair = drawn(generator, found.pairs.reshape(len(found.pairs), -1))
    first, second = np.divmod(pair, size)
    q = found.points[drawn(generator, found.confusion)]
    p = found.reliability[generator.integers(len(found.reliability))]
    chance = generator.random((2, len(answers)))
    pick = np.where(chance[0] < q[answers.task], first[answers.task], second[answers.task])
    guess = generator.integers(size, size=len(answers))
    return np.where(chance[1] < p[answers.worker], pick, guess)


def drawn(
    generator: np.random.Generator, chances: Float[np.ndarray, "J R"]
) -> Int[np.ndarray, " J"]:
    """An index from each row of probabilities."""
    below = chances.cumsum(axis=1)
    uniform = generator.random((len(chances), 1)) * below[:, -1:]
    return np.minimum((uniform >= below).sum(axis=1), chances.shape[1] - 1)


def statistics(answers: Answers, label: Int[np.ndarray, " E"]) -> dict[str, float]:
    """The four numbers of a set of labels."""
    counts = np.zeros((answers.num_tasks, answers.num_classes))
    np.add.at(counts, (answers.task, label), 1)
    ordered = np.sort(counts, axis=1)[:, ::-1] / counts.sum(axis=1, keepdims=True)
    agrees = counts.argmax(axis=1)[answers.task] == label
    by_worker = np.bincount(answers.worker, agrees) / np.bincount(answers.worker)
    return {
        "plurality": float(ordered[:, 0].mean()),
        "runner-up": float(ordered[:, 1].mean()),
        "distinct": float((counts > 0).sum(axis=1).mean()),
        "spread": float(by_worker.std()),
    }
