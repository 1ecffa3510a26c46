"""Exact answers in plain NumPy: languages of strings whose laws depend on the whole prefix.

A language has, for every prefix, the probabilities of the next symbol and the reward of the prefix
that it makes. `Language.masses` adds up strings one by one and shares no code with the process.
Shape letters: P prefixes, A symbols, N particles.
"""

import dataclasses
import itertools
import math
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jurax.ppl import AbstractProcess, random

RewardTarget = Literal["emission", "odds", "value"]
REWARD_TARGETS: tuple[RewardTarget, ...] = ("emission", "odds", "value")


@dataclasses.dataclass(frozen=True)
class Language:
    """Strings over an alphabet, at most `depth` symbols long.

    Prefixes are numbered as in a complete tree: the empty one is 0 and prefix p followed by symbol
    a is p A + a + 1. With `stop` the last symbol ends a string; it is never the first.
    """

    probs: np.ndarray  # (P, A)
    rewards: np.ndarray  # (P, A): of the prefix followed by the symbol
    depth: int
    stop: bool

    @classmethod
    def draw(cls, seed: int, num_symbols: int, depth: int, *, stop: bool) -> "Language":
        """Conditionals from a flat Dirichlet law, rewards uniform on (.15, .9)."""
        rng = np.random.default_rng(seed)
        width = num_symbols + stop
        num_prefixes = sum(width**length for length in range(depth))
        probs = rng.dirichlet(np.ones(width), size=num_prefixes)
        if stop:
            probs[0, -1] = 0.0
            probs[0] /= probs[0].sum()
        return cls(probs, rng.uniform(0.15, 0.9, probs.shape), depth, stop)

    def strings(self, max_length: int | None = None) -> list[tuple[int, ...]]:
        """All complete strings, cut at `max_length` symbols."""
        longest = self.depth if max_length is None else min(max_length, self.depth)
        symbols = range(self.probs.shape[1])
        end = self.probs.shape[1] - 1 if self.stop else -1
        found = []
        for length in range(1, longest + 1):
            for string in itertools.product(symbols, repeat=length):
                is_inside = end not in string[:-1] and string[0] != end
                if is_inside and (length == longest or string[-1] == end):
                    found.append(string)
        return found

    def masses(
        self, reward_target: RewardTarget, strength: float = 1.0, num_steps: int | None = None
    ) -> dict[tuple[int, ...], float]:
        """gamma(s) = p(s) times the potential of each string."""
        cut = None if num_steps is None else num_steps + 1
        return {s: self._mass(s, reward_target, strength) for s in self.strings(cut)}

    def _mass(self, string: tuple[int, ...], reward_target: str, strength: float) -> float:
        prob, rewards, prefix = 1.0, [], 0
        for symbol in string:
            prob *= self.probs[prefix, symbol]
            rewards.append(self.rewards[prefix, symbol])
            prefix = prefix * self.probs.shape[1] + symbol + 1
        potential = {
            "emission": math.prod(rewards),
            "odds": math.prod(r / (1 - r) for r in rewards),
            "value": rewards[-1],
        }[reward_target]
        return float(prob * potential**strength)

    def process(
        self, reward_target: RewardTarget, strength: float = 1.0, num_steps: int | None = None
    ) -> "PrefixProcess":
        """The language under its rewards as a process, one symbol a step."""
        return PrefixProcess(
            logits=jnp.log(jnp.asarray(self.probs)),
            rewards=jnp.asarray(self.rewards),
            strength=jnp.asarray(strength, float),
            reward_target=reward_target,
            depth=self.depth,
            stop=self.stop,
            num_steps=self.depth - 1 if num_steps is None else num_steps,
        )


def normalize(masses: dict[tuple[int, ...], float]) -> dict[tuple[int, ...], float]:
    """Masses divided by their sum."""
    total = sum(masses.values())
    return {string: mass / total for string, mass in masses.items()}


class Prefixes(eqx.Module):
    """Prefixes by number, with the last symbol, its reward and whether the string has ended."""

    prefix: Int[Array, " N"]
    length: Int[Array, " N"]
    symbol: Int[Array, " N"]
    reward: Float[Array, " N"]
    done: Bool[Array, " N"]


class PrefixProcess(AbstractProcess):
    """A language under rewards; finished rows get garbage from `extend`, as the contract allows."""

    logits: Float[Array, "P A"]
    rewards: Float[Array, "P A"]
    strength: Float[Array, ""]
    reward_target: str = eqx.field(static=True)
    depth: int = eqx.field(static=True)
    stop: bool = eqx.field(static=True)
    num_steps: int = eqx.field(static=True)
    target: str = eqx.field(static=True, default="p(x) times the potentials of its rewards")

    def init(self, key, num_particles):
        zeros = jnp.zeros(num_particles, jnp.int32)
        empty = Prefixes(zeros, zeros, zeros, jnp.ones(num_particles), zeros.astype(bool))
        return self.extend(key, empty, 0)

    def extend(self, key, particles, t):
        # A row that has ended draws nothing, so that enumerations stay small; what it then gets is
        # wrong on purpose: another symbol, another prefix, and its reward once more.
        here = jnp.minimum(particles.prefix, self.logits.shape[0] - 1)
        sure = jnp.where(jnp.arange(self.logits.shape[1]) == 0, 0.0, -jnp.inf)
        ended = particles.done[:, None]
        logits = jnp.where(ended, jnp.broadcast_to(sure, (here.size, sure.size)), self.logits[here])
        symbol = random.categorical(key, logits).astype(jnp.int32)
        reward = self.rewards[here, symbol]
        length = particles.length + 1
        done = length == self.depth
        if self.stop:
            done = done | (symbol == self.logits.shape[1] - 1)
        extended = Prefixes(
            prefix=here * self.logits.shape[1] + symbol + 1,
            length=length,
            symbol=symbol,
            reward=reward,
            done=done,
        )
        return extended, self.strength * self._potential(reward, particles.reward)

    def _potential(self, reward: Array, previous: Array) -> Array:
        log_reward = jnp.log(reward)
        if self.reward_target == "emission":
            return log_reward
        if self.reward_target == "odds":
            return log_reward - jnp.log1p(-reward)
        return log_reward - jnp.log(previous)

    def finished(self, particles):
        return particles.done

    def record(self, particles, t):
        return particles.symbol

    def string(self, particle: Prefixes) -> tuple[int, ...]:
        """The symbols of one particle of a posterior."""
        prefix, width, symbols = int(particle.prefix), self.logits.shape[1], []
        while prefix > 0:
            prefix, symbol = divmod(prefix - 1, width)
            symbols.append(symbol)
        return tuple(reversed(symbols))
