"""Votes: every worker counts the same, or by agreement with the vote.

Shape letters: E answers, J tasks, W workers, K classes.
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
        return by_votes(edges, agreement(edges, winners(shares)), shares)


@dataclasses.dataclass
class Wawa(AbstractAggregator):
    """Worker agreement with the aggregate: skill_i = mean_j 1{y_ij = majority_j}; a weighted vote.

    Ties of the majority count by the share of the tied classes.
    """

    def estimate(self, answers, gold):
        """Two passes."""
        edges = Edges.of(answers, gold)
        skills = agreement(edges, winners(edges.shares()))
        return by_votes(edges, skills, weighted_shares(edges, skills))


@dataclasses.dataclass
class ZeroBasedSkill(AbstractAggregator):
    """Wawa, repeated in small steps: skill_i += rate (agreement with the weighted vote - skill_i).

    Skills start at 1/K; the rate starts at `lr_init` and is multiplied by `lr_reduce_factor` every
    `lr_steps_to_reduce` steps. All `n_iter` steps are made; `tol` is not used.

    Args:
        lr_init: in (0, 1].
        lr_reduce_factor: in (0, 1].
        lr_steps_to_reduce: steps between two reductions of the rate.
    """

    lr_init: float = 1.0
    lr_reduce_factor: float = 0.5
    lr_steps_to_reduce: int = 20

    def __post_init__(self):
        super().__post_init__()
        rates = self.lr_init, self.lr_reduce_factor
        if not all(0 < rate <= 1 for rate in rates) or self.lr_steps_to_reduce < 1:
            raise ValueError(
                "lr_init and lr_reduce_factor must be in (0, 1] and lr_steps_to_reduce at least 1, "
                f"got {self.lr_init}, {self.lr_reduce_factor} and {self.lr_steps_to_reduce}"
            )

    def estimate(self, answers, gold):
        """A loop of weighted votes."""
        edges = Edges.of(answers, gold)
        rates = self.lr_init * self.lr_reduce_factor ** (
            np.arange(1, self.n_iter + 1) // self.lr_steps_to_reduce
        )
        skills = small_steps(edges, jnp.asarray(rates, float))
        found = by_votes(edges, skills, weighted_shares(edges, skills))
        return dataclasses.replace(found, num_iterations=self.n_iter)


@eqx.filter_jit
def small_steps(edges: Edges, rates: Float[Array, " R"]) -> Float[Array, " W"]:
    """The skills after all steps."""

    def step(skills: Array, rate: Array) -> tuple:
        vote = winners(weighted_shares(edges, skills))
        return skills + rate * (agreement(edges, vote) - skills), None

    return jax.lax.scan(step, jnp.full(edges.num_workers, 1 / edges.num_classes), rates)[0]


@eqx.filter_jit
def winners(shares: Float[Array, "J K"]) -> Float[Array, "J K"]:
    """1 at the class of the largest share; tied classes split it."""
    top = shares >= jnp.max(shares, axis=1, keepdims=True) - 1e-6
    return top / jnp.sum(top, axis=1, keepdims=True)


@eqx.filter_jit
def agreement(edges: Edges, target: Float[Array, "J K"]) -> Float[Array, " W"]:
    """Mean over the answers of each worker of the target's weight at the answer."""
    total = edges.over_workers(target[edges.task, edges.label])
    return total / edges.numbers


@eqx.filter_jit
def weighted_shares(edges: Edges, skills: Float[Array, " W"]) -> Float[Array, "J K"]:
    """Shares of the votes weighted by skill."""
    return edges.shares(edges.votes(skills[edges.worker]))


def by_votes(edges: Edges, skills: Float[Array, " W"], shares: Float[Array, "J K"]) -> Estimate:
    """The estimate of a vote."""
    votes = np.asarray(shares * edges.over_tasks(jnp.ones(edges.task.shape))[:, None])
    return Estimate(
        np.asarray(shares),
        np.asarray(skills),
        np.asarray(shares.mean(axis=0)),
        answer_law=laws.Votes(votes),
    )
