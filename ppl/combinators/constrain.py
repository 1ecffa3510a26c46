"""A process conditioned on staying in a language.

A prefix that cannot be continued to a member of the language gets weight 0, so the target is the
law of the process given that its path is in the language, and the evidence is multiplied by the
probability of that.

Shape letters: N particles, S states of an automaton, V symbols.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Int

from jurax.ppl.combinators.wrapper import AbstractWeighing
from jurax.ppl.process import AbstractProcess


class Automaton(eqx.Module):
    """A deterministic finite automaton that reads one symbol a step.

    Args:
        moves: next state by state and symbol, -1: the word is outside the language.
        accepting: states in which a word may end.
        start: state before the first symbol.
        read: `(particles, t) -> symbol of step t`, int[N]; None: `process.record(particles, t)`.
        reads_initial: whether step 0 has a symbol too.

    A prefix is kept as long as an accepting state can be reached from its state.

    Example:
        >>> import jax.numpy as jnp
        >>> even = Automaton([[0, 1], [1, 0]], [True, False])  # words with an even number of ones
        >>> even.run([1, 0, 1]), even.run([1, 0, 0])
        (True, False)
    """

    moves: Int[Array, "S V"]
    accepting: Bool[Array, " S"]
    start: int = eqx.field(static=True)
    read: Callable | None
    reads_initial: bool = eqx.field(static=True)

    def __init__(
        self,
        moves: Int[ArrayLike, "S V"] | list,
        accepting: Bool[ArrayLike, " S"] | list,
        start: int = 0,
        read: Callable | None = None,
        reads_initial: bool = True,
    ):
        table, ends = np.asarray(moves), np.asarray(accepting, bool)
        if table.ndim != 2 or ends.shape != table.shape[:1] or not 0 <= start < len(table):
            raise ValueError(
                "moves must be a table (states, symbols), accepting one flag for each state and "
                f"start a state; got shapes {table.shape}, {ends.shape} and start {start}"
            )
        if table.min() < -1 or table.max() >= len(table):
            raise ValueError(f"moves must lie in -1..{len(table) - 1} for {len(table)} states")
        live = _reaching(table, ends)
        self.moves = jnp.asarray(np.where(live[table] & (table >= 0), table, -1))
        self.accepting = jnp.asarray(ends)
        self.start, self.read, self.reads_initial = start, read, reads_initial

    def step(self, states: Int[Array, "..."], symbols: Int[Array, "..."]) -> Int[Array, "..."]:
        """Next states; -1 stays -1."""
        moved = self.moves[jnp.maximum(states, 0), symbols]
        return jnp.where(states < 0, -1, moved)

    def run(self, word: list[int]) -> bool:
        """Whether a word is in the language."""
        state = jnp.asarray(self.start)
        for symbol in word:
            state = self.step(state, jnp.asarray(symbol))
        return bool((state >= 0) & self.accepting[jnp.maximum(state, 0)])


class Constrained(AbstractWeighing):
    """See `constrain`; remembers the state of the automaton."""

    process: AbstractProcess
    automaton: Automaton

    @property
    def target(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The wrapped target, given the language."""
        return f"({self.process.target}) given that the path is in the language"

    def weigh(self, inner, extra, t):
        """1 for prefixes that can be completed, and at the end for words of the language."""
        automaton = self.automaton
        if extra is None:
            extra = jnp.full(self.process.row_shape(inner), automaton.start, automaton.moves.dtype)
        if not isinstance(t, int) or t > 0 or automaton.reads_initial:
            extra = automaton.step(extra, self._symbols(inner, t))
        accepted = automaton.accepting[jnp.maximum(extra, 0)] | ~self.ended(inner, t)
        return extra, jnp.where((extra >= 0) & accepted, 0.0, -jnp.inf)

    def _symbols(self, inner, t) -> Int[Array, " N"]:
        if self.automaton.read is not None:
            return self.automaton.read(self.process.innermost(inner), t)
        symbols = self.process.record(inner, t)
        if not isinstance(symbols, Array) or not jnp.issubdtype(symbols.dtype, jnp.integer):
            raise TypeError(
                "the records of this process are not integer symbols: say how to read them by "
                "Automaton(..., read=lambda particles, t: symbols)"
            )
        return symbols


class Allowed(AbstractWeighing):
    """See `constrain` with a predicate; remembers whether the prefix is still allowed."""

    process: AbstractProcess
    predicate: Callable

    @property
    def target(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The wrapped target, given the predicate."""
        return f"({self.process.target}) given that every prefix is allowed"

    def weigh(self, inner, extra, t):
        """1 for prefixes that are allowed."""
        allowed = self.predicate(self.process.innermost(inner), t)
        return allowed, jnp.where(allowed, 0.0, -jnp.inf)


def constrain(process: AbstractProcess, automaton: Any) -> AbstractProcess:
    """Condition a process on staying in a language.

    Args:
        process: any process.
        automaton: an `Automaton`, or a predicate `(particles, t) -> bool[N]` that says of a whole
            population which prefixes of t steps are allowed.

    Example:
        >>> import jax
        >>> from jurax.models.state_space import HiddenMarkovModel
        >>> model = HiddenMarkovModel.simulate(jax.random.key(0), num_steps=3)
        >>> without_state_two = constrain(model, lambda states, t: states != 2)
        >>> _, log_weights = without_state_two.init(jax.random.key(1), 100)
        >>> sorted(set(log_weights.tolist()))
        [-inf, 0.0]
    """
    if isinstance(automaton, Automaton):
        return Constrained(process=process, automaton=automaton)  # pyright: ignore
    if not callable(automaton):
        raise TypeError(
            "constrain takes an Automaton or a predicate (particles, t) -> bool[N], got "
            f"{type(automaton).__name__}"
        )
    return Allowed(process=process, predicate=automaton)  # pyright: ignore


def _reaching(moves: np.ndarray, accepting: np.ndarray) -> np.ndarray:
    """States from which an accepting state can be reached."""
    live = accepting.copy()
    for _ in range(len(moves)):
        live = live | np.any(live[moves] & (moves >= 0), axis=1)
    return live
