"""Votes: every worker counts the same, or by agreement with the others.

Shape letters: E answers, J tasks, W workers, K classes.
"""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jurax.models.crowd.aggregator import AbstractAggregator, Estimate
from jurax.models.crowd.em import Edges


@dataclasses.dataclass
class MajorityVote(AbstractAggregator):
    """P(class) = its share of the votes of the task; skill: the worker's share of answers in it.

    Example:
        >>> votes = {"task": [1, 1, 1], "worker": [1, 2, 3], "label": ["a", "b", "a"]}
        >>> MajorityVote().fit_predict(votes).tolist()
        ['a']
    """

    def estimate(self, answers, gold):
        """Shares of votes."""
        edges = Edges.of(answers, gold)
        shares = edges.shares()
        return by_votes(edges, shares)


@dataclasses.dataclass
class Wawa(AbstractAggregator):
    """Worker agreement with the aggregate: skill_i = mean_j 1{y_ij = majority_j}; a weighted vote.

    Ties of the majority count by the share of the tied classes.
    """

    def estimate(self, answers, gold):
        """Two passes."""
        edges = Edges.of(answers, gold)
        skills = agreement(edges, winners(edges.shares()))
        return by_votes(edges, weighted_shares(edges, skills), skills)


@eqx.filter_jit
def winners(shares: Float[Array, "J K"]) -> Float[Array, "J K"]:
    """1 at the class of the largest share; tied classes split it."""
    top = shares >= jnp.max(shares, axis=1, keepdims=True) - 1e-6
    return top / jnp.sum(top, axis=1, keepdims=True)


@eqx.filter_jit
def agreement(edges: Edges, target: Float[Array, "J K"]) -> Float[Array, " W"]:
    """Mean over the answers of each worker of the target's weight at the answer."""
    total = edges.over_workers(target[edges.task, edges.label])
    return total / edges.over_workers(jnp.ones(edges.task.shape))


@eqx.filter_jit
def weighted_shares(edges: Edges, skills: Float[Array, " W"]) -> Float[Array, "J K"]:
    """Shares of the votes weighted by skill; plain shares where all weights of a task are zero."""
    votes = edges.votes(skills[edges.worker])
    total = jnp.sum(votes, axis=1, keepdims=True)
    shares = jnp.where(total > 0, votes / jnp.where(total > 0, total, 1.0), edges.shares())
    return edges.clamped(shares)


def by_votes(
    edges: Edges, shares: Float[Array, "J K"], skills: Float[Array, " W"] | None = None
) -> Estimate:
    """The estimate of a vote."""
    skills = agreement(edges, winners(shares)) if skills is None else skills
    return Estimate(np.asarray(shares), np.asarray(skills), np.asarray(shares.mean(axis=0)))
