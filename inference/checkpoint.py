"""Checkpoints of a run: the state after a step, and what a run must agree with to resume from it.

A killed run leaves the last complete state: files are written in one piece (`jurax.ppl.npz`).
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jurax.inference.loop import Run
from jurax.ppl import AbstractProcess, leaves, npz

HASHED_WHOLE = 2**20  # bytes; of larger arrays (weights of a model) a sample is taken


def fingerprint(key: Array, process: AbstractProcess, algorithm: Any, budget: Any) -> str:
    """What a checkpoint must agree with to be resumed, as one line."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((key, eqx.filter(process, leaves.is_array), algorithm, budget)):
        digest.update(_bytes_of(leaf))
    names = f"{type(process).__name__}|{process.target}|{process.num_steps}|{algorithm!r}"
    plain = [getattr(process, field.name, None) for field in dataclasses.fields(process)]
    plain = [x for x in plain if isinstance(x, str | int | float | tuple)]
    return f"{names}|{plain!r}|{digest.hexdigest()}".replace("\n", " ")


def keep(path: Path, title: str, current: Run) -> None:
    """Write the state atomically."""
    arrays = {str(i): leaves.encode(x) for i, x in enumerate(jax.tree.leaves(current))}
    npz.write(path, arrays, title, compress=False)


def restore(path: Path, title: str, like: Run) -> Run:
    """Read a state of the same structure as `like`.

    Raises:
        ValueError: if the file is damaged or belongs to another run.
    """
    found, written_by = npz.read(path, "a checkpoint, or is damaged; delete it to start anew")
    expected, structure = jax.tree.flatten(like)
    arrays = [found[name] for name in map(str, range(len(expected))) if name in found]
    is_whole = len(arrays) == len(expected) and all(map(_fits, arrays, expected))
    if written_by != title or not is_whole:
        raise ValueError(
            f"{path} is a checkpoint of another run (key, process, algorithm or budget differ). "
            "Give the same arguments, or another file"
        )
    return jax.tree.unflatten(structure, map(_decode, arrays, expected))


def _fits(array: np.ndarray, like: Any) -> bool:
    if leaves.is_host(like):
        return array.shape == like.shape
    plain = leaves.encode(like)
    return array.shape == plain.shape and array.dtype == plain.dtype


def _decode(array: np.ndarray, like: Any) -> Any:
    if leaves.is_host(like):
        return leaves.decode_objects(array)
    if isinstance(like, jax.Array) and jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(like))
    return jnp.asarray(array)


def _bytes_of(leaf: PyTree) -> bytes:
    if not leaves.is_array(leaf):
        return repr(leaf).encode()
    if leaf.size * leaf.dtype.itemsize > HASHED_WHOLE:
        shape = str((leaf.shape, leaf.dtype)).encode()
        stride = leaf.size // 1000
        return shape + leaves.encode(leaf.reshape(-1)[::stride]).tobytes()
    array = leaves.encode(leaf)
    return str((array.shape, array.dtype)).encode() + array.tobytes()
