"""A transformer as a language model: rows with their own caches, decoded a step at a time.

The prompt is read once for each problem and its cache is shared by the particles; a row owns the
cache of its solution and the logits of its next token. One step is a loop over tokens that ends
when every row stands at the end of a step, has ended its text, or has `max_step_tokens` tokens.

Shape letters: B problems, N particles, R = B N rows, P prompt tokens, Q tokens of a step, V words.
"""

from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PyTree

from jurax.models.language import cache as caches
from jurax.models.language.cache import Cache
from jurax.models.language.memory import check_fits
from jurax.models.language.model import AbstractLanguageModel, State, Steps
from jurax.models.language.transformer import Transformer
from jurax.ppl import random

PROMPT_BUCKET = 48  # prompts are padded to a multiple of this, so that few shapes are compiled


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back, and which ids end a step or the text."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text; ValueError for an unknown token."""
        ...

    def decode(self, ids: list[int]) -> str:
        """Text of ids."""
        ...

    def step_ends(self) -> Any:
        """For each id, whether it ends a step."""
        ...

    def text_ends(self) -> Any:
        """For each id, whether it ends the text."""
        ...

    def extract_answer(self, text: str) -> str | None:
        """The answer of a finished solution."""
        ...


class Prompts(eqx.Module):
    """Prompts as ids, padded at the right: `tokens` `(B, P)` and `lengths` `(B,)`."""

    tokens: Int[Array, "B P"]
    lengths: Int[Array, " B"]


def encode_prompts(tokenizer: Tokenizer, prompts: list[str]) -> Prompts:
    """Ids of prompts in a buffer whose length is a multiple of `PROMPT_BUCKET`."""
    ids = [tokenizer.encode(prompt) for prompt in prompts]
    longest = max(len(row) for row in ids)
    width = -(-longest // PROMPT_BUCKET) * PROMPT_BUCKET
    tokens = np.zeros((len(ids), width), np.int32)
    for i, row in enumerate(ids):
        tokens[i, : len(row)] = row
    return Prompts(jnp.asarray(tokens), jnp.asarray([len(row) for row in ids], jnp.int32))


class Decoder(eqx.Module):
    """The weights of a transformer and how rows read tokens with them."""

    weights: PyTree
    structure: Any = eqx.field(static=True)

    @classmethod
    def of(cls, transformer: Transformer) -> "Decoder":
        """Take a transformer apart into weights and structure."""
        structure, weights = nnx.split(transformer)
        return cls(weights=weights, structure=structure)

    def start(self, prompts: Prompts, num_particles: int, max_tokens: int) -> State:
        """Read each prompt once and make `num_particles` rows of it."""
        self._check_memory(prompts.tokens.shape[0] * num_particles, max_tokens)
        transformer = nnx.merge(self.structure, self.weights)
        logits, read = transformer(prompts.tokens, counts=prompts.lengths)
        last = jnp.take_along_axis(logits, (prompts.lengths - 1)[:, None, None], axis=1)[:, 0]
        cache = caches.start(read, num_particles, max_tokens)
        return _state(cache, jnp.repeat(last, num_particles, axis=0))

    def read(
        self, state: State, tokens: Int[Array, "R Q"], counts: Int[Array, " R"]
    ) -> tuple[State, Float[Array, "R Q V"]]:
        """Read `counts` of the tokens in each row; logits after each of them."""
        transformer = nnx.merge(self.structure, self.weights)
        logits, cache = transformer(
            tokens, cache=Cache(**state.rows["cache"], **state.shared), counts=counts
        )
        last = jnp.take_along_axis(logits, jnp.maximum(counts - 1, 0)[:, None, None], axis=1)[:, 0]
        logits_next = jnp.where((counts > 0)[:, None], last, state.rows["logits"])
        return _state(cache, logits_next), logits

    def _check_memory(self, rows: int, max_tokens: int) -> None:
        config = nnx.merge(self.structure, self.weights).config
        size = jax.tree.leaves(self.weights)[0].dtype.itemsize
        per_token = 2 * config.num_layers * config.num_kv_heads * config.head_size * size
        check_fits(
            rows * (max_tokens * per_token + config.vocab_size * size),
            f"the caches of {rows} rows of {max_tokens} tokens",
            "use fewer particles or problems at a time, or lower max_steps",
        )


def _state(cache: Cache, logits: Float[Array, "R V"]) -> State:
    private = {"keys": cache.keys, "values": cache.values, "lengths": cache.lengths}
    shared = {
        "prompt_keys": cache.prompt_keys,
        "prompt_values": cache.prompt_values,
        "prompt_lengths": cache.prompt_lengths,
    }
    return State(rows={"cache": private, "logits": logits}, shared=shared)


class TransformerModel(AbstractLanguageModel):
    """A transformer with a tokenizer, as the transition of `Reasoning`.

    Args:
        transformer: weights and sizes.
        tokenizer: see `Tokenizer`; kept as a static field, so it must be hashable.
        max_length: longest text in tokens.
        max_steps: default number of steps of a solution.
        max_step_tokens: default number of tokens of a step.
    """

    decoder: Decoder
    tokenizer: Any = eqx.field(static=True)
    max_length: int = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)
    max_step_tokens: int = eqx.field(static=True)

    def encode(self, prompts):
        """Ids of the prompts."""
        return encode_prompts(self.tokenizer, prompts)

    def prompt_lengths(self, context):
        """Tokens of each prompt."""
        return context.lengths

    def start(self, context, num_particles, max_tokens):
        """Read the prompts."""
        return self.decoder.start(context, num_particles, max_tokens)

    def ends_text(self, token):
        """Whether a token ends the text."""
        return jnp.asarray(self.tokenizer.text_ends())[token]

    def decode(self, tokens):
        """Text of ids."""
        return self.tokenizer.decode(tokens)

    def extract_answer(self, text):
        """The answer of a finished solution."""
        return self.tokenizer.extract_answer(text)

    def sample_step(self, key, state, active, max_step_tokens, temperature):
        """Draw tokens until each active row has ended its step."""
        rows = active.shape[0]
        boundary = jnp.asarray(self.tokenizer.step_ends()) | jnp.asarray(self.tokenizer.text_ends())

        def is_live(carry):
            return (carry.position < max_step_tokens) & jnp.any(carry.live)

        def decode_token(carry):
            key_token = random.fold_in(key, carry.position)
            token, log_prob = draw_token(key_token, carry.state.rows["logits"], temperature)
            token = jnp.where(carry.live, token, 0)
            moved, _ = self.decoder.read(carry.state, token[:, None], carry.live.astype(jnp.int32))
            return _Decoding(
                position=carry.position + 1,
                state=moved,
                tokens=carry.tokens.at[:, carry.position].set(token),
                counts=carry.counts + carry.live,
                log_probs=carry.log_probs + jnp.where(carry.live, log_prob, 0.0),
                live=carry.live & ~boundary[token],
            )

        begin = _Decoding(
            position=jnp.zeros((), jnp.int32),
            state=state,
            tokens=jnp.zeros((rows, max_step_tokens), jnp.int32),
            counts=jnp.zeros(rows, jnp.int32),
            log_probs=jnp.zeros(rows, state.rows["logits"].dtype),
            live=active,
        )
        end = jax.lax.while_loop(is_live, decode_token, begin)
        return end.state, Steps(tokens=end.tokens, counts=end.counts, log_probs=end.log_probs)

    def score_step(self, state, tokens, counts, max_step_tokens, temperature):
        """Read whole steps at once; log mass of each as a step, cut at `max_step_tokens`."""
        tokenizer = self.tokenizer
        moved, logits = self.decoder.read(state, tokens, counts)
        before = jnp.concatenate([state.rows["logits"][:, None], logits[:, :-1]], axis=1)
        inside = jnp.arange(tokens.shape[1])[None] < counts[:, None]
        log_probs = jnp.where(inside, log_prob_of(before, tokens, temperature), 0.0)
        boundary = jnp.asarray(tokenizer.step_ends()) | jnp.asarray(tokenizer.text_ends())
        ends = jnp.where(inside, boundary[tokens], False)
        is_last = jnp.arange(tokens.shape[1])[None] == counts[:, None] - 1
        is_whole = jnp.any(ends & is_last, axis=1) | (counts == max_step_tokens) | (counts == 0)
        is_step = is_whole & ~jnp.any(ends & ~is_last, axis=1)
        return moved, jnp.where(is_step, jnp.sum(log_probs, axis=1), -jnp.inf)


