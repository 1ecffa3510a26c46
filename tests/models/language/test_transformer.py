"""The cache against encoding every prefix from scratch, for all options of the block."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jurax.models.language import cache as caches
from jurax.models.language.transformer import Transformer, TransformerConfig

SMALL = TransformerConfig(
    vocab_size=23, num_layers=2, width=16, num_heads=4, num_kv_heads=2, head_size=4, hidden_size=24
)
OPTIONS = {
    "plain": SMALL,
    "qwen2": dataclasses.replace(SMALL, qkv_bias=True, tied_embeddings=True),
    "qwen3": dataclasses.replace(SMALL, qk_norm=True, tied_embeddings=True),
    "one head per key": dataclasses.replace(SMALL, num_kv_heads=4),
}
PROMPT_LENGTHS = np.array([3, 6, 5])
NUM_PARTICLES = 4


def random_model(config, dtype):
    """Weights far from zero, biases and norms included, so that each one matters."""
    structure, state = nnx.split(Transformer(config, nnx.Rngs(0)))
    leaves, tree = jax.tree.flatten(state)
    rng = np.random.default_rng(0)
    leaves = [jnp.asarray(x + 0.3 * rng.standard_normal(x.shape), dtype) for x in leaves]
    return nnx.merge(structure, jax.tree.unflatten(tree, leaves))


def reader(config, dtype):
    """A compiled model: (tokens, cache, counts) -> (logits, cache)."""
    structure, weights = nnx.split(random_model(config, dtype))
    read = jax.jit(lambda weights, *inputs: nnx.merge(structure, weights)(*inputs))
    return lambda tokens, cache=None, counts=None: read(weights, tokens, cache, counts)


def decode_with_resampling(config, dtype, steps, seed=0):
    """Random chunks and gathers. Returns the largest difference to encoding from scratch."""
    rng, read = np.random.default_rng(seed), reader(config, dtype)
    prompts = rng.integers(config.vocab_size, size=(3, PROMPT_LENGTHS.max()))
    _, prompt_cache = read(prompts, None, PROMPT_LENGTHS)
    cache = caches.start(prompt_cache, NUM_PARTICLES, 4 * steps)
    texts = [list(prompts[b, : PROMPT_LENGTHS[b]]) for b in range(3) for _ in range(NUM_PARTICLES)]
    largest = 0.0
    for _ in range(steps):
        num = 4
        chunk = rng.integers(config.vocab_size, size=(len(texts), num))
        counts = rng.integers(0, num + 1, size=len(texts))
        logits, cache = read(chunk, cache, counts)
        for row, text in enumerate(texts):
            text += list(chunk[row, : counts[row]])
        scratch, _ = read(padded(texts, PROMPT_LENGTHS.max() + 4 * steps))
        for row, (text, count) in enumerate(zip(texts, counts, strict=True)):
            difference = logits[row, :count] - scratch[row, len(text) - count : len(text)]
            largest = max(largest, float(np.abs(difference).max(initial=0.0)))
        ancestors = rng.integers(NUM_PARTICLES, size=(3, NUM_PARTICLES))
        ancestors = (ancestors + NUM_PARTICLES * np.arange(3)[:, None]).reshape(-1)
        cache = caches.gather(cache, jnp.asarray(ancestors))
        texts = [list(texts[a]) for a in ancestors]
    return largest


def padded(texts, length):
    """Texts as rows; what stands behind a token cannot change its logits."""
    rows = np.zeros((len(texts), length), np.int64)
    for row, text in zip(rows, texts, strict=True):
        row[: len(text)] = text
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_cached_decoding_with_resampling_equals_encoding_from_scratch_in_x64(name, x64):
    assert decode_with_resampling(OPTIONS[name], jnp.float64, steps=8) < 1e-9


def test_cached_decoding_with_resampling_equals_encoding_from_scratch_in_float32():
    assert decode_with_resampling(SMALL, jnp.float32, steps=8) < 1e-4


def test_scoring_by_token_by_chunk_and_at_once_agree(x64):
    model = reader(SMALL, jnp.float64)
    rng = np.random.default_rng(1)
    prompts = jnp.asarray(rng.integers(23, size=(2, 4)))
    tokens = jnp.asarray(rng.integers(23, size=(6, 9)))
    _, read = model(prompts, counts=jnp.array([4, 2]))
    full, _ = model(tokens, caches.start(read, 3, 9))
    for sizes in ([1] * 9, [3, 3, 3]):
        cache, parts, begin = caches.start(read, 3, 9), [], 0
        for size in sizes:
            logits, cache = model(tokens[:, begin : begin + size], cache)
            parts.append(logits)
            begin += size
        np.testing.assert_allclose(jnp.concatenate(parts, axis=1), full, atol=1e-9)


def test_padding_of_a_prompt_and_of_a_chunk_changes_nothing(x64):
    model = reader(SMALL, jnp.float64)
    rng = np.random.default_rng(2)
    prompts = jnp.asarray(rng.integers(23, size=(2, 5)))
    chunk = jnp.asarray(rng.integers(23, size=(2, 3)))
    after = jnp.asarray(rng.integers(23, size=(2, 1)))

    def run(padding):
        wide = jnp.pad(prompts, ((0, 0), (0, 3)), constant_values=padding)
        cache = caches.start(model(wide, counts=jnp.array([5, 5]))[1], 1, 9)
        wide = jnp.pad(chunk, ((0, 0), (0, 2)), constant_values=padding)
        cache = model(wide, cache, jnp.array([3, 3]))[1]
        return model(after, cache)[0]

    np.testing.assert_array_equal(run(0), run(7))
    joined = jnp.concatenate([prompts, chunk, after], axis=1)
    np.testing.assert_allclose(run(0)[:, 0], model(joined)[0][:, -1], atol=1e-9)


def test_a_row_with_count_zero_stands_still():
    model = reader(SMALL, jnp.float32)
    cache = caches.start(model(jnp.ones((1, 3), jnp.int32))[1], 2, 4)
    _, moved = model(jnp.ones((2, 2), jnp.int32), cache, jnp.array([0, 2]))
    assert list(moved.lengths) == [0, 2] and list(moved.positions) == [3, 5]
    a = model(jnp.full((2, 1), 5), cache)[0][0]
    b = model(jnp.full((2, 1), 5), moved)[0][0]
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_only_the_private_part_moves():
    model = reader(SMALL, jnp.float32)
    cache = caches.start(model(jnp.ones((2, 3), jnp.int32))[1], 2, 4)
    moved = caches.gather(cache, jnp.array([1, 1, 2, 2]))
    shared = lambda c: jax.tree.leaves((c.prompt_keys, c.prompt_values, c.prompt_lengths))  # noqa: E731
    assert all(a is b for a, b in zip(shared(cache), shared(moved), strict=True))


def test_a_text_without_its_prompt_reads_alike_at_any_position(x64):
    """Rotary positions are relative: shifting a text without its prompt changes nothing."""
    model = reader(SMALL, jnp.float64)
    tokens = jnp.asarray(np.random.default_rng(3).integers(23, size=(1, 6)))
    empty = model(tokens, counts=jnp.array([0]))[1]
    shifted = caches.Cache(
        prompt_keys=empty.keys,
        prompt_values=empty.values,
        prompt_lengths=empty.lengths,
        keys=empty.keys,
        values=empty.values,
        lengths=empty.lengths,
    )
    np.testing.assert_allclose(model(tokens, shifted)[0], model(tokens)[0], atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"num_kv_heads": 3}, "multiple of num_kv_heads"), ({"head_size": 5}, "even number")],
)
def test_sizes_that_do_not_fit_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **change)
