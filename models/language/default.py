"""The embedded default: a small policy and its reward, trained in this repository.

Weights are safetensors in `weights/`; `weights/README.md` is their model card.
"""

import json
from pathlib import Path

import jax.numpy as jnp
from jax.typing import DTypeLike

from jurax.models.language import regchain_check, tokenizer
from jurax.models.language.decoder import Decoder, TransformerModel
from jurax.models.language.likelihood_reward import LikelihoodReward
from jurax.models.language.regchain_corpus import TOKENS_PER_STEP
from jurax.models.language.saving import load_model

WEIGHTS = Path(__file__).parent / "weights"
MAX_LENGTH = 160


class RegChainTokenizer:
    """The suite's vocabulary in the form that `Decoder` expects."""

    encode = staticmethod(tokenizer.encode)
    decode = staticmethod(tokenizer.decode)
    step_ends = staticmethod(tokenizer.step_ends)
    extract_answer = staticmethod(regchain_check.extract_answer)

    @staticmethod
    def text_ends() -> list[bool]:
        """Only `<end>` ends a text."""
        return [index == tokenizer.END for index in range(len(tokenizer.VOCABULARY))]


TOKENIZER = RegChainTokenizer()


def load_default(
    policy: str | Path = WEIGHTS / "policy.safetensors",
    reward: str | Path = WEIGHTS / "reward.safetensors",
) -> tuple[TransformerModel, LikelihoodReward]:
    """Load the embedded language model and reward model.

    Args:
        policy: weights of the language model.
        reward: weights of the reward model, with its calibration and fitted strengths.

    Returns:
        `(model, reward)` for `Reasoning(model, reward, prompt)`.

    Raises:
        ValueError: a file is missing, damaged or does not fit; the message names it.

    Example:
        >>> model, reward = load_default()
        >>> sorted(name for name, _ in reward.strengths)
        ['emission', 'odds', 'value']
    """
    return load_policy(policy), load_reward(reward)


def load_policy(path: str | Path, dtype: DTypeLike = jnp.float32) -> TransformerModel:
    """Load a language model of the suite."""
    transformer, _ = load_model(path, dtype)
    return TransformerModel(
        decoder=Decoder.of(transformer),
        tokenizer=TOKENIZER,
        max_length=MAX_LENGTH,
        max_steps=tokenizer.MAX_STEPS + 1,  # the answer is a step of its own
        max_step_tokens=TOKENS_PER_STEP,
    )


def load_reward(path: str | Path, dtype: DTypeLike = jnp.float32) -> LikelihoodReward:
    """Load a likelihood reward with the calibration in its header."""
    transformer, metadata = load_model(path, dtype)
    try:
        calibration = json.loads(metadata["calibration"])
        return LikelihoodReward(
            decoder=Decoder.of(transformer),
            tokenizer=TOKENIZER,
            slope=float(calibration["slope"]),
            intercept=float(calibration["intercept"]),
            floor=float(calibration["floor"]),
            strengths=tuple((name, float(x)) for name, x in calibration["strengths"].items()),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} holds no calibration of a reward (slope, intercept, floor, strengths): {error}"
        ) from error
