"""What the EM algorithms share: sums over answers and the loop to convergence.

Shape letters: E answers, J tasks, W workers, K classes.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from jurax.models.crowd.aggregator import one_hot
from jurax.models.crowd.answers import Answers

PRIORS = ("uniform", "learned")


class Edges(eqx.Module):
    """The answers as arrays, with the sizes that sums need.

    Attributes:
        task, worker, label: indices of each answer. Behind the answers stand up to an eighth as
            many rows of padding, so that tables of similar size share a compilation. Their task and
            worker are out of range: sums over tasks and workers leave them out, so sum answers in
            no other way.
        gold: one row of 1 at the known class, or of zeros, by task.
        num_answers: without the padding.
    """

    task: Int[Array, " E"]
    worker: Int[Array, " E"]
    label: Int[Array, " E"]
    gold: Float[Array, "J K"]
    num_answers: Float[Array, ""]
    num_workers: int = eqx.field(static=True)

    @classmethod
    def of(cls, answers: Answers, gold: Int[np.ndarray, " J"], pad: bool = True) -> "Edges":
        """The edge list of `answers`."""
        size = len(answers)
        more = padding(size) if pad else 0
        columns = [
            jnp.asarray(np.pad(column, (0, more), constant_values=beyond), jnp.int32)
            for column, beyond in (
                (answers.task, answers.num_tasks),
                (answers.worker, answers.num_workers),
                (answers.label, 0),
            )
        ]
        known = jnp.asarray(one_hot(gold, answers.num_classes))
        return cls(*columns, known, jnp.asarray(float(size)), answers.num_workers)

    @property
    def num_tasks(self) -> int:
        """J."""
        return self.gold.shape[0]

    @property
    def num_classes(self) -> int:
        """K."""
        return self.gold.shape[1]

    @property
    def excluded(self) -> Bool[Array, "J K"]:
        """Where another class is known to be the label."""
        return jnp.any(self.gold > 0, axis=1, keepdims=True) & (self.gold == 0)

    @property
    def numbers(self) -> Float[Array, " W"]:
        """Answers of each worker."""
        return self.over_workers(jnp.ones(self.worker.shape))

    def over_tasks(self, values: Float[Array, "E ..."]) -> Float[Array, "J ..."]:
        """Sum of the values of the answers to each task."""
        return jax.ops.segment_sum(values, self.task, self.num_tasks)

    def over_workers(self, values: Float[Array, "E ..."]) -> Float[Array, "W ..."]:
        """Sum of the values of the answers of each worker."""
        return jax.ops.segment_sum(values, self.worker, self.num_workers)

    def votes(self, values: Float[Array, "E ..."]) -> Float[Array, "J K ..."]:
        """Sum of the values of the answers to each task with each label."""
        cells = self.num_tasks * self.num_classes
        sums = jax.ops.segment_sum(values, self.task * self.num_classes + self.label, cells)
        return sums.reshape(self.num_tasks, self.num_classes, *values.shape[1:])

    def shares(self, votes: Float[Array, "J K"] | None = None) -> Float[Array, "J K"]:
        """Shares of votes by task, known labels clamped.

        Without `votes` each answer counts one; so it does in tasks whose votes are all zero.
        """
        plain = self.votes(jnp.ones(self.task.shape))
        votes = plain if votes is None else votes
        votes = jnp.where(jnp.any(votes > 0, axis=1, keepdims=True), votes, plain)
        is_known = jnp.any(self.gold > 0, axis=1, keepdims=True)
        return jnp.where(is_known, self.gold, votes / jnp.sum(votes, axis=1, keepdims=True))

    def posterior(
        self, log_joint: Float[Array, "J K"]
    ) -> tuple[Float[Array, "J K"], Float[Array, ""]]:
        """Softmax over classes by task, and the log-likelihood; known labels are clamped."""
        log_joint = jnp.where(self.excluded, -jnp.inf, log_joint)
        total = jax.nn.logsumexp(log_joint, axis=1, keepdims=True)
        return jnp.exp(log_joint - total), jnp.sum(total)


def padding(size: int) -> int:
    """What is missing to a multiple of the power of two below size / 8.

    Example:
        >>> [size + padding(size) for size in (5, 17, 1000, 1025)]
        [5, 18, 1024, 1152]
    """
    unit = 2 ** max(size.bit_length() - 4, 0)
    return -size % unit


def iterate(
    step: Callable[[PyTree], tuple[PyTree, Float[Array, ""]]],
    start: PyTree,
    num_answers: Float[Array, ""],
    n_iter: int,
    tol: float,
) -> tuple[PyTree, Float[Array, ""], Int[Array, ""]]:
    """Repeat `step(state) -> (state, log-likelihood of the state before)` until it stops rising.

    Stops when the log-likelihood per answer rose by less than `tol`, at the latest after `n_iter`
    steps. Returns the last state, its predecessor's log-likelihood per answer, and the steps made.
    """

    def is_rising(carry: tuple) -> Any:
        _, now, before, number = carry
        return (number < n_iter) & ((number < 2) | (now - before >= tol))

    def advance(carry: tuple) -> tuple:
        state, now, _, number = carry
        state, log_likelihood = step(state)
        return state, log_likelihood / num_answers, now, number + 1

    nothing = jnp.asarray(-jnp.inf)
    first = (start, nothing, nothing, jnp.asarray(0))
    state, log_likelihood, _, number = jax.lax.while_loop(is_rising, advance, first)
    return state, log_likelihood, number


def shares_of(probas: Float[Array, "J K"], kind: str) -> Float[Array, " K"]:
    """Rho of the M-step."""
    if kind == "uniform":
        return jnp.full(probas.shape[1], 1 / probas.shape[1])
    return jnp.maximum(probas.mean(axis=0), 1e-10)


def check_options(priors: str, **pseudo: float) -> None:
    """Refuse what the M-steps cannot use."""
    if priors not in PRIORS:
        raise ValueError(f"priors must be one of {', '.join(PRIORS)}; got {priors!r}")
    for name, value in pseudo.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be a finite number >= 0, got {value}")
