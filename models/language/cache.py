"""Keys and values that a transformer has computed: a shared prompt part and a private part.

The prompt is stored once per problem and is shared by its N particles; only what a particle wrote
itself is private, so resampling moves the private part alone (`gather`). Rows of one problem are
contiguous: row = problem * N + particle. Each row has its own length; slots beyond it are garbage
and masked, so padding needs no clean-up and a row that stands still only keeps its length.

Shape letters: B problems, N particles, R = B * N rows, P prompt tokens, S private tokens, L layers, K key/value heads, F size.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Cache(eqx.Module):
    """What has been read: `prompt_keys` and `prompt_values` by problem, `keys` and `values` by row.

    Attributes:
        prompt_keys: [B, P, L, K, F].
        prompt_values: [B, P, L, K, F].
        prompt_lengths: [B], tokens of each prompt that count.
        keys: [R, S, L, K, F].
        values: [R, S, L, K, F].
        lengths: [R], private tokens of each row.
    """

    prompt_keys: Float[Array, "B P L K F"]
    prompt_values: Float[Array, "B P L K F"]
    prompt_lengths: Int[Array, " B"]
    keys: Float[Array, "R S L K F"]
    values: Float[Array, "R S L K F"]
    lengths: Int[Array, " R"]

    @property
    def positions(self) -> Int[Array, " R"]:
        """Position of the next token of each row."""
        num_particles = self.lengths.shape[0] // self.prompt_lengths.shape[0]
        return jnp.repeat(self.prompt_lengths, num_particles) + self.lengths

    @property
    def capacity(self) -> int:
        """S: private tokens that fit into a row."""
        return self.keys.shape[1]

    @property
    def prompt_capacity(self) -> int:
        """P: length of the padded prompts."""
        return self.prompt_keys.shape[1]

    def private(self, layer: int) -> tuple[Array, Array]:
        """Keys and values [R, S, K, F] of one layer."""
        return self.keys[:, :, layer], self.values[:, :, layer]

    def prompt(self, layer: int) -> tuple[Array, Array]:
        """Keys and values [B, P, K, F] of one layer."""
        return self.prompt_keys[:, :, layer], self.prompt_values[:, :, layer]


def start(prompts: Cache, num_particles: int, capacity: int) -> Cache:
    """Share read prompts among particles.

    Args:
        prompts: the cache that the model returned for `tokens [B, P]` without a cache and with
            `counts [B]` = lengths of the prompts.
        num_particles: N rows for each prompt.
        capacity: S, private tokens of a row. Tokens beyond it are lost: the caller stops in time.
    """
    rows = prompts.lengths.shape[0] * num_particles
    empty = jnp.zeros((rows, capacity, *prompts.keys.shape[2:]), prompts.keys.dtype)
    return Cache(
        prompt_keys=prompts.keys,
        prompt_values=prompts.values,
        prompt_lengths=prompts.lengths,
        keys=empty,
        values=empty,
        lengths=jnp.zeros(rows, jnp.int32),
    )


def gather(cache: Cache, ancestors: Int[Array, " R"]) -> Cache:
    """Row r continues row `ancestors[r]`, which must belong to the same problem.

    Only the private part moves.
    """
    where = lambda cache: (cache.keys, cache.values, cache.lengths)  # noqa: E731
    return eqx.tree_at(where, cache, tuple(part[ancestors] for part in where(cache)))


def write(
    cache: Cache | None, keys: list[Array], values: list[Array], counts: Int[Array, " R"] | None
) -> Cache:
    """Append a chunk: per layer new keys and values [R, Q, K, F]; `counts` of the Q tokens are kept."""
    new_keys, new_values = jnp.stack(keys, axis=2), jnp.stack(values, axis=2)
    rows, num = new_keys.shape[:2]
    counts = jnp.full(rows, num, jnp.int32) if counts is None else counts.astype(jnp.int32)
    if cache is None:
        nothing = jnp.zeros((rows, 0, *new_keys.shape[2:]), new_keys.dtype)
        none = jnp.zeros(rows, jnp.int32)
        return Cache(nothing, nothing, none, new_keys, new_values, counts)
    row, slot = jnp.arange(rows)[:, None], cache.lengths[:, None] + jnp.arange(num)
    return Cache(
        prompt_keys=cache.prompt_keys,
        prompt_values=cache.prompt_values,
        prompt_lengths=cache.prompt_lengths,
        keys=cache.keys.at[row, slot].set(new_keys, mode="drop"),
        values=cache.values.at[row, slot].set(new_values, mode="drop"),
        lengths=cache.lengths + counts,
    )
