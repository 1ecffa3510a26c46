"""How sure is an average over problems, and a difference between two methods.

Problems are the independent units: a standard error counts problems, never particles. Two methods
that were run on the same problems are compared by the mean of their differences problem by
problem, whose error is much smaller than that of two separate averages.

Shape letters: B problems, R replicates.
"""

from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Num


class Estimate(NamedTuple):
    """An average over problems with its standard error."""

    value: float
    standard_error: float

    def __str__(self) -> str:
        return f"{self.value:.3f} +- {self.standard_error:.3f}"


def mean_with_error(values: Num[Array | np.ndarray, " B"] | Bool[np.ndarray, " B"]) -> Estimate:
    """Mean over problems and its standard error, the standard deviation (B - 1) / sqrt(B).

    For one problem the standard error is NaN: nothing is known about it.

    Raises:
        ValueError: if there is no value.

    Example:
        >>> import numpy as np
        >>> print(mean_with_error(np.array([1.0, 0.0, 1.0, 0.0])))
        0.500 +- 0.289
    """
    values = np.asarray(values, np.float64)
    if values.size == 0:
        raise ValueError("there are no problems to average over")
    error = values.std(ddof=1) / np.sqrt(values.size) if values.size > 1 else np.nan
    return Estimate(float(values.mean()), float(error))


def paired_difference(
    first: Num[Array | np.ndarray, " _"] | Bool[np.ndarray, " _"],
    second: Num[Array | np.ndarray, " _"] | Bool[np.ndarray, " _"],
) -> Estimate:
    """Mean of first - second over the same problems, with the standard error of that mean.

    Args:
        first: a figure for each problem, such as whether a method was right.
        second: the same figure of another method on the same problems in the same order.

    Raises:
        ValueError: if the two do not have the same problems, or there is none.

    Example:
        >>> import numpy as np
        >>> print(paired_difference(np.array([1, 1, 0, 1]), np.array([0, 1, 0, 1])))
        0.250 +- 0.250
    """
    if np.shape(first) != np.shape(second):
        raise ValueError(
            f"a paired difference needs the same problems twice, got {np.shape(first)[0]} and "
            f"{np.shape(second)[0]}"
        )
    return mean_with_error(np.asarray(first, np.float64) - np.asarray(second, np.float64))


def bootstrap_standard_error(
    key: Array,
    statistic: Callable[..., float],
    *columns: np.ndarray,
    num_replicates: int = 200,
) -> float:
    """Standard error of a statistic of problems by the bootstrap (Efron 1979).

    Problems are drawn with replacement, all columns together, and the standard deviation of
    `statistic(*columns)` over the replicates is returned.

    Args:
        key: typed key; consumed.
        statistic: function of columns with one entry for each problem.
        columns: arrays with leading axis B.
        num_replicates: R; 200 give the standard error to about 5 %.

    Example:
        >>> import jax, numpy as np
        >>> values = np.arange(100.0)
        >>> error = bootstrap_standard_error(jax.random.key(0), np.mean, values)
        >>> bool(abs(error - mean_with_error(values).standard_error) < 0.5)
        True
    """
    num = len(columns[0])
    draws = np.asarray(jax.random.randint(key, (num_replicates, num), 0, num))
    return float(np.std([statistic(*(c[rows] for c in columns)) for rows in draws], ddof=1))


def wilson_interval(
    successes: Num[np.ndarray, "*K"], trials: Num[np.ndarray, "*K"], level: float = 0.95
) -> tuple[Float[np.ndarray, "*K"], Float[np.ndarray, "*K"]]:
    """Interval of a share k / n by inverting the score test (Wilson 1927).

    With z the normal quantile and p = k / n, the ends are

        (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n).

    It stays inside [0, 1] and keeps its coverage for small n (Brown, Cai and DasGupta 2001,
    section 3.1.1). Where n = 0 both ends are NaN.

    Example:
        >>> import numpy as np
        >>> low, high = wilson_interval(np.array([8]), np.array([10]))
        >>> float(low[0].round(3)), float(high[0].round(3))
        (0.49, 0.943)
    """
    z = NormalDist().inv_cdf(0.5 + level / 2)
    num = np.where(np.asarray(trials) > 0, trials, np.nan).astype(np.float64)
    share = np.asarray(successes, np.float64) / num
    centre = share + z**2 / (2 * num)
    half = z * np.sqrt(share * (1 - share) / num + z**2 / (4 * num**2))
    scale = 1 + z**2 / num
    return np.maximum(0.0, (centre - half) / scale), np.minimum(1.0, (centre + half) / scale)
