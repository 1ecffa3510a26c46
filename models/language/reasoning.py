"""Reasoning: a language model and a reward model as a state-space model.

The state x_t is the text after t reasoning steps, x_0 the prompt. With p the language model at the
given temperature and r_t in (0, 1) the reward of the prefix, lambda = `strength`, the target is

    emission   p(x) prod_t r_t^lambda
    odds       p(x) prod_t (r_t / (1 - r_t))^lambda
    value      p(x) r_T^lambda, by increments (r_t / r_{t-1})^lambda with r_0 = 1,

with products over the steps up to the end of the text: a finished text is absorbed, it keeps its
weight and is never weighted again. These are different posteriors; `target` says which one it is.

Shape letters: B problems, N particles, R = B N rows, Q tokens of a step, S tokens of a solution.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from jurax.models.language.model import AbstractLanguageModel, AbstractReward, State, Steps
from jurax.models.language.reward_targets import (
    check_target,
    describe,
    log_potential,
    stored_strength,
)
from jurax.ppl import AbstractProcess, Cost
from jurax.ppl.checks import at_least
from jurax.ppl.process import gather_rows


class Solutions(eqx.Module):
    """Partial solutions; axes `(*B, N)` first.

    Attributes:
        tokens: token ids of the solution, padded with 0, `(*B, N, S)`.
        length: tokens so far.
        finished: whether the text has ended.
        retired: rows that decoding skips.
        log_odds: log-odds of the reward after each step, NaN where no step was made, `(*B, N, T)`.
        log_prob: log-probability of the solution under the language model.
        step_start: where the last step begins in `tokens`.
        model: state of the language model, rows flattened.
        reward: state of the reward model, rows flattened, or None.
    """

    tokens: Int[Array, "*B N S"]
    length: Int[Array, "*B N"]
    finished: Bool[Array, "*B N"]
    retired: Bool[Array, "*B N"]
    log_odds: Float[Array, "*B N T"]
    log_prob: Float[Array, "*B N"]
    step_start: Int[Array, "*B N"]
    model: State
    reward: State | None


class Reasoning(AbstractProcess):
    """A reasoning language model under a reward, as a process; one extension = one step.

    Args:
        model: the transition.
        reward: the likelihood; None for the language model alone.
        prompt: one prompt, or a list of prompts that are packed as problems of one process.
        reward_target: "odds", "emission" or "value"; see the module docstring.
        strength: the exponent lambda >= 0; None takes what is stored with the reward for this
            target.
        temperature: of the language model; it is part of the target. 0 decodes greedily.
        max_steps: bound on the number of steps; default of the model. Texts that are unfinished
            then have the answer None.
        max_step_tokens: bound on the tokens of a step; a longer step is cut there.

    Raises:
        ValueError: for an empty or too long prompt, an unknown token, or a bad argument.
    """

    model: AbstractLanguageModel
    reward: AbstractReward | None
    context: PyTree
    reward_context: PyTree
    strength: Float[Array, ""]
    temperature: Float[Array, ""]
    reward_target: str = eqx.field(static=True)
    num_steps: int = eqx.field(static=True)
    max_step_tokens: int = eqx.field(static=True)
    law: str = eqx.field(static=True)
    target: str = eqx.field(static=True)
    packed: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        model: AbstractLanguageModel,
        reward: AbstractReward | None,
        prompt: str | list[str],
        *,
        reward_target: str = "odds",
        strength: float | None = None,
        temperature: float = 1.0,
        max_steps: int | None = None,
        max_step_tokens: int | None = None,
    ):
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        check_prompts(prompts)
        self.model, self.reward = model, reward
        self.packed = () if isinstance(prompt, str) else (len(prompts),)
        max_steps = model.max_steps if max_steps is None else max_steps
        max_step_tokens = model.max_step_tokens if max_step_tokens is None else max_step_tokens
        at_least(0, max_steps=max_steps)
        at_least(1, max_step_tokens=max_step_tokens)
        self.num_steps, self.max_step_tokens = int(max_steps), int(max_step_tokens)
        self.reward_target = check_target(reward_target)
        value = stored_strength(reward, reward_target) if strength is None else strength
        self.strength = jnp.asarray(non_negative("strength", value), float)
        self.temperature = jnp.asarray(non_negative("temperature", temperature), float)
        self.context = model.encode(prompts)
        self.reward_context = None if reward is None else reward.encode(prompts)
        self.law = f"p = language model at temperature {temperature:g}"
        self.target = describe(reward, reward_target, value, self.law)
        self._check_room()

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """`()` for one prompt, `(B,)` for a list."""
        return self.packed

    @property
    def max_tokens(self) -> int:
        """Room for a solution, in tokens."""
        return max(1, self.num_steps * self.max_step_tokens)

    # ------------------------------------------------------------ the process

    def init(self, key, num_particles):
        """Every particle reads its prompt; nothing is drawn and G_0 = 1."""
        del key
        shape = (*self.packed, num_particles)
        reward = None
        if self.reward is not None:
            reward = self.reward.start(self.reward_context, num_particles, self.max_tokens)
        zeros = jnp.zeros(shape, jnp.int32)
        solutions = Solutions(
            tokens=jnp.zeros((*shape, self.max_tokens), jnp.int32),
            length=zeros,
            finished=jnp.zeros(shape, bool),
            retired=jnp.zeros(shape, bool),
            log_odds=jnp.full((*shape, self.num_steps), jnp.nan),
            log_prob=jnp.zeros(shape),
            step_start=zeros,
            model=self.model.start(self.context, num_particles, self.max_tokens),
            reward=reward,
        )
        return solutions, jnp.zeros(shape)

    def extend(self, key, particles, t):
        """Draw one step of every row and weight it by the reward of the new prefix."""
        active = ~(particles.finished | particles.retired).reshape(-1)
        keys = key.reshape(-1)
        model, steps = self.model.sample_step(
            keys, particles.model, active, self.max_step_tokens, self.temperature
        )
        return self._advance(particles, model, steps, t)

    def replay(self, particles, record, t):
        """Write the recorded step; `log_probs` is its log mass under the language model.

        The step is read at once behind what each row has read, and the reward is computed anew:
        a row may have another past than the one the step was drawn from.

        Raises:
            NotImplementedError: if the language model has no `score_step`.
        """
        shape = record["counts"].shape
        if isinstance(t, int) and t == 0:
            start, log_weights = self.init(None, shape[-1])
            return start, log_weights, jnp.zeros(shape)
        active = ~particles.finished.reshape(-1)
        tokens = record["tokens"].reshape(-1, self.max_step_tokens)
        counts = jnp.where(active, record["counts"].reshape(-1), 0)
        model, log_probs = self.model.score_step(
            particles.model, tokens, counts, self.max_step_tokens, self.temperature
        )
        steps = Steps(jnp.where(active[:, None], tokens, 0), counts, log_probs)
        return *self._advance(particles, model, steps, t), log_probs.reshape(shape)

    def _advance(
        self, particles: Solutions, model: State, steps: Steps, t: Array | int
    ) -> tuple[Solutions, Array]:
        """Append a step to every row and weight it by the reward of the new prefix."""
        shape = particles.length.shape
        reward, log_odds = particles.reward, jnp.zeros(steps.counts.shape)
        if self.reward is not None:
            reward, log_odds = self.reward.score(particles.reward, steps)
        log_odds = log_odds.reshape(shape)
        potential = self._potential(log_odds, particles, t)
        # G^0 = 1, also for a reward of 0 or 1, where the product would be NaN.
        increments = jnp.where(self.strength > 0, self.strength * potential, 0.0)
        last = jnp.take_along_axis(steps.tokens, jnp.maximum(steps.counts - 1, 0)[:, None], axis=1)
        ended = self.model.ends_text(last[:, 0]) & (steps.counts > 0)
        counts = steps.counts.reshape(shape)
        extended = Solutions(
            tokens=append(particles.tokens, particles.length, steps.tokens, counts),
            length=particles.length + counts,
            finished=particles.finished | ended.reshape(shape),
            retired=particles.retired,
            log_odds=particles.log_odds.at[..., t - 1].set(log_odds),
            log_prob=particles.log_prob + steps.log_probs.reshape(shape),
            step_start=particles.length,
            model=model,
            reward=reward,
        )
        return extended, increments

    def _potential(self, log_odds: Array, particles: Solutions, t: Array | int) -> Array:
        """Log G_t for strength 1."""
        if self.reward is None:
            return jnp.zeros_like(log_odds)
        previous = jnp.take(particles.log_odds, jnp.maximum(t - 2, 0), axis=-1)
        return log_potential(self.reward_target, log_odds, jnp.where(t == 1, jnp.inf, previous))

    def finished(self, particles):
        """Texts that have ended."""
        return particles.finished

    def retire(self, particles, mask):
        """Decoding skips these rows."""
        return eqx.tree_at(lambda p: p.retired, particles, mask)

    def gather(self, particles, ancestors):
        """Move rows and their private caches; prompts and their caches stay."""
        flat = flat_index(ancestors, particles.length.shape[-1])
        light = gather_rows(without_caches(particles), ancestors)
        reward = None if particles.reward is None else particles.reward.gather(flat)
        return with_caches(light, particles.model.gather(flat), reward)

    def where(self, mask, new, old):
        """Choose rows, caches included."""
        light = self.settle(mask, without_caches(new), without_caches(old))
        flat = mask.reshape(-1)
        reward = None if new.reward is None else new.reward.where(flat, old.reward)
        return with_caches(light, new.model.where(flat, old.model), reward)

    def settle(self, mask, new, old):
        """Choose rows; caches of rows at rest are never read again and need no copy."""
        light = super().where(mask, without_caches(new), without_caches(old))
        return with_caches(light, new.model, new.reward)

    def record(self, particles, t):
        """Tokens, their number and the reward of step t."""
        places = (*particles.length.shape, self.max_step_tokens)
        slots = particles.step_start[..., None] + last_index(places)
        inside = slots < particles.length[..., None]
        padded = jnp.minimum(slots, particles.tokens.shape[-1] - 1)
        tokens = jnp.where(inside, jnp.take_along_axis(particles.tokens, padded, axis=-1), 0)
        log_odds = jnp.full(particles.length.shape, jnp.nan)
        if self.num_steps > 0:
            score = jnp.take(particles.log_odds, jnp.maximum(t - 1, 0), axis=-1)
            log_odds = jnp.where(t > 0, score, log_odds)
        counts = particles.length - particles.step_start
        return {"tokens": tokens, "counts": counts, "log_odds": log_odds}

    def output(self, particles):
        """Texts, lengths, rewards and log-probabilities; no caches."""
        names = ("tokens", "length", "finished", "log_odds", "log_prob")
        return {name: getattr(particles, name) for name in names}

    def cost(self, before, after):
        """Tokens decoded for rows that are kept or discarded later alike."""
        if before is None:
            return self._prefill_cost(after.length.shape[:-1])
        counts = after.length - before.length
        decoded = jnp.sum(counts, axis=-1)
        rewarded = self.reward is not None
        return Cost(
            decoded_tokens=decoded,
            reward_tokens=decoded * rewarded,
            reward_calls=jnp.sum(counts > 0, axis=-1) * rewarded,
            sequential_passes=jnp.max(counts, axis=-1),
        )

    def cost_bound(self, particles):
        """Every row decodes a full step: a resampling may put an unfinished text in its place."""
        num_particles = particles.finished.shape[-1]
        rows = num_particles * jnp.any(~particles.finished, axis=-1)
        tokens = rows * self.max_step_tokens
        rewarded = self.reward is not None
        return Cost(
            decoded_tokens=tokens,
            reward_tokens=tokens * rewarded,
            reward_calls=rows * rewarded,
            sequential_passes=jnp.where(rows > 0, self.max_step_tokens, 0),
        )

    def prior(self):
        """The language model alone, at the same temperature."""
        bare = eqx.tree_at(
            lambda p: (p.reward, p.reward_context),
            self,
            (None, None),
            is_leaf=lambda x: x is None,
        )
        object.__setattr__(bare, "target", describe(None, self.reward_target, 0.0, self.law))
        return bare

    # ------------------------------------------------------------ read-outs, on the host

    def text(self, particle: dict) -> str:
        """The solution of one particle of a posterior."""
        return self.model.decode(np.asarray(particle["tokens"])[: int(particle["length"])].tolist())

    def answer(self, particle: dict) -> str | None:
        """The answer of one particle of a posterior; None if unfinished or without an answer."""
        return self.model.extract_answer(self.text(particle)) if particle["finished"] else None

    def step_scores(self, particles: dict) -> tuple[Array, Array]:
        """Log-odds of the reward by step and which of them exist, `(*B, N, T)` each."""
        if self.reward is None:
            raise ValueError("this process has no reward; give Reasoning a reward model")
        return particles["log_odds"], ~jnp.isnan(particles["log_odds"])

    # ------------------------------------------------------------ helpers

    def _prefill_cost(self, batch: tuple[int, ...]) -> Cost:
        lengths = self.model.prompt_lengths(self.context).reshape(batch)
        rewarded = self.reward is not None
        return Cost(
            decoded_tokens=jnp.zeros_like(lengths),
            prefilled_tokens=lengths,
            reward_tokens=lengths * rewarded,
            reward_calls=jnp.zeros_like(lengths),
            sequential_passes=jnp.ones_like(lengths),
        )

    def _check_room(self) -> None:
        longest = int(np.max(np.asarray(self.model.prompt_lengths(self.context))))
        if longest + self.max_tokens > self.model.max_length:
            raise ValueError(
                f"the longest prompt has {longest} tokens and a solution may take "
                f"{self.max_tokens} (max_steps * max_step_tokens), together more than the model's "
                f"{self.model.max_length}; shorten the prompt or lower max_steps"
            )


def append(
    tokens: Int[Array, "*B N S"],
    length: Int[Array, "*B N"],
    step: Int[Array, "R Q"],
    counts: Int[Array, "*B N"],
) -> Int[Array, "*B N S"]:
    """Write each row's step behind its text."""
    offset = last_index(tokens.shape) - length[..., None]
    inside = (offset >= 0) & (offset < counts[..., None])
    source = jnp.clip(offset, 0, step.shape[-1] - 1)
    step = step.reshape(*length.shape, step.shape[-1])
    return jnp.where(inside, jnp.take_along_axis(step, source, axis=-1), tokens)


