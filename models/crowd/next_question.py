"""Which worker to ask about which task next, and which tasks need no more answers.

    gain(j, i) = I(g_j; y_ij | data) = H(y_ij) - sum_g P(g) H(y_ij | g_j = g)    in nats,

the expected fall of the entropy of the right answer if worker i answers task j. For the top-two
model P(y | g) = p_i s_j[y | g] + (1 - p_i) / K, with s_j[. | g] = E[q] on g and E[1 - q; h | g] on
the others, q and p at their posterior means.

Shape letters: B tasks of a block, J tasks, W workers, K classes.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from jurax.models.crowd.aggregator import AbstractAggregator
from jurax.models.crowd.top_two_posterior import TaskPosterior

BLOCK = 2**22  # numbers of one block of tasks x workers x classes x classes: 16 MiB


def information_gain(found: AbstractAggregator | TaskPosterior) -> pd.DataFrame:
    """Expected information gain in nats, task x worker; NaN where the worker answered already.

    Time J W K^2; memory J W, beside one block.

    Args:
        found: `TopTwo` fitted to three classes or more, or what `read_tasks` returns.

    Raises:
        ValueError: for models without pairs.
    """
    answers, estimate = found.answers_, found.estimate_
    if estimate.pairs is None or np.isnan(estimate.confusion).any():
        raise ValueError(
            f"{type(found).__name__} has no model of pairs; fit TopTwo to three classes or more"
        )
    size = answers.num_classes
    block = max(1, BLOCK // (answers.num_workers * size**2))
    gains = [
        np.asarray(
            gain(
                jnp.asarray(estimate.pairs[start : start + block]),
                jnp.asarray(estimate.confusion[start : start + block]),
                jnp.asarray(estimate.skills),
            )
        )
        for start in range(0, answers.num_tasks, block)
    ]
    table = np.concatenate(gains).astype(float)
    table[answers.task, answers.worker] = np.nan
    return pd.DataFrame(
        table,
        index=pd.Index(answers.tasks, name="task"),
        columns=pd.Index(answers.workers, name="worker"),
    )


def next_questions(
    found: AbstractAggregator | TaskPosterior, num: int, per_task: int = 1
) -> pd.DataFrame:
    """The `num` questions that teach most: columns task, worker, gain; best first.

    Args:
        found: as in `information_gain`.
        num: of questions.
        per_task: largest number of questions about one task. Gains are those of a single answer,
            so two questions about one task teach less than the sum.
    """
    if num < 1 or per_task < 1:
        raise ValueError(f"num and per_task must be at least 1, got {num} and {per_task}")
    gains = information_gain(found).stack().dropna().rename("gain").reset_index()
    gains = gains.sort_values("gain", ascending=False, kind="stable")
    return gains.groupby("task", sort=False).head(per_task).head(num).reset_index(drop=True)


def settled(found: AbstractAggregator | TaskPosterior, p_wrong: float = 0.05) -> pd.Series:
    """By task: is the most probable label wrong with probability at most `p_wrong`?"""
    if not 0 <= p_wrong < 1:
        raise ValueError(f"p_wrong must be in [0, 1), got {p_wrong}")
    is_settled = 1 - found.estimate_.probas.max(axis=1) <= p_wrong
    return pd.Series(is_settled, pd.Index(found.answers_.tasks, name="task"), name="settled")


@eqx.filter_jit
def gain(
    pairs: Float[Array, "B K K"], confusion: Float[Array, " B"], reliability: Float[Array, " W"]
) -> Float[Array, "B W"]:
    """I(g; y) of each task and worker."""
    size = pairs.shape[1]
    probas = jnp.sum(pairs, axis=2)
    others = pairs / jnp.maximum(probas, 1e-30)[:, :, None]  # P(h | g)
    q = confusion[:, None, None]
    informed = q * jnp.eye(size)[None] + (1 - q) * others  # of an answer, given g
    p = reliability[None, :, None, None]
    given = p * informed[:, None] + (1 - p) / size  # (B, W, g, y)
    alone = jnp.sum(probas[:, None, :, None] * given, axis=2)
    return jnp.sum(entropy(alone), axis=-1) - jnp.sum(
        probas[:, None] * jnp.sum(entropy(given), axis=-1), axis=-1
    )


def entropy(chance: Float[Array, "..."]) -> Float[Array, "..."]:
    """-x log x, zero at zero."""
    return -jax.scipy.special.xlogy(chance, chance)
