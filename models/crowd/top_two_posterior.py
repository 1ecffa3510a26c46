"""The full posterior of the top-two model: a NumPyro program, and what its draws say of each task.

    p_i ~ Beta(1.5, 1.5),    2 q_j - 1 ~ Kumaraswamy(a, b),    log a, log b ~ N(0, 1/2)

The discrete (g, h) of each task and its q are summed out (`top_two_law.marginals`), so that a
sampler moves p, a and b alone. Given one draw of them the tasks are independent and their
posteriors exact: averages over draws are Rao-Blackwellised.

Shape letters: D draws, J tasks, W workers, K classes, Q grid points, R = 8 Q parts of their cells.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
from jaxtyping import Array, Float

from jurax.models.crowd import laws, top_two_law
from jurax.models.crowd.aggregator import Estimate
from jurax.models.crowd.answers import Answers
from jurax.models.crowd.em import Edges
from jurax.models.crowd.programs import bound
from jurax.models.crowd.top_two_law import grid
from jurax.ppl import Posterior
from jurax.ppl.program import Program

PRIOR_COUNTS = 1.5  # of the Beta prior of p
PARTS = 8  # of each cell of the grid of q, filled as the prior fills them


def top_two_program(edges: Edges, points: Float[Array, " Q"]) -> None:
    """A plain NumPyro program."""
    halves = jnp.full(edges.num_workers, PRIOR_COUNTS)
    reliability = numpyro.sample("reliability", dist.Beta(halves, halves).to_event(1))
    shape = numpyro.sample("shape", dist.LogNormal(0.0, 0.5).expand([2]).to_event(1))
    *_, log_likelihood = top_two_law.marginals(edges, reliability, prior_of(shape, points), points)
    numpyro.factor("answers", log_likelihood)


def prior_of(shape: Float[Array, "2"], points: Float[Array, " Q"]) -> Float[Array, " Q"]:
    """The prior of q on the grid: the mass of each cell under Kumaraswamy(a, b) of 2 q - 1.

    F(x) = 1 - (1 - x^a)^b: close to the Beta distribution, with exact masses where its density is
    unbounded (midpoints lose mass there, and intervals of q then cover too little).
    """
    num = points.shape[0]
    inner = jnp.arange(1, num) / num
    below = 1 - (1 - inner ** shape[0]) ** shape[1]
    masses = jnp.diff(jnp.concatenate([jnp.zeros(1), below, jnp.ones(1)]))
    return jnp.maximum(masses, 1e-12)


def program(answers: Answers, gold: Any = None, num_points: int = 16) -> Program:
    """The program with its data, for `infer(key, program, NUTS())` or any sampler of programs.

    Args:
        answers: at least three classes.
        gold: known labels, as in `TopTwo.fit`.
        num_points: Q.

    Raises:
        ValueError: if there are two classes; then p is not identified.
    """
    if answers.num_classes < 3:
        raise ValueError(
            "the top-two model needs three classes: with two, guessing and confusion look alike; "
            "use OneCoinDawidSkene or DawidSkene"
        )
    return bound(top_two_program, answers, gold, grid(num_points))


@dataclasses.dataclass(frozen=True)
class TaskPosterior:
    """What a posterior of the program says of tasks and workers.

    Attributes:
        pairs: P(g, h), `(J, K, K)`.
        confusion: P(q) on the grid, each cell split into `PARTS` by the prior, `(J, 8 Q)`.
        shares: E[q 1{k = g} + (1 - q) 1{k = h}], what informed workers answer, `(J, K)`.
        points: midpoints of these parts.
        reliability: draws of p, `(D, W)`, equally weighted.
        answers_: the data.

    `estimate_` and `answers_` are named as those of a fitted aggregator, so that whatever reads one
    reads the other.
    """

    pairs: Float[np.ndarray, "J K K"]
    confusion: Float[np.ndarray, "J R"]
    shares: Float[np.ndarray, "J K"]
    points: Float[np.ndarray, " R"]
    reliability: Float[np.ndarray, "D W"]
    answers_: Answers

    @property
    def estimate_(self) -> Estimate:
        """Posterior means in the form of a fit."""
        probas, reliability = self.pairs.sum(axis=2), self.reliability.mean(axis=0)
        return Estimate(
            probas,
            reliability,
            probas.mean(axis=0),
            pairs=self.pairs,
            confusion=self.confusion @ self.points,
            shares=self.shares,
            answer_law=laws.Shares(self.shares, reliability),
        )

    @property
    def tasks(self) -> pd.DataFrame:
        """One row for each task.

        label: the most probable right answer; p_wrong: the probability that it is not right;
        first, second: the most probable pair; p_set: probability of these two in either order;
        p_order: probability of this order given the two; q, q_lower, q_upper: mean and central 90 %
        interval of the confusion probability, interpolated between grid points.
        """
        rows = np.arange(len(self.pairs))
        size = self.pairs.shape[1]
        found = self.estimate_
        marginal = found.probas
        label = marginal.argmax(axis=1)
        first, second = np.divmod(self.pairs.reshape(len(rows), -1).argmax(axis=1), size)
        one, other = self.pairs[rows, first, second], self.pairs[rows, second, first]
        classes = self.answers_.classes
        return pd.DataFrame(
            {
                "label": classes.take(label),
                "p_wrong": 1 - marginal[rows, label],
                "first": classes.take(first),
                "second": classes.take(second),
                "p_set": one + other,
                "p_order": one / (one + other),
                "q": found.confusion,
                "q_lower": self.quantile(0.05),
                "q_upper": self.quantile(0.95),
            },
            index=pd.Index(self.answers_.tasks, name="task"),
        )

    @property
    def workers(self) -> pd.DataFrame:
        """Mean and central 90 % interval of p, by worker."""
        lower, upper = np.quantile(self.reliability, [0.05, 0.95], axis=0)
        return pd.DataFrame(
            {"p": self.estimate_.skills, "p_lower": lower, "p_upper": upper},
            index=pd.Index(self.answers_.workers, name="worker"),
        )

    def quantile(self, level: float) -> Float[np.ndarray, " J"]:
        """Quantile of q of each task: each grid point stands for its cell, evenly filled."""
        width = self.points[1] - self.points[0] if len(self.points) > 1 else 0.5
        edges = np.append(self.points - width / 2, self.points[-1] + width / 2)
        below = np.pad(self.confusion.cumsum(axis=1), ((0, 0), (1, 0)))
        return np.array([np.interp(level, row, edges) for row in below])


def read_tasks(
    key: Array,
    posterior: Posterior,
    answers: Answers,
    gold: Any = None,
    num_points: int = 16,
    num_draws: int = 200,
) -> TaskPosterior:
    """Average the exact posteriors of the tasks over draws of p, a and b; consumes `key`.

    Args:
        key: picks the draws.
        posterior: of `program(answers, gold)`, by any sampler.
        answers: as given to `program`.
        gold: as given to `program`.
        num_points: as given to `program`.
        num_draws: D.
    """
    draws = posterior.sample(key, num_draws)
    points = grid(num_points)
    fine = grid(num_points * PARTS)
    found = averages(
        Edges.of(answers, answers.gold(gold)), draws["reliability"], draws["shape"], points
    )
    return TaskPosterior(*map(np.asarray, (*found, fine, draws["reliability"])), answers_=answers)


@eqx.filter_jit
def averages(
    edges: Edges,
    reliability: Float[Array, "D W"],
    shape: Float[Array, "D 2"],
    points: Float[Array, " Q"],
) -> tuple[Float[Array, "J K K"], Float[Array, "J R"], Float[Array, "J K"]]:
    """Means over draws of what `top_two_law.averages` gives; one draw is in memory at a time.

    Within a cell the likelihood is that of its midpoint and q is distributed as beforehand: evenly
    filled cells would end the intervals of clear tasks short of q = 1.
    """
    num = points.shape[0]

    def of_draw(draw: tuple) -> tuple:
        parts = prior_of(draw[1], grid(num * PARTS)).reshape(num, PARTS)
        cells = jnp.sum(parts, axis=1)
        pairs, confusion, shares = top_two_law.averages(edges, draw[0], cells, points)
        within = confusion[:, :, None] * (parts / cells[:, None])[None]
        return pairs, within.reshape(-1, num * PARTS), shares

    def add(total: tuple, draw: tuple) -> tuple:
        return jax.tree.map(jnp.add, total, of_draw(draw)), None

    start = jax.tree.map(jnp.zeros_like, jax.eval_shape(of_draw, (reliability[0], shape[0])))
    total, _ = jax.lax.scan(add, start, (reliability, shape))
    return jax.tree.map(lambda x: x / reliability.shape[0], total)
