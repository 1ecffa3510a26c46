"""What `Reasoning` needs of a language model and of a reward model.

Both keep a state of *rows*: row r = b N + n is particle n of problem b. What belongs to a row moves
with it at a resampling; what all particles of a problem share (the prompt and its cache) does not.

Shape letters: B problems, N particles, R = B N rows, Q tokens of a step, V vocabulary.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jurax.ppl.process import gather_rows, missing


class State(eqx.Module):
    """State of a model: `rows` with leading axis R, `shared` with leading axis B."""

    rows: PyTree
    shared: PyTree

    def gather(self, ancestors: Int[Array, " R"]) -> "State":
        """Rows by ancestor; the shared part stays where it is."""
        return State(rows=gather_rows(self.rows, ancestors), shared=self.shared)

    def where(self, mask: Bool[Array, " R"], old: "State") -> "State":
        """These rows where `mask` holds, else those of `old`."""

        def choose(new: Array, previous: Array) -> Array:
            return jnp.where(mask.reshape((-1,) + (1,) * (new.ndim - 1)), new, previous)

        return State(rows=jax.tree.map(choose, self.rows, old.rows), shared=self.shared)


class Steps(eqx.Module):
    """One reasoning step of every row.

    Attributes:
        tokens: token ids, padded, `(R, Q)`.
        counts: tokens of the step, 0 for rows that made none, `(R,)`.
        log_probs: log-probability of the step under the law it was drawn from, `(R,)`.
    """

    tokens: Int[Array, "R Q"]
    counts: Int[Array, " R"]
    log_probs: Float[Array, " R"]


class AbstractLanguageModel(eqx.Module):
    """A language model that extends prefixes by reasoning steps.

    Attributes:
        max_length: longest text in tokens, prompt included.
        max_steps: default bound on the number of steps of a solution.
        max_step_tokens: default bound on the number of tokens of a step.
    """

    max_length: eqx.AbstractVar[int]
    max_steps: eqx.AbstractVar[int]
    max_step_tokens: eqx.AbstractVar[int]

    @abc.abstractmethod
    def encode(self, prompts: list[str]) -> PyTree:
        """Arrays with leading axis B that describe the prompts; host code, may raise ValueError."""

    @abc.abstractmethod
    def prompt_lengths(self, context: PyTree) -> Int[Array, " B"]:
        """Tokens of each prompt."""

    @abc.abstractmethod
    def start(self, context: PyTree, num_particles: int, max_tokens: int) -> State:
        """State of B N rows that have read their prompt and have room for `max_tokens` more."""

    @abc.abstractmethod
    def sample_step(
        self,
        key: Array,
        state: State,
        active: Bool[Array, " R"],
        max_step_tokens: int,
        temperature: Float[Array, ""],
    ) -> tuple[State, Steps]:
        """Draw one step for the active rows; `key` holds one key for each problem, consumed."""

    def score_step(
        self,
        state: State,
        tokens: Int[Array, "R Q"],
        counts: Int[Array, " R"],
        max_step_tokens: int,
        temperature: Float[Array, ""],
    ) -> tuple[State, Float[Array, " R"]]:
        """Write given steps: the state behind them and their log mass under `sample_step`.

        Rows of count 0 stay where they are, with log mass 0; a step that `sample_step` cannot draw
        has -inf. Optional: ancestor sampling and `Reasoning.replay` need it.
        """
        raise missing(self, "score_step", "the probability of given steps")

    @abc.abstractmethod
    def ends_text(self, token: Int[Array, "..."]) -> Bool[Array, "..."]:
        """Whether a token ends the text."""

    @abc.abstractmethod
    def decode(self, tokens: list[int]) -> str:
        """Text of token ids; host code."""

    @abc.abstractmethod
    def extract_answer(self, text: str) -> str | None:
        """The answer that a finished solution states, or None; host code."""


class AbstractReward(eqx.Module):
    """A process reward model: after every step, the probability r that the prefix is right.

    Attributes:
        strengths: default exponent for each reward target, `(target, strength)` pairs, fitted on
            validation problems.
    """

    strengths: eqx.AbstractVar[tuple[tuple[str, float], ...]]

    @abc.abstractmethod
    def encode(self, prompts: list[str]) -> PyTree:
        """Arrays with leading axis B that describe the prompts; host code, may raise ValueError."""

    @abc.abstractmethod
    def start(self, context: PyTree, num_particles: int, max_tokens: int) -> State:
        """State of B N rows that have read their prompt and have room for `max_tokens` more."""

    @abc.abstractmethod
    def score(self, state: State, steps: Steps) -> tuple[State, Float[Array, " R"]]:
        """Read one more step and return the log-odds of r for the prefix that ends with it."""
