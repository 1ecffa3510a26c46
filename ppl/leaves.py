"""Operations on the leaves of particles: JAX arrays, or NumPy arrays of objects.

Hosted processes may keep texts and other Python objects in object arrays, which JAX does not take.
Every operation here does the same to both. Numeric NumPy arrays become JAX arrays.

Shape letters: B problems, N particles, M rows of a result.
"""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int


def is_host(leaf: Any) -> bool:
    """Whether a leaf is an array of Python objects."""
    return isinstance(leaf, np.ndarray) and leaf.dtype == object


def is_array(leaf: Any) -> bool:
    """Whether a leaf has rows at all."""
    return isinstance(leaf, jax.Array | np.ndarray)


def take(leaf: Any, index: Int[Array, "*B M"]) -> Any:
    """Rows `index` of a leaf `(*B, N, ...)`, each within its own problem."""
    if is_host(leaf):
        rows = np.asarray(index)
        return leaf[(*np.indices(rows.shape)[:-1], rows)]

    def rows_of(leaf: Array, index: Array) -> Array:
        return leaf.at[index].get(mode="promise_in_bounds")

    for _ in range(index.ndim - 1):
        rows_of = jax.vmap(rows_of)
    return rows_of(jnp.asarray(leaf), index)


def choose(mask: Bool[Array, "*B N"], new: Any, old: Any) -> Any:
    """Rows of `new` where `mask` holds, else of `old`."""
    mask = mask.reshape(mask.shape + (1,) * (np.ndim(old) - mask.ndim))
    if is_host(old):
        return np.where(np.asarray(mask), new, old)
    return jnp.where(mask, new, old)


def allocate(leaf: Any, num: int, axis: int = 0) -> Any:
    """Storage for `num` values like `leaf` on a new axis; zeros, or None for objects."""
    shape = (*leaf.shape[:axis], num, *leaf.shape[axis:])
    return np.full(shape, None) if is_host(leaf) else jnp.zeros(shape, leaf.dtype)


def store(storage: Any, value: Any, slot: Array | int) -> Any:
    """Storage with `value` in place `slot` of axis 0."""
    if is_host(storage):
        written = storage.copy()
        written[int(slot)] = value
        return written
    value = jnp.asarray(value).astype(storage.dtype)
    return jax.lax.dynamic_update_index_in_dim(storage, value, slot, 0)


def move_axis(leaf: Any, source: int, destination: int) -> Any:
    """`moveaxis`."""
    return (np if is_host(leaf) else jnp).moveaxis(leaf, source, destination)


def encode(leaf: Any) -> np.ndarray:
    """A plain array for files: objects as JSON texts, typed keys as their data.

    Raises:
        TypeError: for an object that is not made of texts, numbers, lists and dicts.

    Example:
        >>> encode(np.array(["a", None], object)).tolist()
        ['"a"', 'null']
    """
    if is_host(leaf):
        texts = [_to_json(item) for item in leaf.reshape(-1)]
        return np.array(texts, np.str_).reshape(leaf.shape)
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return np.asarray(jax.random.key_data(leaf))
    return np.asarray(leaf)


def decode_objects(texts: np.ndarray) -> np.ndarray:
    """The object array whose `encode` is `texts`.

    Example:
        >>> decode_objects(np.array(['"a"', "null"])).tolist()
        ['a', None]
    """
    decoded = np.full(texts.size, None)
    for i, text in enumerate(texts.reshape(-1)):
        decoded[i] = json.loads(str(text))
    return decoded.reshape(texts.shape)


def _to_json(item: Any) -> str:
    try:
        return json.dumps(item)
    except TypeError as error:
        raise TypeError(
            f"{item!r} cannot be written to a file: objects of hosted processes must be made of "
            "texts, numbers, lists and dicts"
        ) from error
