"""Quality gates of a (policy, reward) pair on RegChain, measured on one pool of samples.

A suite of problems is useful for comparing reasoning methods only if single samples are often
wrong, many samples contain the truth, voting cannot find it, and the reward is informative but
imperfect. The reward is judged *inside* a problem (right against wrong samples of the same one):
a pooled AUC can come from the difficulty of problems alone.

Shape letters: B problems, N samples of each, T steps.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Array

from jurax.models.language.labelled_samples import Samples, draw
from jurax.models.language.model import AbstractLanguageModel, AbstractReward
from jurax.models.language.regchain import Problem


@dataclasses.dataclass(frozen=True)
class Gates:
    """Figures of a pool; `failures()` names those outside of their gates.

    Attributes:
        num_problems: B.
        num_samples: N.
        finished: share of samples with an answer.
        pass_at_1: mean share of right samples.
        pass_at_1_by_length: the same for each number of instructions.
        coverage: share of problems with at least one right sample.
        majority: accuracy of the most frequent answer, ties shared.
        outcome_auc: AUC of the final score inside a problem, mean over those with 5 % to 95 % of
            their samples right.
        outcome_auc_pooled: over all samples; not gated.
        step_auc: AUC of the score after a step for the liveness of the prefix, over all steps.
        step_auc_inside: the same inside (problem, step), mean; not gated.
        best_of_16: accuracy of the best score of 16 samples.
        best_of_16_gain: its paired difference to pass@1, in standard errors.
        success_histogram: problems by share of right samples, bins 0 .02 .1 .25 .5 .75 .9 1.
    """

    num_problems: int
    num_samples: int
    finished: float
    pass_at_1: float
    pass_at_1_by_length: dict[int, float]
    coverage: float
    majority: float
    outcome_auc: float
    outcome_auc_pooled: float
    step_auc: float
    step_auc_inside: float
    best_of_16: float
    best_of_16_gain: float
    success_histogram: tuple[int, ...]

    def failures(self) -> list[str]:
        """Gates that are missed, as sentences; empty if all are met."""
        by_length = self.pass_at_1_by_length.values()
        limits = {
            "pass@1": (self.pass_at_1, 0.2, 0.6),
            "coverage": (self.coverage, 0.9, 1.0),
            "majority": (self.majority, 0.0, self.coverage - 0.15),
            "smallest pass@1 of a length": (min(by_length), 0.02, 0.98),
            "largest pass@1 of a length": (max(by_length), 0.02, 0.98),
            "outcome AUC inside a problem": (self.outcome_auc, 0.65, 0.92),
            "step AUC": (self.step_auc, 0.65, 0.95),
            "gain of best-of-16 in standard errors": (self.best_of_16_gain, 2.0, np.inf),
        }
        return [
            f"{name} is {value:.3f}; its gate is [{low:.2f}, {high:.2f}]"
            for name, (value, low, high) in limits.items()
            if not low <= value <= high
        ]


def measure(
    key: Array,
    model: AbstractLanguageModel,
    reward: AbstractReward,
    problems: Sequence[Problem],
    *,
    num_samples: int = 64,
) -> Gates:
    """Draw samples and compute the figures; consumes `key`."""
    return summarize(problems, draw(key, model, reward, problems, num_samples))


def summarize(problems: Sequence[Problem], samples: Samples) -> Gates:
    """The figures of labelled samples."""
    right, final = samples.right, samples.final_scores
    share = right.mean(axis=1)
    lengths = np.array([p.num_steps for p in problems])
    mixed = (share >= 0.045) & (share <= 0.955)
    inside = [auc(final[b], right[b]) for b in np.flatnonzero(mixed)]
    best = _best_of(final, right, 16)
    gain = best - share
    error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.nan
    steps = _instruction_steps(samples)
    return Gates(
        num_problems=len(problems),
        num_samples=right.shape[1],
        finished=float((samples.answers != np.array(None)).mean()),
        pass_at_1=float(share.mean()),
        pass_at_1_by_length={int(m): float(share[lengths == m].mean()) for m in np.unique(lengths)},
        coverage=float(right.any(axis=1).mean()),
        majority=float(np.mean([_vote(*x) for x in zip(samples.answers, right, strict=True)])),
        outcome_auc=float(np.mean(inside)) if inside else np.nan,
        outcome_auc_pooled=auc(final.ravel(), right.ravel()),
        step_auc=auc(samples.scores[steps], samples.live[steps]),
        step_auc_inside=_step_auc_inside(samples, steps),
        best_of_16=float(best.mean()),
        best_of_16_gain=float(gain.mean() / error) if error else np.nan,
        success_histogram=_histogram(share),
    )


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Probability that a right one scores above a wrong one; ties count half, NaN without both.

    Example:
        >>> auc(np.array([0.1, 0.9, 0.5]), np.array([False, True, False]))
        1.0
    """
    right, wrong = np.sort(scores[labels]), np.sort(scores[~labels])
    if not len(right) or not len(wrong):
        return float("nan")
    below = np.searchsorted(wrong, right, "left") + np.searchsorted(wrong, right, "right")
    return float(below.mean() / (2 * len(wrong)))


def _instruction_steps(samples: Samples) -> np.ndarray:
    """Steps that were made, without the answer step of finished samples, `(B, N, T)`."""
    number = np.cumsum(samples.exists, axis=-1)
    last = samples.exists & (number == number[..., -1:])
    finished = samples.answers != np.array(None)
    return samples.exists & ~(last & finished[..., None])


def _step_auc_inside(samples: Samples, steps: np.ndarray) -> float:
    found = [
        auc(samples.scores[b, here, t], samples.live[b, here, t])
        for b in range(steps.shape[0])
        for t in range(steps.shape[2])
        if (here := steps[b, :, t]).any()
    ]
    return float(np.nanmean(found)) if not np.all(np.isnan(found)) else float("nan")


def _best_of(scores: np.ndarray, right: np.ndarray, num: int) -> np.ndarray:
    """Mean over disjoint blocks of `num` samples of the rightness of the best score, [B]."""
    num = min(num, scores.shape[1])
    blocks = scores.shape[1] // num
    shape = (len(scores), blocks, num)
    best = scores[:, : blocks * num].reshape(shape).argmax(axis=-1)
    chosen = np.take_along_axis(right[:, : blocks * num].reshape(shape), best[..., None], axis=-1)
    return chosen[..., 0].mean(axis=1)


def _vote(answers: np.ndarray, right: np.ndarray) -> float:
    counts: dict[str, int] = {}
    truth = {answer for answer, ok in zip(answers, right, strict=True) if ok}
    for answer in answers:
        if answer is not None:
            counts[answer] = counts.get(answer, 0) + 1
    top = [answer for answer, count in counts.items() if count == max(counts.values())]
    return sum(answer in truth for answer in top) / len(top) if top else 0.0


def _histogram(share: np.ndarray) -> tuple[int, ...]:
    edges = [0.0, 0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0 + 1e-9]
    return tuple(int(x) for x in np.histogram(share, edges)[0])