class _Decoding(eqx.Module):
    """The loop over the tokens of a step."""

    position: Int[Array, ""]
    state: State
    tokens: Int[Array, "R Q"]
    counts: Int[Array, " R"]
    log_probs: Float[Array, " R"]
    live: Bool[Array, " R"]


def draw_token(
    key: Array, logits: Float[Array, "R V"], temperature: Float[Array, ""]
) -> tuple[Int[Array, " R"], Float[Array, " R"]]:
    """Draw a token for every row by inverting the cumulative probabilities; temperature 0 = argmax.

    One uniform for each row is drawn from the key of its problem; `key` is consumed. Returns the
    tokens and their log-probabilities at this temperature; at 0 the mode has probability 1.
    """
    log_probs = tempered(logits, temperature)
    per_problem = log_probs.reshape(key.shape[0], -1, log_probs.shape[-1])
    cumulative = jnp.cumsum(jnp.exp(per_problem), axis=-1)
    total = cumulative[..., -1:]
    uniform = random.uniform(
        key, per_problem.shape[1:2], log_probs.dtype, breaks=lambda: 1 - cumulative / total
    )
    points = (1 - uniform)[..., None] * total
    drawn = jnp.sum(cumulative < points, axis=-1).reshape(-1)
    token = jnp.minimum(drawn, logits.shape[-1] - 1)
    log_prob = jnp.take_along_axis(log_probs, token[:, None], axis=-1)[:, 0]
    return token.astype(jnp.int32), log_prob


def log_prob_of(
    logits: Float[Array, "R Q V"], tokens: Int[Array, "R Q"], temperature: Float[Array, ""]
) -> Float[Array, "R Q"]:
    """Log-probabilities of given tokens at this temperature; at 0 the mode has probability 1.

    Example:
        >>> logits = jnp.log(jnp.array([[[0.25, 0.75]]]))
        >>> float(log_prob_of(logits, jnp.array([[1]]), jnp.array(0.0))[0, 0])
        0.0
    """
    log_probs = tempered(logits, temperature)
    return jnp.take_along_axis(log_probs, tokens[..., None], axis=-1)[..., 0]


def tempered(logits: Float[Array, "*R V"], temperature: Float[Array, ""]) -> Float[Array, "*R V"]:
    """Log-probabilities of all tokens at this temperature; at 0 the mode has probability 1."""
    log_probs = jax.nn.log_softmax(logits / jnp.where(temperature > 0, temperature, 1.0))
    tokens = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    is_mode = tokens == jnp.argmax(logits, axis=-1, keepdims=True)
    return jnp.where(temperature > 0, log_probs, jnp.where(is_mode, 0.0, -jnp.inf))
