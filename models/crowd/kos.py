"""KOS: two classes, labels and reliabilities by messages between tasks and workers.

    x_{j->i} = sum_{i' != i} A_{i'j} y_{i'->j},    y_{i->j} = sum_{j' != j} A_{ij'} x_{j'->i},
    label_j = sign sum_i A_ij y_{i->j},    A_ij = 1 or -1 for the two classes, 0 if unanswered.

Karger, Oh and Shah 2011. Without the exclusions it is the power method on A A', whose fixed point
is its leading singular vector: Ghosh et al. 2011. Messages start from N(1, 1) (KOS) or from 1 and
are scaled to a mean square of 1 after each round.

Shape letters: E answers, J tasks, W workers.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jurax.models.crowd import laws
from jurax.models.crowd.aggregator import AbstractAggregator, Estimate
from jurax.models.crowd.em import Edges
from jurax.models.crowd.majority import agreement, winners

METHODS = ("messages", "svd")


@dataclasses.dataclass
class KOS(AbstractAggregator):
    """Message passing for two classes.

    Args:
        method: "messages" (Karger, Oh and Shah), or "svd": the leading singular vector (Ghosh).

    `probas_`: shares of the votes weighted by the messages; a negative weight counts for the other
    class. They are shares, not posterior probabilities. `skills_` is the agreement with the labels.
    `tol` bounds the mean square change of the messages.

    Raises:
        ValueError: from `fit`, if there are more than two classes.

    Example:
        >>> table = {"task": [1, 1, 1, 2, 2, 2], "worker": [1, 2, 3] * 2, "label": list("aabbba")}
        >>> KOS().fit_predict(table).tolist()
        ['a', 'b']
    """

    method: str = "messages"

    def __post_init__(self):
        super().__post_init__()
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}; got {self.method!r}")

    def estimate(self, answers, gold):
        """Rounds of messages, then a weighted vote."""
        if answers.num_classes != 2:
            raise ValueError(
                f"KOS is for two classes and the table has {answers.num_classes}; use "
                "OneCoinDawidSkene, DawidSkene or TopTwo"
            )
        edges = Edges.of(answers, gold, pad=False)
        start = jnp.ones(len(answers))
        if self.method == "messages":
            start = start + jax.random.normal(jax.random.key(self.seed), start.shape)
        weights, number = rounds(edges, start, self.method == "messages", self.n_iter, self.tol)
        probas = shares_by(edges, weights)
        skills = agreement(edges, winners(probas))
        probas = np.asarray(probas)
        votes = probas * np.bincount(answers.task, minlength=answers.num_tasks)[:, None]
        return Estimate(
            probas,
            np.asarray(skills),
            probas.mean(axis=0),
            int(number),
            answer_law=laws.Votes(votes),
        )


@eqx.filter_jit
def rounds(edges: Edges, start: Float[Array, " E"], exclude: bool, n_iter: int, tol: float):
    """(Y of each answer, rounds made)."""
    signs = 2.0 * edges.label - 1
    known = 2 * edges.gold[:, 1] - jnp.sum(edges.gold, axis=1)  # -1, 1, or 0: not known

    def advance(carry: tuple) -> tuple:
        y, _, number = carry
        sums = edges.over_tasks(signs * y)
        sums = jnp.where(known != 0, known * jnp.sqrt(jnp.mean(sums**2)), sums)
        x = sums[edges.task] - exclude * (known == 0)[edges.task] * signs * y
        new = edges.over_workers(signs * x)[edges.worker] - exclude * signs * x
        size = jnp.sqrt(jnp.mean(new**2))
        new = jnp.where(size > 0, new / jnp.where(size > 0, size, 1.0), y)
        return new, jnp.mean((new - y) ** 2), number + 1

    def moves(carry: tuple) -> Array:
        return (carry[2] < n_iter) & (carry[1] > tol)

    y, _, number = jax.lax.while_loop(moves, advance, (start, jnp.asarray(jnp.inf), jnp.asarray(0)))
    return y, number


@eqx.filter_jit
def shares_by(edges: Edges, weights: Float[Array, " E"]) -> Float[Array, "J 2"]:
    """Shares of weighted votes, a negative one for the other class."""
    votes = edges.votes(jnp.maximum(weights, 0)) + edges.votes(jnp.maximum(-weights, 0))[:, ::-1]
    return edges.shares(votes)
