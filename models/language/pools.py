"""Accuracy at smaller budgets, read off the samples of a larger one.

N independent samples contain N // n disjoint pools of n. A method that pools independent samples
(majority, best of N) is scored on each of them; its accuracy at n is the mean over pools and
problems. Particles of a filter are not independent: a filter has to be run again at each n.

Shape letters: B problems, N samples.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jurax.inference.comparison import mean_with_error
from jurax.inference.plots import Curve
from jurax.inference.search.best_of_n import aggregate, best
from jurax.models.language.outcome import Outcome

POOLED = ("majority", "best_of_n")


def pooled_curve(outcome: Outcome) -> Curve:
    """Accuracy of a pooling method at n = 1, 2, 4, ... and N samples."""
    num = outcome.arrays["answer"].shape[1]
    sizes = sorted({num, *(2**k for k in range(num.bit_length()) if 2**k <= num)})
    tokens = outcome.spent("decoded_tokens") / num
    accuracies = [mean_with_error(pooled_accuracy(outcome, size)) for size in sizes]
    return Curve(
        tokens=tokens * np.array(sizes, float),
        accuracy=np.array([accuracy.value for accuracy in accuracies]),
        standard_error=np.array([accuracy.standard_error for accuracy in accuracies]),
    )


def curve(outcomes: Sequence[Outcome]) -> Curve:
    """Accuracy of runs of one method at several budgets."""
    accuracies = [mean_with_error(outcome.correct) for outcome in outcomes]
    return Curve(
        tokens=np.array([outcome.spent("decoded_tokens") for outcome in outcomes]),
        accuracy=np.array([accuracy.value for accuracy in accuracies]),
        standard_error=np.array([accuracy.standard_error for accuracy in accuracies]),
    )


def pooled_accuracy(outcome: Outcome, size: int) -> Float[np.ndarray, " K"]:
    """Share of disjoint pools of `size` samples whose answer is right, by problem.

    Problems without a known answer are left out.
    """
    answers = outcome.arrays["answer"]
    pools = [slice(i, i + size) for i in range(0, answers.shape[1] - size + 1, size)]
    weights = [pool_weights(outcome, pool) for pool in pools]
    right = [
        [winner(answers[b, pool], w[b]) == truth for pool, w in zip(pools, weights, strict=True)]
        for b, truth in enumerate(outcome.truths)
        if truth is not None
    ]
    return np.mean(np.array(right, float), axis=1)


def pool_weights(outcome: Outcome, pool: slice) -> Float[np.ndarray, "B n"]:
    """Weight of each sample of a pool under the method."""
    finished = outcome.arrays["finished"][:, pool]
    if outcome.setting.method == "majority":
        return np.ones(finished.shape)
    log_odds = jnp.asarray(outcome.arrays["log_odds"][:, pool])
    scores = aggregate("last", log_odds, ~jnp.isnan(log_odds))
    return np.exp(np.asarray(best(scores, jnp.asarray(finished)), float))


def winner(answers: np.ndarray, weights: Float[np.ndarray, " n"]) -> str:
    """The answer of largest total weight, the first of equals; as a posterior chooses it.

    Example:
        >>> import numpy as np
        >>> str(winner(np.array(["8", "3", "3"]), np.ones(3)))
        '3'
    """
    distinct = list(dict.fromkeys(answers.tolist()))
    return max(distinct, key=lambda answer: weights[answers == answer].sum())