def last_index(shape: tuple[int, ...]) -> Int[Array, "..."]:
    """0, 1, 2, ... along the last axis."""
    return jax.lax.broadcasted_iota(jnp.int32, shape, len(shape) - 1)


def flat_index(ancestors: Int[Array, "*B M"], num_particles: int) -> Int[Array, " R"]:
    """Row numbers b N + n of ancestors given within each problem."""
    batch = math.prod(ancestors.shape[:-1])
    offsets = num_particles * jnp.arange(batch, dtype=ancestors.dtype)
    return (ancestors.reshape(batch, -1) + offsets[:, None]).reshape(-1)


def without_caches(particles: Solutions) -> Solutions:
    """The light part of the state."""
    return with_caches(particles, None, None)


def with_caches(particles: Solutions, model: State | None, reward: State | None) -> Solutions:
    """The same solutions with other model states."""
    return eqx.tree_at(
        lambda p: (p.model, p.reward), particles, (model, reward), is_leaf=lambda x: x is None
    )


def check_prompts(prompts: list[str]) -> None:
    """At least one prompt, none of them empty."""
    if not prompts:
        raise ValueError("prompt must be a text or a non-empty list of texts, got an empty list")
    for i, prompt in enumerate(prompts):
        if not isinstance(prompt, str) or not prompt.strip():
            raise ValueError(f"prompt {i} is empty or not a text: {prompt!r}")


def non_negative(name: str, value: float) -> float:
    """A finite number >= 0."""
    if not 0 <= float(value) < float("inf"):
        raise ValueError(f"{name} must be a finite number >= 0, got {value}")
    return float(value)
