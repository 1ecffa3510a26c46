"""The noisy executor as a language model: RegChain solutions by a law that is known exactly.

One step is one instruction, with the law of `executor.executor_law`: each operand is looked up
wrongly, uniformly over the 18 other values, with probability `binding_error`, and the result is
drawn from the table p(result | x, op, y). Its log-probability is the sum over these three draws;
all other tokens are certain. No network, so its posteriors under a reward can be enumerated.

At temperature T every draw has the law p^{1/T}, normalised; T = 0 puts all mass on its mode.
Shape letters: B problems, N particles, R = B N rows, Q tokens of a step.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jurax.models.language import regchain_check, tokenizer
from jurax.models.language.executor import ExecutorDials, executor_law
from jurax.models.language.model import AbstractLanguageModel, State, Steps
from jurax.models.language.programs import Programs, encode_programs, start_values
from jurax.models.language.regchain_corpus import TOKENS_PER_STEP, bind
from jurax.models.language.tokenizer import (
    ANSWER,
    DEFINITION,
    END,
    MAX_STEPS,
    MODULUS,
    NAME,
    NUM_LEAVES,
    NUMBER,
    OPERATION,
    RESULT,
    STEP,
)
from jurax.ppl import random


class NoisyExecutor(AbstractLanguageModel):
    """A fallible writer of RegChain solutions.

    Args:
        max_length: longest text in tokens, prompt included.
        dials: the error law, as keyword arguments; see `executor.ExecutorDials`.

    Raises:
        TypeError: a dial is unknown.
        ValueError: a dial is outside of its range.

    Example:
        >>> from jurax.inference import ImportanceSampling, infer
        >>> from jurax.models.language.programs import EXAMPLE
        >>> from jurax.models.language.reasoning import Reasoning
        >>> executor = NoisyExecutor(misconceptions=0.0)
        >>> process = Reasoning(executor, None, EXAMPLE, temperature=0.0)
        >>> posterior = infer(jax.random.key(0), process, ImportanceSampling(num_particles=1))
        >>> print(process.text(jax.tree.map(lambda x: x[0], posterior.particles)))
        r1: A A=7 7 * B B=12 12 > 8 r1=8 ; r2: r1 r1=8 8 - C C=3 3 > 5 r2=5 ; # 5 <end>
    """

    log_probs: Float[Array, "3 19 19 19"]
    log_offsets: Float[Array, " 19"]
    max_length: int = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)
    max_step_tokens: int = eqx.field(static=True)

    def __init__(self, *, max_length: int = 160, **dials):
        law = executor_law(check_dials(dials))
        self.log_probs = jnp.asarray(law.log_probs, float)
        # Law of (value read - value written) mod 19 in a look-up.
        wrong = jnp.full(MODULUS, law.binding_error / (MODULUS - 1), float)
        self.log_offsets = jnp.log(wrong.at[0].set(1 - law.binding_error))
        self.max_length = max_length
        self.max_steps = MAX_STEPS + 1
        self.max_step_tokens = TOKENS_PER_STEP

    def encode(self, prompts):
        """The programs of the prompts."""
        return encode_programs(prompts)

    def prompt_lengths(self, context):
        """Tokens of each prompt."""
        return context.prompt_lengths

    def start(self, context, num_particles, max_tokens):
        """Rows that have written nothing."""
        del max_tokens
        values = jnp.repeat(jax.vmap(start_values)(context), num_particles, axis=0)
        written = jnp.zeros(values.shape[0], jnp.int32)
        return State(rows={"values": values, "num_written": written}, shared=context)

    def ends_text(self, token):
        """Whether a token is `<end>`."""
        return token == END

    def decode(self, tokens):
        """Text of ids."""
        return tokenizer.decode(tokens)

    def extract_answer(self, text):
        """The number of the answer step."""
        return regchain_check.extract_answer(text)

    def sample_step(self, key, state, active, max_step_tokens, temperature):
        """Write the next instruction, or the answer after the last one."""
        if max_step_tokens < TOKENS_PER_STEP:
            raise ValueError(
                f"max_step_tokens is {max_step_tokens}; the noisy executor writes whole steps of "
                f"{TOKENS_PER_STEP} tokens"
            )
        program = state.shared.per_row(len(active))
        values, written = state.rows["values"], state.rows["num_written"]
        answers = written >= program.num_instructions
        computes = active & ~answers
        facts, log_probs = self._draw_facts(key, program, values, written, computes, temperature)
        tokens = jnp.where(answers[:, None], write_answers(program, values), write(facts))
        counts = jnp.where(answers, 3, TOKENS_PER_STEP)
        padding = ((0, 0), (0, max_step_tokens - TOKENS_PER_STEP))
        steps = Steps(
            tokens=jnp.pad(jnp.where(active[:, None], tokens, 0), padding),
            counts=jnp.where(active, counts, 0),
            log_probs=log_probs,
        )
        slot = jnp.where(computes, facts.name, values.shape[1])
        values = values.at[jnp.arange(len(active)), slot].set(facts.result, mode="drop")
        rows = {"values": values, "num_written": written + computes}
        return State(rows=rows, shared=state.shared), steps

    def score_step(self, state, tokens, counts, max_step_tokens, temperature):
        """Read off what was looked up and computed; a step of another form has log mass -inf."""
        del max_step_tokens
        active = counts > 0
        program = state.shared.per_row(len(active))
        values, written = state.rows["values"], state.rows["num_written"]
        answers = written >= program.num_instructions
        computes = active & ~answers
        name, left, operation, right = instruction(program, written)
        x, y, result = (jnp.clip(tokens[:, i] - NUMBER, 0, MODULUS - 1) for i in READ_AT)
        facts = Facts(name, left, x, operation, right, y, result)
        offsets = tempered(self.log_offsets, temperature)
        table = tempered(self.log_probs, temperature)
        log_probs = (
            offsets[(x - take(values, left)) % MODULUS]
            + offsets[(y - take(values, right)) % MODULUS]
            + table[operation, x, y, result]
        )
        log_probs = jnp.where(answers, 0.0, log_probs)
        form = jnp.where(answers[:, None], write_answers(program, values), write(facts))
        is_written = jnp.all(form == tokens[:, :TOKENS_PER_STEP], axis=1)
        log_probs = jnp.where(is_written, log_probs, -jnp.inf)
        slot = jnp.where(computes, name, values.shape[1])
        values = values.at[jnp.arange(len(active)), slot].set(result, mode="drop")
        rows = {"values": values, "num_written": written + computes}
        return State(rows=rows, shared=state.shared), jnp.where(active, log_probs, 0.0)

    def _draw_facts(
        self,
        key: Array,
        program: Programs,
        values: Int[Array, "R 11"],
        num_written: Int[Array, " R"],
        computes: Bool[Array, " R"],
        temperature: Float[Array, ""],
    ) -> tuple["Facts", Float[Array, " R"]]:
        """Draw look-ups and result of the next instruction of every row; consumes `key`."""
        key_x, key_y, key_result = random.split(key, 3)
        name, left, operation, right = instruction(program, num_written)
        # The laws are tempered as whole tables: the same numbers however problems are packed.
        offsets = tempered(self.log_offsets, temperature)
        table = tempered(self.log_probs, temperature)
        x, log_x = look_up(key_x, take(values, left), offsets, computes)
        y, log_y = look_up(key_y, take(values, right), offsets, computes)
        result, log_result = draw(key_result, table[operation, x, y], computes)
        facts = Facts(name, left, x, operation, right, y, result)
        return facts, log_x + log_y + log_result


class Facts(eqx.Module):
    """One instruction of each row as it was carried out; names are indices as in `Programs`."""

    name: Int[Array, " R"]
    left: Int[Array, " R"]
    x: Int[Array, " R"]
    operation: Int[Array, " R"]
    right: Int[Array, " R"]
    y: Int[Array, " R"]
    result: Int[Array, " R"]


def instruction(program: Programs, num_written: Int[Array, " R"]) -> tuple[Array, ...]:
    """Names of result and left operand, operation, name of right operand; of every row."""
    index = jnp.minimum(num_written, MAX_STEPS - 1)
    columns = (program.left, program.operation, program.right)
    return NUM_LEAVES + index, *(take(column, index) for column in columns)


def check_dials(dials: dict) -> ExecutorDials:
    """Dials by name."""
    names = [field.name for field in dataclasses.fields(ExecutorDials)]
    unknown = sorted(set(dials) - set(names))
    if unknown:
        raise TypeError(f"unknown dials {', '.join(unknown)}; the dials are {', '.join(names)}")
    return ExecutorDials(**dials)


def tempered(
    log_probs: Float[Array, "*K 19"], temperature: Float[Array, ""]
) -> Float[Array, "*K 19"]:
    """Log of p^{1/T}, normalised; the point mass on the first mode for T = 0.

    Example:
        >>> laws = tempered(jnp.log(jnp.array([0.5] + [0.5 / 18] * 18)), jnp.array(0.0))
        >>> float(laws[0]), float(laws[1])
        (0.0, -inf)
    """
    below = log_probs - jnp.max(log_probs, axis=-1, keepdims=True)
    positive = temperature >= jnp.finfo(log_probs.dtype).tiny  # 1 / T is finite
    mode = jax.nn.one_hot(jnp.argmax(below, axis=-1), below.shape[-1], dtype=below.dtype)
    scaled = below / jnp.where(positive, temperature, 1.0)
    return jax.nn.log_softmax(jnp.where(positive, scaled, jnp.log(mode)))


def look_up(
    key: Array, values: Int[Array, " R"], log_offsets: Float[Array, " 19"], used: Bool[Array, " R"]
) -> tuple[Int[Array, " R"], Float[Array, " R"]]:
    """Read a value, sometimes wrongly; consumes `key`."""
    log_probs = jnp.broadcast_to(log_offsets, (len(values), MODULUS))
    offset, log_prob = draw(key, log_probs, used)
    return (values + offset) % MODULUS, log_prob


def draw(
    key: Array, log_probs: Float[Array, "R 19"], used: Bool[Array, " R"]
) -> tuple[Int[Array, " R"], Float[Array, " R"]]:
    """One outcome for each row, drawn by the key of its problem, and its log-probability.

    Rows that do not use it get outcome 0 for certain, so that an enumeration has one branch there.
    """
    certain = jnp.log(jnp.zeros(log_probs.shape[-1], log_probs.dtype).at[0].set(1))
    log_probs = jnp.where(used[:, None], log_probs, certain[None])
    per_problem = log_probs.reshape(len(key), -1, log_probs.shape[-1])
    outcome = random.categorical(key, per_problem).reshape(-1).astype(jnp.int32)
    return outcome, take(log_probs, outcome)


def take(table: Array, index: Int[Array, " R"]) -> Array:
    """Entry `index[r]` of row r."""
    return jnp.take_along_axis(table, index[:, None], axis=1)[:, 0]


READ_AT = (3, 7, 9)  # where `write` puts the two values read and the result


def write(facts: Facts) -> Int[Array, "R 12"]:
    """Tokens of steps like `r2: r1 r1=8 8 - C C=3 3 > 5 r2=5 ;`."""
    columns = (
        DEFINITION + facts.name - NUM_LEAVES,
        *(NAME + facts.left, bind(facts.left, facts.x), NUMBER + facts.x),
        OPERATION + facts.operation,
        *(NAME + facts.right, bind(facts.right, facts.y), NUMBER + facts.y),
        jnp.full_like(facts.x, RESULT),
        *(NUMBER + facts.result, bind(facts.name, facts.result)),
        jnp.full_like(facts.x, STEP),
    )
    return jnp.stack(columns, axis=-1)


def write_answers(program: Programs, values: Int[Array, "R 11"]) -> Int[Array, "R 12"]:
    """Tokens of answer steps like `# 5 <end>`, padded."""
    last = take(values, NUM_LEAVES + program.num_instructions - 1)
    columns = (jnp.full_like(last, ANSWER), NUMBER + last, jnp.full_like(last, END))
    return jnp.pad(jnp.stack(columns, axis=-1), ((0, 0), (0, TOKENS_PER_STEP - len(columns))))
