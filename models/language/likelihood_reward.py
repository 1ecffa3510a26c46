"""A reward from the likelihood of a better-taught model.

A second transformer reads the solution. Every token is scored by its log-probability, cut off at a
floor so that one surprise does not decide alone, and the sum so far gives the probability that the
prefix is right by a two-parameter logistic calibration:

    score_t = sum_{tokens s up to step t} max(log p(s | text before), floor)
    logit r_t = intercept + slope * score_t.

Shape letters: R rows, Q tokens of a step, V words.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jurax.models.language.decoder import Decoder, encode_prompts
from jurax.models.language.model import AbstractReward, State, Steps


class LikelihoodReward(AbstractReward):
    """Calibrated likelihood of a second language model, read with its own cache.

    Args:
        decoder: the transformer that judges.
        tokenizer: the tokenizer of the model that is judged.
        slope: log-odds for each nat of score.
        intercept: log-odds of a prefix without a surprise.
        floor: smallest log-probability that a token counts with, < 0.
        strengths: `(reward target, default strength)` pairs.
    """

    decoder: Decoder
    tokenizer: Any = eqx.field(static=True)
    slope: float = eqx.field(static=True)
    intercept: float = eqx.field(static=True)
    floor: float = eqx.field(static=True, default=-3.0)
    strengths: tuple[tuple[str, float], ...] = eqx.field(static=True, default=())

    def encode(self, prompts):
        """Ids of the prompts."""
        return encode_prompts(self.tokenizer, prompts)

    def start(self, context, num_particles, max_tokens):
        """Read the prompts."""
        state = self.decoder.start(context, num_particles, max_tokens)
        score = jnp.zeros(state.rows["logits"].shape[0], state.rows["logits"].dtype)
        return State(rows={**state.rows, "score": score}, shared=state.shared)

    def score(self, state, steps):
        """Read a step; only its new tokens pass through the model."""
        score = state.rows["score"]
        bare = State(
            rows={k: v for k, v in state.rows.items() if k != "score"}, shared=state.shared
        )
        read, logits = self.decoder.read(bare, steps.tokens, steps.counts)
        log_probs = token_log_probs(state.rows["logits"], logits, steps)
        score = score + jnp.sum(jnp.maximum(log_probs, self.floor), axis=-1)
        read = State(rows={**read.rows, "score": score}, shared=read.shared)
        return read, self.intercept + self.slope * score


def token_log_probs(
    before: Float[Array, "R V"], after: Float[Array, "R Q V"], steps: Steps
) -> Float[Array, "R Q"]:
    """Log-probability of each token of a step, 0 for padding.

    Args:
        before: logits of the first token of the step.
        after: logits after each token of the step.
        steps: the step.
    """
    logits = jnp.concatenate([before[:, None], after[:, :-1]], axis=1)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), steps.tokens[..., None], axis=-1)
    real = jnp.arange(steps.tokens.shape[1])[None] < steps.counts[:, None]
    return jnp.where(real, chosen[..., 0], 0.0)
