"""The languages of `tests.exact` as a language model and a reward model: one symbol is one step.

Token 0 is padding, symbol a is token a + 1. Texts have different lengths if the language stops.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from jurax.models.language.model import AbstractLanguageModel, AbstractReward, State, Steps
from jurax.ppl import random
from tests.exact import Language


class PrefixModel(AbstractLanguageModel):
    """Draws the next symbol."""

    logits: Float[Array, "P A"]
    end: int = eqx.field(static=True)
    max_length: int = eqx.field(static=True, default=100)
    max_steps: int = eqx.field(static=True, default=10)
    max_step_tokens: int = eqx.field(static=True, default=1)

    def encode(self, prompts):
        return jnp.zeros(len(prompts), jnp.int32)

    def prompt_lengths(self, context):
        return context + 1

    def start(self, context, num_particles, max_tokens):
        return State(rows=jnp.repeat(context, num_particles), shared=context)

    def sample_step(self, key, state, active, max_step_tokens, temperature):
        prefix = jnp.minimum(state.rows, self.logits.shape[0] - 1)
        sure = jnp.where(jnp.arange(self.logits.shape[1]) == 0, 0.0, -jnp.inf)
        logits = jnp.where(active[:, None], self.logits[prefix], sure[None])
        drawn = random.categorical(key, logits.reshape(len(key), -1, logits.shape[1])).reshape(-1)
        log_probs = jnp.take_along_axis(logits, drawn[:, None], axis=1)[:, 0]
        steps = Steps(jnp.where(active, drawn + 1, 0)[:, None], active.astype(jnp.int32), log_probs)
        moved = jnp.where(active, child(prefix, drawn, self.logits), state.rows)
        return State(rows=moved, shared=state.shared), steps

    def score_step(self, state, tokens, counts, max_step_tokens, temperature):
        prefix = jnp.minimum(state.rows, self.logits.shape[0] - 1)
        symbol = jnp.maximum(tokens[:, 0] - 1, 0)
        moved = jnp.where(counts > 0, child(prefix, symbol, self.logits), state.rows)
        log_probs = jnp.where(counts > 0, self.logits[prefix, symbol], 0.0)
        return State(rows=moved, shared=state.shared), log_probs

    def ends_text(self, token):
        return token == self.end

    def decode(self, tokens):
        return " ".join(map(str, tokens))

    def extract_answer(self, text):
        return text.split()[0]


class PrefixReward(AbstractReward):
    """Looks the reward of a prefix up."""

    log_odds: Float[Array, "P A"]
    strengths: tuple[tuple[str, float], ...] = eqx.field(static=True, default=())

    def encode(self, prompts):
        return jnp.zeros(len(prompts), jnp.int32)

    def start(self, context, num_particles, max_tokens):
        return State(rows=jnp.repeat(context, num_particles), shared=context)

    def score(self, state, steps):
        prefix = jnp.minimum(state.rows, self.log_odds.shape[0] - 1)
        symbol = jnp.maximum(steps.tokens[:, 0] - 1, 0)
        moved = jnp.where(steps.counts > 0, child(prefix, symbol, self.log_odds), state.rows)
        return State(rows=moved, shared=state.shared), self.log_odds[prefix, symbol]


def child(prefix: Array, symbol: Array, table: Array) -> Array:
    """Number of the prefix that is longer by a symbol."""
    return prefix * table.shape[1] + symbol + 1


def models_of(language: Language) -> tuple[PrefixModel, PrefixReward]:
    """The language and its rewards."""
    end = language.probs.shape[1] if language.stop else -1
    rewards = jnp.asarray(language.rewards)
    return (
        PrefixModel(logits=jnp.log(jnp.asarray(language.probs)), end=end),
        PrefixReward(log_odds=jnp.log(rewards) - jnp.log1p(-rewards)),
    )
