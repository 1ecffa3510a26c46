"""Attention of a chunk over two parts: the shared prompt, and the row's own past with the chunk.

One softmax runs over the concatenation of the parts; each part keeps its own layout. The keys of
a prompt are stored once per problem and meet the queries of all N particles in one product.

Shape letters: B problems, N particles, R = B * N rows, Q tokens of the chunk, P prompt tokens,
S private tokens, K key/value heads, G query heads per key/value head, F size of a head.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jurax.models.language.cache import Cache


def rotate(
    x: Float[Array, "R Q H F"], positions: Int[Array, "R Q"], base: float
) -> Float[Array, "R Q H F"]:
    """Rotary positions, half-split: (u, v) -> (u cos - v sin, v cos + u sin).

    The angle of pair i at position p is p * base^(-2 i / F). Su et al. (2021), eq. 34, with the
    pairs (i, i + F/2) as in the released Llama and Qwen weights.
    """
    half = x.shape[-1] // 2
    # Angles in float32 at least: in bfloat16 position 257 would equal 256.
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    frequencies = base ** (-jnp.arange(half, dtype=dtype) / half)
    angles = positions[..., None, None].astype(dtype) * frequencies[None, None, None]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    u, v = x[..., :half], x[..., half:]
    return jnp.concatenate([u * cos - v * sin, v * cos + u * sin], axis=-1).astype(x.dtype)


def attend(
    query: Float[Array, "R Q H F"],
    keys: Float[Array, "R K F S"],
    values: Float[Array, "R K S F"],
    cache: Cache | None,
    layer: int,
) -> Float[Array, "R Q H F"]:
    """softmax(q k / sqrt(F)) v over the prompt, the private past and the causal part of the chunk.

    Args:
        query: queries of the chunk.
        keys: keys of this layer with the chunk written behind each row's past.
        values: values likewise.
        cache: prompts, and the lengths before the chunk; None for a chunk without a past.
        layer: whose prompt to read.
    """
    rows, num, heads, size = query.shape
    query = query.reshape(rows, num, keys.shape[1], -1, size) * size**-0.5
    lengths = jnp.zeros(rows, jnp.int32) if cache is None else cache.lengths
    parts = [_private_part(query, keys, values, lengths)]
    if cache is not None and cache.prompt_capacity:
        parts.append(_prompt_part(query, cache, layer))
    top = parts[0][0].max(axis=-1, keepdims=True)
    for scores, _ in parts[1:]:
        top = jnp.maximum(top, scores.max(axis=-1, keepdims=True))
    total, mixed = 0.0, 0.0
    for scores, mix in parts:
        weights = jnp.exp(scores - top)
        total = total + weights.sum(axis=-1)
        mixed = mixed + mix(weights.astype(values.dtype))
    mixed = mixed / total.transpose(0, 3, 1, 2)[..., None].astype(values.dtype)
    return mixed.reshape(rows, num, heads, size)


def _private_part(query, keys, values, lengths: Int[Array, " R"]):
    """Scores [R, K, G, Q, S] of the row's own tokens, and the map from weights to values.

    Token q of the chunk stands in slot `length + q` and sees the slots up to its own.
    """
    scores = _upcast(jnp.einsum("rqkgf,rkfs->rkgqs", query, keys))
    own = lengths[:, None] + jnp.arange(query.shape[1])[None]
    live = jnp.arange(keys.shape[-1])[None, None] <= own[..., None]
    masked = _mask(scores, live[:, None, None])
    return masked, lambda w: jnp.einsum("rkgqs,rksf->rqkgf", w, values)


def _prompt_part(query, cache: Cache, layer: int):
    """Scores [R, K, G, Q, P] of the prompt: one product for the N * G * Q queries of a problem."""
    keys, values = cache.prompt_keys[layer], cache.prompt_values[layer]
    num_problems, size = keys.shape[0], keys.shape[-1]
    split = query.reshape(num_problems, -1, *query.shape[1:])
    scores = _upcast(jnp.einsum("bnqkgf,bkfp->bnkgqp", split, keys))
    live = jnp.arange(size)[None] < cache.prompt_lengths[:, None]
    masked = _mask(scores, live[:, None, None, None, None, :])

    def mix(weights):
        weights = weights.reshape(num_problems, -1, *weights.shape[1:])
        mixed = jnp.einsum("bnkgqp,bkpf->bnqkgf", weights, values)
        return mixed.reshape(query.shape)

    return masked.reshape(query.shape[0], *scores.shape[2:]), mix


def _upcast(scores: Array) -> Array:
    """Softmax runs in float32 at least."""
    return scores.astype(jnp.promote_types(scores.dtype, jnp.float32))


def _mask(scores: Array, live: Array) -> Array:
    """-inf where not live. A row's own token is always live, so no softmax is empty."""
    return jnp.where(live, scores, -jnp.inf)
