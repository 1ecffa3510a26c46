"""Threefry-2x32, unrolled: the bits of `jax.random`, in one fused piece of the compiled program.

`jax.random` hashes on a CPU in a loop of five groups of four rounds, each with kernels of its own.
For the one or two numbers of a split, that is some fifty kernel launches and costs more than a
thousand particles' weights. The functions here are the same maps, bit for bit, with the twenty
rounds written out (Salmon, Moraes, Dror and Shaw 2011, section 4.2 and table 2).

They read key data, which the key-reuse checker of JAX does not see. `is_unrolled` is therefore
false while `jax_debug_key_reuse` is on, and callers use `jax.random`. Unrolled, a filter compiles
half as long again; code that compiles much and runs little (our tests) sets `UNROLL` to False.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, UInt32

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA  # the constant of the key schedule
UNROLL = True  # read where a function is traced


def is_unrolled(key: Array) -> bool:
    """Whether draws from `key` may be made by the functions of this file."""
    config = jax.config
    plain = UNROLL and config.jax_threefry_partitionable and not config.jax_debug_key_reuse  # pyright: ignore
    return plain and jax.random.key_impl(key) == "threefry2x32"


@functools.partial(jax.jit, inline=True)  # a hundred operations, one dispatch where run eagerly
def threefry(
    key_data: UInt32[Array, "2"], first: UInt32[Array, "*S"], second: UInt32[Array, "*S"]
) -> tuple[UInt32[Array, "*S"], UInt32[Array, "*S"]]:
    """Encrypt pairs of counters.

    Example:
        >>> import jax.numpy as jnp
        >>> zero = jnp.zeros((), jnp.uint32)
        >>> [hex(x) for x in threefry(jnp.zeros(2, jnp.uint32), zero, zero)]
        ['0x6b200159', '0x99ba4efe']
    """
    schedule = (key_data[0], key_data[1], key_data[0] ^ key_data[1] ^ jnp.uint32(PARITY))
    first, second = first + schedule[0], second + schedule[1]
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            first = first + second
            second = (second << jnp.uint32(rotation)) | (second >> jnp.uint32(32 - rotation))
            second = first ^ second
        first = first + schedule[(group + 1) % 3]
        second = second + schedule[(group + 2) % 3] + jnp.uint32(group + 1)
    return first, second


def split(key: Array, num: int) -> Array:
    """`jax.random.split(key, num)`.

    Example:
        >>> import jax
        >>> key = jax.random.key(0)
        >>> bool((split(key, 3) == jax.random.split(key, 3)).all())
        True
    """
    low = jnp.arange(num, dtype=jnp.uint32)
    return _wrap(*threefry(jax.random.key_data(key), jnp.zeros_like(low), low))


def fold_in(key: Array, data: ArrayLike) -> Array:
    """`jax.random.fold_in(key, data)`.

    Example:
        >>> import jax
        >>> key = jax.random.key(0)
        >>> bool(fold_in(key, 7) == jax.random.fold_in(key, 7))
        True
    """
    low = jnp.asarray(data).astype(jnp.uint32)
    return _wrap(*threefry(jax.random.key_data(key), jnp.zeros_like(low), low))


def uniform(key: Array, shape: tuple[int, ...]) -> Float[Array, "*S"]:
    """`jax.random.uniform(key, shape, float32)`.

    Example:
        >>> import jax
        >>> key = jax.random.key(0)
        >>> bool((uniform(key, (3, 2)) == jax.random.uniform(key, (3, 2))).all())
        True
    """
    low = jnp.arange(math.prod(shape), dtype=jnp.uint32)
    first, second = threefry(jax.random.key_data(key), jnp.zeros_like(low), low)
    return mantissa(first ^ second).reshape(shape) - 1


def mantissa(bits: UInt32[Array, "*S"]) -> Float[Array, "*S"]:
    """The float32 number in [1, 2) of the 23 highest bits."""
    fraction = (bits >> 9) | jnp.uint32(0x3F800000)
    return jax.lax.bitcast_convert_type(fraction, jnp.float32)


def _wrap(first: Array, second: Array) -> Array:
    return jax.random.wrap_key_data(jnp.stack([first, second], axis=-1), impl="threefry2x32")
