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
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jurax.ppl import AbstractProcess, Cost, random

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
            log_potentials=jnp.asarray(strength * self.log_potentials(reward_target)),
            depth=self.depth,
            stop=self.stop,
            num_steps=self.depth - 1 if num_steps is None else num_steps,
        )

    def log_potentials(self, reward_target: RewardTarget) -> np.ndarray:
        """log G of the step that appends a symbol to a prefix, `(P, A)`."""
        with np.errstate(divide="ignore"):
            log_rewards = np.log(self.rewards)
        if reward_target == "emission":
            return log_rewards
        if reward_target == "odds":
            return log_rewards - np.log1p(-self.rewards)
        num_prefixes, width = self.rewards.shape
        before = np.concatenate([[0.0], log_rewards.reshape(-1)])  # the empty prefix counts as 1
        return log_rewards - before[:num_prefixes, None]


def normalize(masses: dict[tuple[int, ...], float]) -> dict[tuple[int, ...], float]:
    """Masses divided by their sum."""
    total = sum(masses.values())
    return {string: mass / total for string, mass in masses.items()}


class Prefixes(eqx.Module):
    """Prefixes by number, with their last symbol and whether the string has ended."""

    prefix: Int[Array, " N"]
    length: Int[Array, " N"]
    symbol: Int[Array, " N"]
    done: Bool[Array, " N"]


class PrefixProcess(AbstractProcess):
    """A language under rewards; finished rows get garbage from `extend`, as the contract allows."""

    logits: Float[Array, "P A"]
    log_potentials: Float[Array, "P A"]
    depth: int = eqx.field(static=True)
    stop: bool = eqx.field(static=True)
    num_steps: int = eqx.field(static=True)
    target: str = eqx.field(static=True, default="p(x) times the potentials of its rewards")

    @property
    def num_prefixes(self) -> int:
        """Numbers of prefixes, complete strings included."""
        return self.logits.size + 1

    def init(self, key, num_particles):
        zeros = jnp.zeros(num_particles, jnp.int32)
        return self.extend(key, Prefixes(zeros, zeros, zeros, zeros.astype(bool)), 0)

    def extend(self, key, particles, t):
        # A row that has ended draws nothing, so that enumerations stay small; what it then gets is
        # wrong on purpose: another symbol, another prefix, and a potential once more.
        width = self.logits.shape[1]
        here = jnp.minimum(particles.prefix, self.logits.shape[0] - 1)
        sure = jnp.where(jnp.arange(width) == 0, 0.0, -jnp.inf)
        sure = jnp.broadcast_to(sure, (here.size, width))
        logits = jnp.where(particles.done[:, None], sure, self.logits[here])
        symbol = random.categorical(key, logits).astype(jnp.int32)
        length = particles.length + 1
        done = length == self.depth
        if self.stop:
            done = done | (symbol == width - 1)
        extended = Prefixes(here * width + symbol + 1, length, symbol, done)
        return extended, self.log_potentials[here, symbol]

    def finished(self, particles):
        return particles.done

    def record(self, particles, t):
        return particles.symbol

    def replay(self, particles, record, t):
        zeros = jnp.zeros(record.shape, jnp.int32)
        if particles is None:
            particles = Prefixes(zeros, zeros, zeros, zeros.astype(bool))
        width = self.logits.shape[1]
        here = jnp.minimum(particles.prefix, self.logits.shape[0] - 1)
        length = particles.length + 1
        done = length == self.depth
        if self.stop:
            done = done | (record == width - 1)
        moved = Prefixes(here * width + record + 1, length, record, done)
        log_probs = jax.nn.log_softmax(self.logits)[here, record]
        return moved, self.log_potentials[here, record], log_probs

    def cost(self, before, after):
        started = 0 if before is None else jnp.sum(before.length)
        return Cost(decoded_tokens=jnp.sum(after.length) - started)

    def cost_bound(self, particles):
        return Cost(decoded_tokens=jnp.sum(~particles.done))

    def prior(self):
        return eqx.tree_at(lambda p: p.log_potentials, self, jnp.zeros_like(self.log_potentials))

    def step_scores(self, particles: Prefixes) -> tuple[Array, Array]:
        """Log G of every step and whether it was made, `(N, T)` each."""
        width, prefix, columns = self.logits.shape[1], particles.prefix, []
        for _ in range(self.depth):  # the last step first
            columns.append(self.log_potentials.reshape(-1)[jnp.maximum(prefix - 1, 0)])
            prefix = jnp.maximum(prefix - 1, 0) // width
        steps = jnp.arange(self.depth)[None, :]
        exists = steps < particles.length[:, None]
        order = jnp.where(exists, particles.length[:, None] - 1 - steps, 0)
        return jnp.take_along_axis(jnp.stack(columns, axis=1), order, axis=1), exists

    def string(self, particle: Prefixes) -> tuple[int, ...]:
        """The symbols of one particle of a posterior."""
        return string_of(int(particle.prefix), self.logits.shape[1])


def string_of(prefix: int, width: int) -> tuple[int, ...]:
    """The symbols of a numbered prefix."""
    symbols = []
    while prefix > 0:
        prefix, symbol = divmod(prefix - 1, width)
        symbols.append(symbol)
    return tuple(reversed(symbols))


def number_of(string: tuple[int, ...], width: int) -> int:
    """The number of a prefix; inverse of `string_of`."""
    prefix = 0
    for symbol in string:
        prefix = prefix * width + symbol + 1
    return prefix
