"""M-MSR: skills from the agreement of pairs of workers, robust to adversaries.

    C_ii' = (K share of equal answers on common tasks - 1) / (K - 1),    E C_ii' = s_i s_i',
    s_i = (K P_i(right) - 1) / (K - 1)

Rank one in the skills s. Ma and Olshevsky 2020: |s| by alternating means of |C_ii'| / |s_i'| over
the workers i' that i shares tasks with, each without the F largest values above the present one and
the F smallest below it. Differs in the signs: those of the leading eigenvector of C with a positive
sum, which needs no matrix over pairs of pairs. Memory O(W^2).
Known labels enter as the answers of one more worker.

Shape letters: J tasks, W workers, K classes.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jurax.models.crowd import laws
from jurax.models.crowd.aggregator import AbstractAggregator, Estimate
from jurax.models.crowd.answers import Answers
from jurax.models.crowd.em import Edges
from jurax.models.crowd.one_coin import by_accuracies
from jurax.models.crowd.spectral import agreements, leading_vector

LONELY = 0.5  # skill of a worker who shares no task: halfway between guessing and certainty


@dataclasses.dataclass
class MMSR(AbstractAggregator):
    """One accuracy for each worker, `skills_`, from pairwise agreement; then Bayes' rule.

    Args:
        num_removed: F; None: half the smallest number of partners of a worker, less one.

    `tol` bounds the mean change of the skills.

    Example:
        >>> table = {
        ...     "task": [1, 2, 3, 4] * 4,
        ...     "worker": np.repeat(list("pqrs"), 4),
        ...     "label": list("abca" "abca" "abcb" "bcab"),
        ... }
        >>> MMSR().fit(table).skills_.idxmin()
        's'
    """

    num_removed: int | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.num_removed is not None and self.num_removed < 0:
            raise ValueError(f"num_removed must be at least 0, got {self.num_removed}")

    def estimate(self, answers, gold):
        """Skills, then the posterior of the labels."""
        agreement, observed = covariation(answers, gold)
        partners = int(observed.sum(axis=1).min())
        removed = max(partners // 2 - 1, 0) if self.num_removed is None else self.num_removed
        target = jnp.asarray(np.abs(agreement), float)
        size, number = magnitudes(target, jnp.asarray(observed), removed, self.n_iter, self.tol)
        size = np.where(observed.any(axis=1), size, LONELY)
        signs = np.where(leading_vector(agreement) >= 0, 1, -1)
        accuracies = accuracies_of(size * signs, answers)[: answers.num_workers]
        edges = Edges.of(answers, gold)
        priors = jnp.full(answers.num_classes, 1 / answers.num_classes)
        probas, log_likelihood = eqx.filter_jit(by_accuracies)(
            edges, jnp.asarray(accuracies, float), priors
        )
        probas = np.asarray(probas)
        return Estimate(
            probas,
            accuracies,
            probas.mean(axis=0),
            int(number),
            float(log_likelihood) / len(answers),
            answer_law=laws.Accuracies(probas, laws.OfWorker(accuracies)),
        )


def covariation(
    answers: Answers, gold: Int[np.ndarray, " J"]
) -> tuple[Float[np.ndarray, "W W"], Bool[np.ndarray, "W W"]]:
    """C, zero where there is no common task, and where there is one; last, who knows `gold`."""
    known = np.flatnonzero(gold >= 0)
    oracle = np.full(len(known), answers.num_workers)
    shifted, common = agreements(
        np.append(answers.task, known),
        np.append(answers.worker, oracle),
        np.append(answers.label, gold[known]),
        answers.num_classes,
    )
    num = answers.num_classes
    return shifted.toarray() * num / (num - 1), common.toarray() > 0


@eqx.filter_jit
def magnitudes(
    target: Float[Array, "W W"], observed: Bool[Array, "W W"], removed: int, n_iter: int, tol: float
):
    """(|s|, steps): alternating trimmed means, from the square root of the mean agreement."""

    def advance(carry: tuple) -> tuple:
        left, right, _, number = carry
        right = trimmed_means(target, observed, left, right, removed)
        new = trimmed_means(target, observed, right, left, removed)
        return new, right, jnp.mean(jnp.abs(new - left)), number + 1

    def moves(carry: tuple) -> Array:
        return (carry[3] < n_iter) & (carry[2] > tol)

    numbers = jnp.maximum(jnp.sum(observed, axis=1), 1)
    start = jnp.sqrt(jnp.sum(jnp.where(observed, target, 0), axis=1) / numbers)
    carry = (start, start, jnp.asarray(jnp.inf), jnp.asarray(0))
    left, right, _, number = jax.lax.while_loop(moves, advance, carry)
    return jnp.sqrt(left * right), number


def trimmed_means(
    target: Float[Array, "W W"],
    observed: Bool[Array, "W W"],
    other: Float[Array, " W"],
    present: Float[Array, " W"],
    removed: int,
) -> Float[Array, " W"]:
    """Mean of target / other by row, less F values above and below the present one."""
    ratios = jnp.where(observed, target / jnp.maximum(other, 1e-6)[None, :], jnp.inf)
    ratios = jnp.sort(ratios, axis=1)
    rank = jnp.arange(ratios.shape[1])[None, :]
    number = jnp.sum(observed, axis=1)[:, None]
    low = (rank < removed) & (ratios < present[:, None])
    high = (rank >= number - removed) & (ratios > present[:, None])
    kept = (rank < number) & ~low & ~high
    mean = jnp.sum(jnp.where(kept, ratios, 0), axis=1) / jnp.maximum(jnp.sum(kept, axis=1), 1)
    return jnp.where(jnp.any(kept, axis=1), mean, present)


def accuracies_of(skills: Float[np.ndarray, " W"], answers: Answers) -> Float[np.ndarray, " W"]:
    """P(right), with s kept 1 / sqrt(J) away from what no finite weight belongs to."""
    num, margin = answers.num_classes, 1 / np.sqrt(answers.num_tasks)
    lowest, highest = -1 / (num - 1) + margin, 1 - margin
    skills = np.clip(skills, min(lowest, 0.0), max(highest, 0.0))
    return (skills * (num - 1) + 1) / num
