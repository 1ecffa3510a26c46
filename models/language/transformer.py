"""Decoder-only transformer in flax.nnx: the block of Llama and Qwen.

    h = x + Attention(RMSNorm(x))        y = h + SwiGLU(RMSNorm(h))

with rotary positions (half-split), grouped key/value heads, optional biases of q, k, v (Qwen2) and
optional RMSNorm of q and k (Qwen3). One `__call__` serves for training (no cache), prefill (the
prompt), decoding (one token) and scoring (a chunk of tokens); see `attention` and `cache`.

Shape letters: R rows, Q tokens of the call, V vocabulary, D width, H heads, K key/value heads,
F size of a head.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jurax.models.language.attention import attend, rotate
from jurax.models.language.cache import Cache, advance, append


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Sizes and options of a transformer.

    Attributes:
        vocab_size: V.
        num_layers: blocks.
        width: D.
        num_heads: query heads H, a multiple of `num_kv_heads`.
        num_kv_heads: key/value heads K.
        head_size: F, even.
        hidden_size: width of the SwiGLU part.
        rope_base: base of the rotary frequencies.
        norm_epsilon: added to the mean square in RMSNorm.
        qk_norm: RMSNorm of queries and keys (Qwen3).
        qkv_bias: biases of the q, k, v projections (Qwen2, Qwen2.5).
        tied_embeddings: the output layer is the embedding table.
    """

    vocab_size: int
    num_layers: int = 3
    width: int = 128
    num_heads: int = 4
    num_kv_heads: int = 2
    head_size: int = 32
    hidden_size: int = 384
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-6
    qk_norm: bool = False
    qkv_bias: bool = False
    tied_embeddings: bool = False

    def __post_init__(self):
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads is {self.num_heads}; expected a multiple of num_kv_heads, "
                f"{self.num_kv_heads}"
            )
        if self.head_size % 2:
            raise ValueError(f"head_size is {self.head_size}; rotary positions need an even number")


class Attention(nnx.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, config: TransformerConfig, rngs: nnx.Rngs):
        """Projections without bias, except q, k, v when `config.qkv_bias`."""
        queries, keys = config.num_heads * config.head_size, config.num_kv_heads * config.head_size
        self.config = config
        self.query = _linear(config.width, queries, rngs, use_bias=config.qkv_bias)
        self.key = _linear(config.width, keys, rngs, use_bias=config.qkv_bias)
        self.value = _linear(config.width, keys, rngs, use_bias=config.qkv_bias)
        self.output = _linear(queries, config.width, rngs)
        if config.qk_norm:
            self.query_norm = _norm(config.head_size, config, rngs)
            self.key_norm = _norm(config.head_size, config, rngs)

    def __call__(self, x: Array, positions: Array, cache: Cache | None, layer: int):
        """Return (output [R * Q, D], keys [R, K, F, S] and values [R, K, S, F] with the chunk)."""
        config, shape = self.config, (*positions.shape, -1, self.config.head_size)
        query, key, value = (f(x).reshape(shape) for f in (self.query, self.key, self.value))
        if config.qk_norm:
            query, key = self.query_norm(query), self.key_norm(key)
        query, key = (rotate(u, positions, config.rope_base) for u in (query, key))
        keys, values = append(cache, layer, key, value)
        mixed = attend(query, keys, values, cache, layer)
        return self.output(mixed.reshape(x.shape[0], -1)), keys, values


class FeedForward(nnx.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: TransformerConfig, rngs: nnx.Rngs):
        """Three projections without bias."""
        self.gate = _linear(config.width, config.hidden_size, rngs)
        self.up = _linear(config.width, config.hidden_size, rngs)
        self.down = _linear(config.hidden_size, config.width, rngs)

    def __call__(self, x: Array) -> Array:
        """Map [R * Q, D] to itself."""
        return self.down(jax.nn.silu(self.gate(x)) * self.up(x))


class Block(nnx.Module):
    """Attention and feed-forward part, each after RMSNorm and added to its input."""

    def __init__(self, config: TransformerConfig, rngs: nnx.Rngs):
        """One layer."""
        self.attention_norm = _norm(config.width, config, rngs)
        self.attention = Attention(config, rngs)
        self.feed_forward_norm = _norm(config.width, config, rngs)
        self.feed_forward = FeedForward(config, rngs)

    def __call__(self, x: Array, positions: Array, cache: Cache | None, layer: int):
        """Return (output, keys, values); see `Attention`."""
        mixed, key, value = self.attention(self.attention_norm(x), positions, cache, layer)
        x = x + mixed
        return x + self.feed_forward(self.feed_forward_norm(x)), key, value


class Transformer(nnx.Module):
    """Tokens to logits of the next token.

    Args:
        config: sizes.
        rngs: source of the random weights (`nnx.Rngs(0)`).

    Example:
        >>> import jax.numpy as jnp
        >>> config = TransformerConfig(vocab_size=16, num_layers=1, width=8, head_size=2)
        >>> model = Transformer(config, nnx.Rngs(0))
        >>> model(jnp.zeros((2, 5), int))[0].shape
        (2, 5, 16)
    """

    def __init__(self, config: TransformerConfig, rngs: nnx.Rngs):
        """Embedding, blocks, last norm, and the output table unless it is tied."""
        self.config = config
        shape = (config.vocab_size, config.width)
        table = jax.nn.initializers.normal(config.width**-0.5)
        self.embedding = nnx.Param(table(rngs.params(), shape))
        self.blocks = nnx.List([Block(config, rngs) for _ in range(config.num_layers)])
        self.norm = _norm(config.width, config, rngs)
        if not config.tied_embeddings:
            self.head = nnx.Param(table(rngs.params(), shape))

    def __call__(
        self,
        tokens: Int[Array, "R Q"],
        cache: Cache | None = None,
        counts: Int[Array, " R"] | None = None,
    ) -> tuple[Float[Array, "R Q V"], Cache]:
        """Logits of the token after each given token, and the cache with the new tokens.

        Without a cache the tokens start at position 0, and the returned cache has them as a
        private part of capacity Q. With one they continue each row at its own length.

        Args:
            tokens: R rows of Q tokens; attention inside the chunk is causal.
            cache: what each row has read before (see `cache.start`).
            counts: how many of the Q tokens of each row count (None: all). The others are padding
                at the right: they are not kept, and their logits mean nothing.
        """
        rows, num = tokens.shape
        counts = jnp.full(rows, num, jnp.int32) if counts is None else counts.astype(jnp.int32)
        start = jnp.zeros(rows, jnp.int32) if cache is None else cache.positions
        positions = start[:, None] + jnp.arange(num)[None]
        # Dense layers run on [R * Q, D]: XLA's CPU gradient of [R, Q, D] is twice as slow.
        x = self.embedding[...][tokens.reshape(-1)]
        keys, values = [], []
        for layer, block in enumerate(self.blocks):
            x, key, value = block(x, positions, cache, layer)
            keys.append(key)
            values.append(value)
        table = self.embedding if self.config.tied_embeddings else self.head
        logits = self.norm(x) @ table[...].T
        return logits.reshape(rows, num, -1), advance(cache, keys, values, counts)


def _linear(inputs: int, outputs: int, rngs: nnx.Rngs, use_bias: bool = False) -> nnx.Linear:
    return nnx.Linear(inputs, outputs, use_bias=use_bias, rngs=rngs)


def _norm(size: int, config: TransformerConfig, rngs: nnx.Rngs) -> nnx.RMSNorm:
    return nnx.RMSNorm(size, epsilon=config.norm_epsilon, rngs=rngs)
