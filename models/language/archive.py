"""`posterior.nc`: all particles of a run as NetCDF, for xarray and ArviZ.

The root group holds the weighted particles, on the dimensions problem, particle, step and token:

    answer log_weight log_odds length finished tokens log_prob    of each particle
    log_evidence ess status                                       of each problem

with target, versions, seed and the rest of the run as attributes. The group `posterior` holds
equally weighted draws for ArviZ (chain, draw, problem): particle i appears about N W_i times.
Weights are used once: read either the root with its weights or the draws without.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray
from jaxtyping import Float, Int

from jurax.models.language.results import Arrays
from jurax.ppl.storage import versions

DIMENSIONS = ("problem", "particle")
LAST = {"tokens": "token", "log_odds": "step"}
DRAWN = ("answer", "length", "finished", "log_prob")
MEANING = {
    "answer": "answer of the particle; empty: unfinished or none",
    "log_weight": "unnormalised log weight",
    "log_odds": "log-odds of the reward after each step; NaN: no such step or no reward",
    "length": "tokens of the solution",
    "finished": "whether the solution ended",
    "tokens": "token ids of the solution, padded with 0",
    "log_prob": "log-probability of the solution under the language model, in nats",
    "log_evidence": "log Zhat; NaN where the method estimates none",
    "ess": "effective sample size of the final weights, in particles",
    "status": "0 ok, 1 dead, 2 invalid potential, 3 out of budget",
}


def write_archive(
    path: Path, ids: Sequence[str], arrays: Arrays, attributes: dict[str, Any]
) -> None:
    """Write the file; it appears at once, complete.

    Args:
        path: the file.
        ids: names of the problems.
        arrays: as from `results.arrays_of`.
        attributes: plain values, or structures that are stored as JSON.
    """
    temporary = path.with_name(path.name + ".partial")
    plain = {name: as_attribute(value) for name, value in attributes.items()}
    plain["versions"] = as_attribute(versions())
    weighted = weighted_particles(ids, arrays).assign_attrs(plain)
    weighted.to_netcdf(temporary, engine="h5netcdf", mode="w", encoding=compressed(weighted))
    draws = equal_draws(ids, arrays).assign_attrs(plain, inference_library="jurax")
    draws.to_netcdf(temporary, engine="h5netcdf", mode="a", group="posterior")
    os.replace(temporary, path)


def weighted_particles(ids: Sequence[str], arrays: Arrays) -> xarray.Dataset:
    """The root group."""
    variables = {}
    for name, array in arrays.items():
        inner = (LAST[name],) if name in LAST else ()
        outer = DIMENSIONS[: array.ndim - len(inner)]
        variables[name] = ((*outer, *inner), stored(array), {"long_name": MEANING[name]})
    return xarray.Dataset(variables, coords={"problem": stored(np.array(ids, dtype=str))})


def equal_draws(ids: Sequence[str], arrays: Arrays) -> xarray.Dataset:
    """The group `posterior`: one chain of N equally weighted draws for each problem."""
    slots = equal_slots(arrays["log_weight"])
    variables = {
        name: (
            ("chain", "draw", "problem"),
            stored(np.take_along_axis(arrays[name], slots, 1).T[None]),
        )
        for name in DRAWN
    }
    coordinates = {
        "chain": np.arange(1),
        "draw": np.arange(slots.shape[1]),
        "problem": stored(np.array(ids, dtype=str)),
    }
    return xarray.Dataset(variables, coords=coordinates)


def equal_slots(log_weights: Float[np.ndarray, "B N"]) -> Int[np.ndarray, "B N"]:
    """Particle i floor or ceil of N W_i times: systematic resampling with its offset at 1/2.

    Example:
        >>> import numpy as np
        >>> equal_slots(np.log([[0.5, 0.25, 0.25, 1e-9]])).tolist()
        [[0, 0, 1, 2]]
    """
    num = log_weights.shape[1]
    top = np.max(log_weights, axis=1, keepdims=True)
    weights = np.exp(log_weights - np.where(np.isfinite(top), top, 0.0)).astype(np.float64)
    weights[weights.sum(axis=1) == 0] = 1.0  # a dead population: every particle once
    ends = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)
    points = (np.arange(num) + 0.5) / num
    return np.minimum((ends[:, None, :] < points[:, None]).sum(axis=2), num - 1)


def stored(array: np.ndarray) -> np.ndarray:
    """Texts as objects (variable length in the file), the rest as it is; bool as int8."""
    if array.dtype.kind == "U":
        return array.astype(object)
    return array.astype(np.int8) if array.dtype == bool else array


def compressed(dataset: xarray.Dataset) -> dict[str, dict]:
    """Compression of the large variables."""
    return {name: {"zlib": True} for name in ("tokens", "log_odds") if dataset[name].size}


def as_attribute(value: Any) -> Any:
    """NetCDF attributes are numbers and texts."""
    return value if isinstance(value, str | int | float) else json.dumps(value)
