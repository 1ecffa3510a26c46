"""Random draws by the names of `jax.random`, and the one effect of the language: enumeration.

Kernels and finite processes draw through this module only. Two things are added to `jax.random`:

- `key` may be an array of keys of shape `(*B,)`: the result then has the leading axes `*B`, one
  independent stream for each problem, so that a packed run equals the runs of its problems.
- inside `enumerating(oracle)` a draw does not consume randomness: it asks the oracle which outcome
  to return. `jurax.ppl.laws` walks over all outcomes in this way and so computes the exact law of
  a shipped algorithm. A uniform draw has finitely many *relevant* outcomes if the caller says, by
  `breaks`, where its result changes; each interval between breaks is one outcome.

The stack of oracles is the only hidden state of `jurax.ppl`. It is empty except inside
`jurax.ppl.laws`. Shape letters: B problems, K outcomes.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Protocol, no_type_check, runtime_checkable

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.experimental import io_callback
from jaxtyping import Array, ArrayLike

from jurax.ppl import threefry

__all__ = [
    "bernoulli",
    "beta",
    "categorical",
    "choice",
    "enumerating",
    "exponential",
    "fold_in",
    "gamma",
    "gumbel",
    "is_enumerating",
    "key",
    "normal",
    "permutation",
    "randint",
    "split",
    "uniform",
]

key = jax.random.key


@runtime_checkable
class Oracle(Protocol):
    """Chooses outcomes in place of a random number generator."""

    def choose(self, probabilities: np.ndarray, key_data: np.ndarray) -> np.ndarray:
        """Return one outcome index for each row of `probabilities[..., K]`."""
        ...


_ORACLES: list[Oracle] = []
_traced_for = jax.make_user_context(None)  # part of every jit cache key: no trace is shared


@contextlib.contextmanager
def enumerating(oracle: Oracle) -> Iterator[Oracle]:
    """Let `oracle` decide every draw that is traced inside the context."""
    _ORACLES.append(oracle)
    try:
        with _traced_for(oracle):
            yield oracle
    finally:
        _ORACLES.pop()


def is_enumerating() -> bool:
    """Whether draws are decided by an oracle at the moment."""
    return bool(_ORACLES)


def split(key: Array, num: int = 2) -> Array:
    """Split each key into `num` keys, stacked on a new *leading* axis: shape `(num, *B)`.

    Args:
        key: typed key or array of keys of shape `(*B,)`; consumed.
        num: number of children, >= 1.

    Example:
        >>> import jax
        >>> split(jax.random.split(jax.random.key(0), 5), 2).shape
        (2, 5)
    """
    children = threefry.split if threefry.is_unrolled(key) else jax.random.split
    return jnp.moveaxis(_over_keys(lambda k: children(k, num), key), key.ndim, 0)


def fold_in(key: Array, data: Array | int) -> Array:
    """Fold an integer into each key; the key itself stays usable for other integers."""
    fold = threefry.fold_in if threefry.is_unrolled(key) else jax.random.fold_in
    return _over_keys(lambda k: fold(k, data), key)


def uniform(
    key: Array,
    shape: tuple[int, ...] = (),
    dtype=None,
    minval=0.0,
    maxval=1.0,
    *,
    breaks: Callable[[], Array] | None = None,
) -> Array:
    """Draw from the uniform law on [minval, maxval).

    Args:
        key: typed key or array of keys `(*B,)`; consumed.
        shape: shape of the draw for one key.
        dtype: floating type, default that of JAX.
        minval: lower end.
        maxval: upper end.
        breaks: returns the points of [0, 1] between which the caller's result does not depend on
            the draw, of shape `(*B, *shape, K)` or `(*B, K)`. Called by enumeration only.
    """
    if not _ORACLES:
        is_single = jax.dtypes.canonicalize_dtype(dtype or float) == jnp.float32
        if is_single and _is_unit(minval, maxval) and threefry.is_unrolled(key):
            return _over_keys(lambda k: threefry.uniform(k, shape), key)
        draw = functools.partial(
            jax.random.uniform, shape=shape, dtype=dtype, minval=minval, maxval=maxval
        )
        return _over_keys(lambda k: draw(k), key)
    if breaks is None:
        raise ValueError(
            "a uniform draw cannot be enumerated without breaks: pass the points of [0, 1] where "
            "the result of the caller changes as `breaks`"
        )
    edges = _edges(breaks(), key.shape + tuple(shape))
    outcome = _ask(jnp.diff(edges, axis=-1), key)
    middle = (edges[..., 1:] + edges[..., :-1]) / 2
    point = jnp.take_along_axis(middle, outcome[..., None], axis=-1)[..., 0]
    return minval + (maxval - minval) * point


def categorical(
    key: Array, logits: Array, axis: int = -1, shape: tuple[int, ...] | None = None
) -> Array:
    """Draw indices with probabilities proportional to exp(logits) along `axis`.

    Args:
        key: typed key or array of keys `(*B,)`; consumed. With B the logits start with `*B`.
        logits: unnormalised log probabilities; -inf is never drawn.
        axis: the axis of the outcomes; the last one where `key` is an array of keys.
        shape: shape of the draw for one key, as in `jax.random.categorical`.
    """
    if not _ORACLES:
        return _over_keys(
            lambda k, x: jax.random.categorical(k, x, axis=axis, shape=shape), key, logits
        )
    probabilities = _outcome_probabilities(jnp.moveaxis(logits, axis, -1))
    if shape is not None:
        probabilities = jnp.broadcast_to(
            probabilities, key.shape + tuple(shape) + probabilities.shape[-1:]
        )
    return _ask(probabilities, key)


def bernoulli(key: Array, p: ArrayLike = 0.5, shape: tuple[int, ...] | None = None) -> Array:
    """Draw True with probability `p`."""
    if not _ORACLES:
        return _over_keys(lambda k: jax.random.bernoulli(k, p, shape), key)
    p = jnp.broadcast_to(jnp.asarray(p), key.shape + (jnp.shape(p) if shape is None else shape))
    return _ask(jnp.stack([1 - p, p], axis=-1), key).astype(bool)


def choice(
    key: Array, a: int | Array, shape: tuple[int, ...] = (), p: Array | None = None
) -> Array:
    """Draw with replacement from `a` (or `arange(a)`) with probabilities `p` (default equal)."""
    values = jnp.arange(a) if isinstance(a, int) else a
    weights = jnp.ones(values.shape[0]) if p is None else p
    logits = jnp.broadcast_to(jnp.log(weights), key.shape + weights.shape)
    draw = categorical(key, logits, shape=shape)
    return values[draw]


def randint(key: Array, shape: tuple[int, ...], minval: int, maxval: int) -> Array:
    """Draw integers from minval, ..., maxval - 1 with equal probability."""
    return minval + choice(key, maxval - minval, shape)


def _continuous(name: str) -> Callable:
    """A `jax.random` sampler that accepts arrays of keys and refuses enumeration."""
    sampler = getattr(jax.random, name)

    @functools.wraps(sampler)
    def draw(key, *args, **kwargs):
        if _ORACLES:
            raise ValueError(
                f"jurax.ppl.random.{name} is continuous and cannot be enumerated; "
                "use a process with finitely many outcomes"
            )
        return _over_keys(lambda k: sampler(k, *args, **kwargs), key)

    draw.__doc__ = f"`jax.random.{name}` for a key or an array of keys."
    return draw


normal = _continuous("normal")
exponential = _continuous("exponential")
gamma = _continuous("gamma")
beta = _continuous("beta")
gumbel = _continuous("gumbel")
permutation = _continuous("permutation")


def _is_unit(minval: ArrayLike, maxval: ArrayLike) -> bool:
    """Whether the ends of a uniform law are the numbers 0 and 1."""
    is_known = isinstance(minval, int | float) and isinstance(maxval, int | float)
    return is_known and minval == 0 and maxval == 1


def _over_keys(function: Callable, key: Array, *args: Array) -> Array:
    """Apply `function(key, *args)` to every key of an array of keys."""
    for _ in range(key.ndim):
        function = jax.vmap(function)
    return function(key, *args)


def _edges(breaks: Array, shape: tuple[int, ...]) -> Array:
    """Sorted ends of the intervals of [0, 1] between breaks, for each element of the draw."""
    inner = jnp.sort(jnp.clip(breaks, 0.0, 1.0), axis=-1)
    missing = len(shape) + 1 - inner.ndim
    inner = inner.reshape(inner.shape[:-1] + (1,) * missing + inner.shape[-1:])
    inner = jnp.broadcast_to(inner, shape + inner.shape[-1:])
    ends = jnp.zeros((*shape, 1), inner.dtype)
    return jnp.concatenate([ends, inner, ends + 1], axis=-1)


def _outcome_probabilities(logits: Array) -> Array:
    """exp(logits), normalised in the widest type; a row of -inf draws 0, as `jax.random` does."""
    logits = logits.astype(float)
    impossible = jnp.all(jnp.isneginf(logits), axis=-1, keepdims=True)
    first = jnp.where(jnp.arange(logits.shape[-1]) == 0, 0.0, -jnp.inf)
    first = jnp.broadcast_to(first, logits.shape)
    return jax.nn.softmax(jnp.where(impossible, first, logits), axis=-1)


def _ask(probabilities: Array, key: Array) -> Array:
    """Let the innermost oracle choose one outcome for each row of `probabilities[..., K]`.

    Under `vmap` all lanes ask at once. Lanes that share a key ask with copies of it: outside
    enumeration they would draw the same noise, and the oracle reports that.

    Probabilities travel as bits: JAX may run the callback in a thread of its own, where x64 is off
    and an array of float64 would be rounded to float32 on arrival.
    """
    oracle, dtype = _ORACLES[-1], np.dtype(probabilities.dtype)

    @no_type_check
    def consult(bits: Array, key_data: Array) -> np.ndarray:
        return oracle.choose(np.asarray(bits).view(dtype), np.asarray(key_data))

    @custom_vmap
    def ask(probabilities: Array, key_data: Array) -> Array:
        result = jax.ShapeDtypeStruct(probabilities.shape[:-1], jnp.int32)
        bits = jax.lax.bitcast_convert_type(probabilities, jnp.uint32)
        bits = bits.reshape(*probabilities.shape[:-1], -1)
        return io_callback(consult, result, bits, key_data, ordered=True)

    @ask.def_vmap
    def ask_all(num_lanes: int, batched: list, probabilities: Array, key_data: Array):
        lanes = [
            x if is_batched else jnp.broadcast_to(x, (num_lanes, *x.shape))
            for x, is_batched in zip((probabilities, key_data), batched, strict=True)
        ]
        return ask(*lanes), True

    key_data = jax.random.key_data(key)
    if isinstance(probabilities, jax.core.Tracer) or isinstance(key_data, jax.core.Tracer):
        return ask(probabilities, key_data)
    return jnp.asarray(oracle.choose(np.asarray(probabilities), np.asarray(key_data)), jnp.int32)
