"""Is a stated probability right: calibration of the probability of the chosen answer.

Each problem i has a probability p_i that its answer is right and y_i in {0, 1}, whether it is. A
predictor is calibrated if P(y = 1 | p) = p. Reported are

    ECE      = (1/B) sum_k |sum_{i in bin k} (y_i - p_i)|      expected calibration error
    Brier    = (1/B) sum_i (p_i - y_i)^2                       smaller is better
    log score = (1/B) sum_i log(p_i if y_i else 1 - p_i)       in nats, larger is better

with K bins of equal width (Guo et al. 2017, equation 3). The ECE of a perfectly calibrated
predictor is not zero: with few problems in a bin the share of right answers scatters about p. Its
*floor* is the mean ECE of outcomes y_i ~ Bernoulli(p_i), and an ECE means something only beside it.
Brier and log score are proper (Gneiting and Raftery 2007): their mean is best for the true p.

Shape letters: B problems, K bins, R replicates.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jurax.inference.comparison import wilson_interval
from jurax.ppl.checks import at_least

NUM_BINS = 10

Probabilities = Float[np.ndarray, " B"]
Outcomes = Bool[np.ndarray, " B"]


class ReliabilityBins(NamedTuple):
    """Problems grouped by their stated probability; empty bins hold NaN.

    Attributes:
        edges: ends of the bins, from 0 to 1.
        counts: problems in each bin.
        probability: mean stated probability.
        frequency: share of right answers.
        low: lower end of the interval of the share.
        high: upper end.
    """

    edges: Float[np.ndarray, " K1"]
    counts: Int[np.ndarray, " K"]
    probability: Float[np.ndarray, " K"]
    frequency: Float[np.ndarray, " K"]
    low: Float[np.ndarray, " K"]
    high: Float[np.ndarray, " K"]


def expected_calibration_error(
    probabilities: Probabilities, correct: Outcomes, num_bins: int = NUM_BINS
) -> float:
    """ECE with bins of equal width; see the module docstring.

    Bin k holds p in [k/K, (k + 1)/K), the last one 1 as well.

    Args:
        probabilities: p_i, stated before the answer was checked.
        correct: y_i.
        num_bins: K.

    Raises:
        ValueError: for no problem, columns of different length, or a p_i outside [0, 1].

    Example:
        >>> import numpy as np
        >>> p = np.array([0.75, 0.75, 0.75, 0.75])
        >>> expected_calibration_error(p, np.array([True, True, True, False]))
        0.0
        >>> expected_calibration_error(p, np.array([False, False, False, False]))
        0.75
    """
    check(probabilities, correct)
    member = membership(probabilities, num_bins)
    gaps = (correct - probabilities.astype(np.float64)) @ member
    return float(np.abs(gaps).sum() / len(correct))


def calibration_floor(
    key: Array, probabilities: Probabilities, num_bins: int = NUM_BINS, num_replicates: int = 2000
) -> float:
    """Mean ECE of a perfectly calibrated predictor with these probabilities (parametric bootstrap).

    Outcomes y_i ~ Bernoulli(p_i) are drawn `num_replicates` times (Broecker and Smith 2007 draw
    consistency bars in the same way).

    Args:
        key: typed key; consumed.
        probabilities: p_i.
        num_bins: K, the same as for the ECE it stands beside.
        num_replicates: R; the mean is then known to about 1 % of its value.

    Example:
        >>> import jax, numpy as np
        >>> key = jax.random.key(0)
        >>> round(calibration_floor(key, np.full(100, 0.5)), 2)  # sqrt(2 / pi) 0.5 / sqrt(100)
        0.04
        >>> calibration_floor(key, np.ones(100))  # certain and calibrated: no scatter
        0.0
    """
    check(probabilities, np.zeros(len(probabilities), bool))
    exact = probabilities.astype(np.float64)
    uniform = np.asarray(jax.random.uniform(key, (num_replicates, len(exact))))
    gaps = ((uniform < exact) - exact) @ membership(probabilities, num_bins)
    return float(np.abs(gaps).sum(axis=1).mean() / len(exact))


def brier_score(probabilities: Probabilities, correct: Outcomes) -> float:
    """Mean squared error of the stated probability (Brier 1950), between 0 and 1.

    Example:
        >>> import numpy as np
        >>> brier_score(np.array([0.5, 1.0]), np.array([True, True]))
        0.125
    """
    check(probabilities, correct)
    return float(np.mean((probabilities.astype(np.float64) - correct) ** 2))


def log_score(probabilities: Probabilities, correct: Outcomes, *, clip: float) -> float:
    """Mean log-probability of what happened, in nats; at most 0.

    A vote of N particles can say 0 or 1 where it only means "rarer than 1/N"; one wrong certainty
    would make the score -inf. Probabilities are therefore moved into [clip, 1 - clip].

    Args:
        probabilities: p_i.
        correct: y_i.
        clip: in (0, 1/2]; `clip_bound(N)` for votes of N particles. Use one value for all
            methods that are compared.

    Example:
        >>> import numpy as np
        >>> round(log_score(np.array([1.0]), np.array([False]), clip=clip_bound(16)), 3)
        -3.526
    """
    check(probabilities, correct)
    if not 0 < clip <= 0.5:
        raise ValueError(f"clip must lie in (0, 1/2], got {clip}")
    clipped = np.clip(probabilities.astype(np.float64), clip, 1 - clip)
    return float(np.mean(np.log(np.where(correct, clipped, 1 - clipped))))


def clip_bound(num_particles: int) -> float:
    """1 / (2 (N + 1)), half of what one more vote among N + 1 would count.

    Example:
        >>> clip_bound(1), clip_bound(49)
        (0.25, 0.01)
    """
    return 1 / (2 * (num_particles + 1))


def reliability_bins(
    probabilities: Probabilities,
    correct: Outcomes,
    num_bins: int = NUM_BINS,
    level: float = 0.95,
) -> ReliabilityBins:
    """Stated probability against share of right answers, bin by bin, with Wilson intervals.

    Args:
        probabilities: p_i.
        correct: y_i.
        num_bins: K bins of equal width.
        level: coverage of the intervals.

    Example:
        >>> import numpy as np
        >>> bins = reliability_bins(np.array([0.2, 0.8, 0.9]), np.array([False, True, False]), 2)
        >>> bins.counts.tolist(), bins.frequency.tolist()
        ([1, 2], [0.0, 0.5])
    """
    check(probabilities, correct)
    member = membership(probabilities, num_bins)
    counts = member.sum(axis=0).astype(int)
    size = np.where(counts > 0, counts, np.nan)
    right = correct.astype(np.float64) @ member
    low, high = wilson_interval(right, counts, level)
    return ReliabilityBins(
        edges=np.linspace(0, 1, num_bins + 1),
        counts=counts,
        probability=(probabilities.astype(np.float64) @ member) / size,
        frequency=right / size,
        low=low,
        high=high,
    )


def membership(probabilities: Probabilities, num_bins: int) -> Float[np.ndarray, "B K"]:
    """Indicator of the bin of each problem."""
    at_least(1, num_bins=num_bins)
    index = np.minimum((probabilities * num_bins).astype(int), num_bins - 1)
    return np.eye(num_bins)[index]


def check(probabilities: np.ndarray, correct: np.ndarray) -> None:
    """Raise ValueError unless there are as many outcomes as probabilities, all within [0, 1]."""
    if len(probabilities) == 0 or np.shape(probabilities) != np.shape(correct):
        raise ValueError(
            f"expected as many outcomes as probabilities, at least one, got {np.shape(correct)} "
            f"and {np.shape(probabilities)}"
        )
    outside = ~((probabilities >= 0) & (probabilities <= 1))
    if outside.any():
        i = int(np.argmax(outside))
        raise ValueError(f"probability {i} is {probabilities[i]}; expected a number in [0, 1]")
