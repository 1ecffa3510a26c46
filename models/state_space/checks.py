"""Checks of parameters and data; traced values cannot be looked at and pass."""

import jax
import numpy as np
from jaxtyping import ArrayLike


def check_shape(name: str, value: ArrayLike, shape: tuple[int, ...], reason: str) -> None:
    """Refuse an array of another shape.

    Example:
        >>> check_shape("initial_mean", np.zeros(3), (2,), "two states")
        Traceback (most recent call last):
            ...
        ValueError: initial_mean must have shape (2,) (two states), got (3,)
    """
    if np.shape(value) != shape:
        raise ValueError(f"{name} must have shape {shape} ({reason}), got {np.shape(value)}")


def check_covariance(name: str, value: ArrayLike) -> None:
    """Refuse a matrix that is not symmetric and positive definite.

    Example:
        >>> check_covariance("noise", np.array([[1.0, 2.0], [2.0, 1.0]]))
        Traceback (most recent call last):
            ...
        ValueError: noise must be symmetric with eigenvalues > 0, got eigenvalues from -1 to 3
    """
    if isinstance(value, jax.core.Tracer):
        return
    matrix = np.asarray(value, np.float64)
    eigenvalues = np.linalg.eigvalsh(matrix) if np.isfinite(matrix).all() else np.array([np.nan])
    if not (np.allclose(matrix, matrix.T, rtol=1e-4, atol=1e-6) and eigenvalues.min() > 0):
        raise ValueError(
            f"{name} must be symmetric with eigenvalues > 0, got eigenvalues from "
            f"{eigenvalues.min():g} to {eigenvalues.max():g}"
        )


def check_range(name: str, value: ArrayLike, low: float | int, high: float | int) -> None:
    """Refuse a number outside of the open interval (low, high), NaN included.

    Example:
        >>> check_range("scale", np.array(-0.5), 0, np.inf)
        Traceback (most recent call last):
            ...
        ValueError: scale must lie in (0, inf), got -0.5
    """
    if not isinstance(value, jax.core.Tracer) and not low < float(value) < high:
        raise ValueError(f"{name} must lie in ({low:g}, {high:g}), got {float(value):g}")


def check_series(observations: ArrayLike) -> None:
    """Refuse infinite observations, and rows of a series that are NaN in part.

    Example:
        >>> check_series(np.array([[0.0, 1.0], [np.nan, 1.0]]))
        Traceback (most recent call last):
            ...
        ValueError: observations: row 1 is NaN in part; a row is observed or missing as a whole...
    """
    if isinstance(observations, jax.core.Tracer):
        return
    rows = np.asarray(observations)
    rows = rows[:, None] if rows.ndim == 1 else rows
    if np.isinf(rows).any():
        raise ValueError(f"observations: row {np.isinf(rows).any(1).argmax()} is infinite")
    partly = np.isnan(rows).any(axis=1) & ~np.isnan(rows).all(axis=1)
    if partly.any():
        raise ValueError(
            f"observations: row {partly.argmax()} is NaN in part; a row is observed or missing as "
            "a whole. Make the row NaN throughout, or write the model as a NumPyro program with "
            "one site for each component"
        )
