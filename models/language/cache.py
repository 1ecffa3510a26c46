"""Keys and values that a transformer has computed: a shared prompt part and a private part.

The prompt is stored once per problem and is shared by its N particles; only what a particle wrote
itself is private, so resampling moves the private part alone (`gather`). Rows of one problem are
contiguous: row = problem * N + particle. Each row has its own length; slots beyond it are garbage
and masked, so padding needs no clean-up and a row that stands still only keeps its length.

Layers are separate arrays, and positions are the last axis of keys and the second last of values:
a decode step then reads memory in order (on the CPU 6 times faster than one array [R, S, L, K, F]).

Shape letters: B problems, N particles, R = B * N rows, P prompt tokens, S private tokens, L layers,
K key/value heads, F size of a head, Q tokens of a chunk.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Cache(eqx.Module):
    """What has been read: prompts by problem, the rest by row; one array for each layer.

    Attributes:
        prompt_keys: L arrays [B, K, F, P].
        prompt_values: L arrays [B, K, P, F].
        prompt_lengths: [B], tokens of each prompt that count.
        keys: L arrays [R, K, F, S].
        values: L arrays [R, K, S, F].
        lengths: [R], private tokens of each row.
    """

    prompt_keys: tuple[Float[Array, "B K F P"], ...]
    prompt_values: tuple[Float[Array, "B K P F"], ...]
    prompt_lengths: Int[Array, " B"]
    keys: tuple[Float[Array, "R K F S"], ...]
    values: tuple[Float[Array, "R K S F"], ...]
    lengths: Int[Array, " R"]

    @property
    def positions(self) -> Int[Array, " R"]:
        """Position of the next token of each row."""
        num_particles = self.lengths.shape[0] // self.prompt_lengths.shape[0]
        return jnp.repeat(self.prompt_lengths, num_particles) + self.lengths

    @property
    def capacity(self) -> int:
        """S: private tokens that fit into a row."""
        return self.values[0].shape[2]

    @property
    def prompt_capacity(self) -> int:
        """P: length of the padded prompts; 0 without any."""
        return self.prompt_keys[0].shape[-1] if self.prompt_keys else 0


def start(prompts: Cache, num_particles: int, capacity: int) -> Cache:
    """Share read prompts among particles.

    Args:
        prompts: the cache that the model returned for `tokens [B, P]` without a cache and with
            `counts [B]` = lengths of the prompts.
        num_particles: N rows for each prompt.
        capacity: S, private tokens of a row. Tokens beyond it are lost: the caller stops in time.
    """
    rows = prompts.lengths.shape[0] * num_particles
    _, heads, size, _ = prompts.keys[0].shape
    dtype = prompts.keys[0].dtype
    return Cache(
        prompt_keys=prompts.keys,
        prompt_values=prompts.values,
        prompt_lengths=prompts.lengths,
        keys=tuple(jnp.zeros((rows, heads, size, capacity), dtype) for _ in prompts.keys),
        values=tuple(jnp.zeros((rows, heads, capacity, size), dtype) for _ in prompts.keys),
        lengths=jnp.zeros(rows, jnp.int32),
    )


def gather(cache: Cache, ancestors: Int[Array, " R"]) -> Cache:
    """Row r continues row `ancestors[r]`, which must belong to the same problem.

    Only the private part moves.
    """
    return Cache(
        prompt_keys=cache.prompt_keys,
        prompt_values=cache.prompt_values,
        prompt_lengths=cache.prompt_lengths,
        keys=tuple(x[ancestors] for x in cache.keys),
        values=tuple(x[ancestors] for x in cache.values),
        lengths=cache.lengths[ancestors],
    )


def append(
    cache: Cache | None, layer: int, key: Float[Array, "R Q K F"], value: Float[Array, "R Q K F"]
) -> tuple[Float[Array, "R K F S"], Float[Array, "R K S F"]]:
    """Keys and values of one layer with a chunk written behind each row's past.

    Attention reads what this returns and nothing older, so that a loop can write in place.
    """
    if cache is None:
        return key.transpose(0, 2, 3, 1), value.transpose(0, 2, 1, 3)
    rows, num = key.shape[:2]
    row, slot = jnp.arange(rows)[:, None], cache.lengths[:, None] + jnp.arange(num)[None]
    return (
        cache.keys[layer].at[row, :, :, slot].set(key, mode="drop"),
        cache.values[layer].at[row, :, slot].set(value, mode="drop"),
    )


def advance(
    cache: Cache | None, keys: list[Array], values: list[Array], counts: Int[Array, " R"]
) -> Cache:
    """The cache after a chunk, of which `counts` tokens stay in each row."""
    if cache is None:
        return Cache(
            prompt_keys=(),
            prompt_values=(),
            prompt_lengths=jnp.zeros_like(counts),
            keys=tuple(keys),
            values=tuple(values),
            lengths=counts,
        )
    return Cache(
        prompt_keys=cache.prompt_keys,
        prompt_values=cache.prompt_values,
        prompt_lengths=cache.prompt_lengths,
        keys=tuple(keys),
        values=tuple(values),
        lengths=cache.lengths + counts,
    )
