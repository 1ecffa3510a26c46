"""Statistical checks with one false-alarm rate for the whole suite.

A check compares a mean over R independent replicates with its exact value,

    z = (mean - expected) / standard error,

and fails, two-sided, where |z| > Phi^-1(1 - ALPHA / (2 m)). With m = NUM_CHECKS, a bound on the
number of scalars checked in one run of the suite, the chance that a correct suite fails for a new
seed is at most ALPHA (Bonferroni), as far as the means are normal: use hundreds of replicates.
The bias that a check can see is about the threshold times the standard error; `assert_mean` prints
it on failure and `resolution` refuses a check that is too blunt to mean anything.
"""

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

ALPHA = 1e-4
NUM_CHECKS = 1000


def z_threshold(num_checks: int = NUM_CHECKS, alpha: float = ALPHA) -> float:
    """Largest |z| that is no alarm: 5.3 for a thousand checks."""
    return NormalDist().inv_cdf(1 - alpha / (2 * num_checks))


def mean_and_error(replicates: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Mean over axis 0 and its standard error, in float64."""
    values = np.asarray(replicates, np.float64)
    if values.shape[0] < 2:
        raise ValueError(f"a standard error needs at least 2 replicates, got {values.shape[0]}")
    return values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(values.shape[0])


def assert_mean(
    replicates: ArrayLike,
    expected: ArrayLike,
    *,
    limit: float | None = None,
    expected_error: ArrayLike = 0.0,
    resolution: float | None = None,
) -> np.ndarray:
    """Check that the mean of independent replicates is `expected`, elementwise.

    Args:
        replicates: independent values, shape `(R, ...)`.
        expected: exact value, shape `(...)` or scalar.
        limit: largest |z|; by default `z_threshold()`.
        expected_error: standard error of `expected` where it is itself an estimate.
        resolution: largest standard error at which the check still says something.

    Returns:
        The z-scores.
    """
    mean, error = mean_and_error(replicates)
    if not np.all(np.isfinite(mean)):
        raise AssertionError(f"replicates are not finite: mean {mean}")
    return assert_estimate(
        mean,
        expected,
        np.hypot(error, np.asarray(expected_error, np.float64)),
        limit=limit,
        resolution=resolution,
    )


def assert_estimate(
    estimate: ArrayLike,
    expected: ArrayLike,
    standard_error: ArrayLike,
    *,
    limit: float | None = None,
    resolution: float | None = None,
) -> np.ndarray:
    """Check estimates with known standard errors; an error of 0 demands equality to 1e-12."""
    limit = z_threshold() if limit is None else limit
    estimate, expected = np.asarray(estimate, np.float64), np.asarray(expected, np.float64)
    error = np.broadcast_to(np.asarray(standard_error, np.float64), estimate.shape)
    if resolution is not None and np.max(error) > resolution:
        raise AssertionError(f"too blunt: standard error {np.max(error):.3g} > {resolution:.3g}")
    difference = estimate - expected
    scale = np.where(error > 0, error, 1e-12 * np.maximum(1.0, np.abs(expected)))
    z = difference / scale
    worst = np.unravel_index(np.argmax(np.abs(z)), z.shape)
    if not np.abs(z[worst]) <= limit:
        exact = np.broadcast_to(expected, z.shape)[worst]
        raise AssertionError(
            f"mean {estimate[worst]:.6g} differs from {exact:.6g}"
            f" by z = {z[worst]:.2f} (limit {limit:.2f}, standard error {error[worst]:.3g})"
            f" at index {tuple(int(i) for i in worst)} of shape {z.shape}"
        )
    return z


def assert_unbiased_evidence(
    log_estimates: ArrayLike,
    log_evidence: ArrayLike,
    *,
    limit: float | None = None,
    largest_deviation: float = 3.0,
) -> float:
    """Check E[Zhat / Z] = 1 over independent log-evidence estimates, shape `(R,)`; return z.

    A standard deviation of Zhat / Z above `largest_deviation` is refused: the mean is then set by
    a few rare runs and its z-score means nothing.
    """
    ratio = np.exp(np.asarray(log_estimates, np.float64) - np.asarray(log_evidence, np.float64))
    if not np.std(ratio) <= largest_deviation:
        raise AssertionError(
            f"sd of Zhat / Z is {np.std(ratio):.3g} > {largest_deviation}: use more particles"
        )
    return float(assert_mean(ratio, 1.0, limit=limit))


def total_variation(first: ArrayLike, second: ArrayLike) -> float:
    """Half the sum of |p - q| for two probability vectors."""
    return float(0.5 * np.sum(np.abs(np.asarray(first) - np.asarray(second))))
