"""Liveness of a prefix as array arithmetic: `regchain_check.liveness` for many rows under jit.

A solution is read in windows of 12 words, one for each instruction; `<pad>` is skipped. A complete
window gives its register the value that it binds, or makes the prefix *malformed* for good. The
prefix is live if faultless execution of the rest, an unfinished window included, ends in the right
answer. Everything here is a function of one row; lift it by `jax.vmap`.

Shape letters: Q words of a step.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jurax.models.language.programs import NUM_NAMES, Programs, compute, run, start_values
from jurax.models.language.regchain_corpus import TOKENS_PER_STEP
from jurax.models.language.tokenizer import (
    ANSWER,
    BINDING,
    DEFINITION,
    END,
    MODULUS,
    NAME,
    NUM_LEAVES,
    NUMBER,
    OPERATION,
    OPERATIONS,
    PAD,
    RESULT,
    STEP,
)

NONE = -1  # in place of a value: nothing, or nothing valid


class Trace(eqx.Module):
    """What a prefix says.

    Attributes:
        values: values of A, B, C, r1, ..., r8 as written; 0 for those that are not.
        num_known: leaves and registers written.
        window: words of the unfinished window.
        num_words: how many they are.
        malformed: whether a complete window was no step.
    """

    values: Int[Array, " 11"]
    num_known: Int[Array, ""]
    window: Int[Array, " 12"]
    num_words: Int[Array, ""]
    malformed: Bool[Array, ""]


class Fact(eqx.Module):
    """What a window says: x op y = result. `result` is -1 where it says nothing valid."""

    operation: Int[Array, ""]
    x: Int[Array, ""]
    y: Int[Array, ""]
    result: Int[Array, ""]


def start_trace(program: Programs) -> Trace:
    """The empty prefix."""
    return Trace(
        values=start_values(program),
        num_known=jnp.asarray(NUM_LEAVES, jnp.int32),
        window=jnp.zeros(TOKENS_PER_STEP, jnp.int32),
        num_words=jnp.zeros((), jnp.int32),
        malformed=jnp.zeros((), bool),
    )


def read(
    program: Programs, trace: Trace, tokens: Int[Array, " Q"], count: Int[Array, ""]
) -> tuple[Trace, list[tuple[Bool[Array, ""], Int[Array, " 12"], Fact]]]:
    """Read the first `count` of the tokens.

    Returns:
        The longer prefix, and for each window that can end in Q words: whether it did and was well
        formed, its words, and its fact.
    """
    words, total = _join(trace, tokens, count)
    begin, windows = jnp.zeros((), jnp.int32), []
    for i in range(words.shape[0] // TOKENS_PER_STEP - 1):
        window = words[i * TOKENS_PER_STEP : (i + 1) * TOKENS_PER_STEP]
        here = begin == i * TOKENS_PER_STEP
        ended = here & (total - begin >= TOKENS_PER_STEP) & (window[0] != ANSWER)
        fact = parse_window(program, trace, window, jnp.asarray(TOKENS_PER_STEP))
        valid = ended & ~trace.malformed & (fact.result != NONE)
        windows.append((valid, window, fact))
        trace = _bind(trace, fact.result, valid, ended)
        begin = begin + TOKENS_PER_STEP * ended
    rest = jax.lax.dynamic_slice(words, (begin,), (TOKENS_PER_STEP,))
    num_words = jnp.minimum(total - begin, TOKENS_PER_STEP).astype(jnp.int32)
    trace = eqx.tree_at(lambda t: (t.window, t.num_words), trace, (rest, num_words))
    return trace, windows


def is_live(program: Programs, trace: Trace) -> Bool[Array, ""]:
    """Does the faultless continuation end in the right answer?"""
    fact = parse_window(program, trace, trace.window, trace.num_words)
    inside = trace.num_words > 0
    finished = _bind(trace, fact.result, inside & (fact.result != NONE), inside)
    last = NUM_LEAVES + program.num_instructions - 1
    answer = run(program, start_values(program), jnp.asarray(NUM_LEAVES))[last]
    reached = run(program, finished.values, finished.num_known)[last]
    live = jnp.where(
        is_answering(trace),
        _answers(program, trace, answer),
        ~finished.malformed & (reached == answer),
    )
    return live & ~trace.malformed


def stated_value(trace: Trace) -> Int[Array, ""]:
    """The last value that the prefix states as a result or an answer, -1 if there is none."""
    register = jnp.where(trace.num_known > NUM_LEAVES, trace.values[trace.num_known - 1], NONE)
    stated = is_answering(trace) & (trace.num_words > 1)
    return jnp.where(stated, _number(trace.window[1]), register)


def is_answering(trace: Trace) -> Bool[Array, ""]:
    """Whether the unfinished window is an answer step."""
    return (trace.num_words > 0) & (trace.window[0] == ANSWER)


def parse_window(
    program: Programs, trace: Trace, words: Int[Array, " 12"], num_words: Int[Array, ""]
) -> Fact:
    """The fact of a window of which `num_words` words are written, the others continued truly.

    An operand may have any name and any value: that is an error, no malformation. What is written
    counts: the plain values for the result, the last binding for later look-ups.
    """
    has = jnp.arange(TOKENS_PER_STEP) < num_words
    index = trace.num_known - NUM_LEAVES
    slot = jnp.minimum(index, program.left.shape[0] - 1)
    fixed = jnp.array([0, 8, 11])
    expected = jnp.stack([DEFINITION + index, jnp.asarray(RESULT), jnp.asarray(STEP)])
    valid = (index < program.num_instructions) & jnp.all(~has[fixed] | (words[fixed] == expected))
    x = _operand(words[1:4], has[1:4], program.left[slot], trace)
    y = _operand(words[5:8], has[5:8], program.right[slot], trace)
    operation = jnp.where(has[4], words[4] - OPERATION, program.operation[slot])
    valid &= (x != NONE) & (y != NONE) & (operation >= 0) & (operation < len(OPERATIONS))
    written = jnp.where(has[9], _number(words[9]), compute(operation, x, y))
    name, value = _binding(words[10])
    bound = jnp.where(name == trace.num_known, value, NONE)
    result = jnp.where(has[10] & (written != NONE), bound, written)
    return Fact(operation=operation, x=x, y=y, result=jnp.where(valid, result, NONE))


def _join(
    trace: Trace, tokens: Int[Array, " Q"], count: Int[Array, ""]
) -> tuple[Int[Array, " W"], Int[Array, ""]]:
    """The unfinished window and the new words, without padding, and their number."""
    real = (jnp.arange(tokens.shape[0]) < count) & (tokens != PAD)
    slots = trace.num_words + jnp.cumsum(real) - 1
    num_windows = (TOKENS_PER_STEP - 1 + tokens.shape[0]) // TOKENS_PER_STEP  # that may end
    words = jnp.zeros((num_windows + 1) * TOKENS_PER_STEP, jnp.int32)
    words = words.at[:TOKENS_PER_STEP].set(trace.window)
    words = words.at[jnp.where(real, slots, words.shape[0])].set(tokens, mode="drop")
    return words, trace.num_words + jnp.sum(real)


def _bind(trace: Trace, value: Array, valid: Array, ended: Array) -> Trace:
    """Give the next register a value; a window that ended without one is malformed."""
    slot = jnp.where(valid, trace.num_known, NUM_NAMES)
    return Trace(
        values=trace.values.at[slot].set(value, mode="drop"),
        num_known=trace.num_known + valid,
        window=trace.window,
        num_words=trace.num_words,
        malformed=trace.malformed | (ended & ~valid),
    )


def _answers(program: Programs, trace: Trace, answer: Int[Array, ""]) -> Bool[Array, ""]:
    """Is `#`, `# 8` or `# 8 <end>` right? Without a number that of the last register counts."""
    complete = trace.num_known - NUM_LEAVES == program.num_instructions
    last = jnp.where(complete, trace.values[trace.num_known - 1], NONE)
    value = jnp.where(trace.num_words > 1, _number(trace.window[1]), last)
    ends = (trace.num_words < 3) | ((trace.num_words == 3) & (trace.window[2] == END))
    return (value == answer) & ends


def _operand(
    words: Int[Array, " 3"], has: Bool[Array, " 3"], true_name: Int[Array, ""], trace: Trace
) -> Int[Array, ""]:
    """Value of an operand as far as its name, binding and value are written."""
    name = jnp.where(has[0], words[0] - NAME, true_name)
    named = (name >= 0) & (name < NUM_NAMES)
    known = jnp.where(name < trace.num_known, trace.values[jnp.clip(name, 0, NUM_NAMES - 1)], NONE)
    bound = _binding(words[1])[1]
    plain = jnp.where(bound != NONE, _number(words[2]), NONE)
    value = jnp.where(has[2], plain, jnp.where(has[1], bound, known))
    return jnp.where(named, value, NONE)


def _number(word: Int[Array, ""]) -> Int[Array, ""]:
    value = word - NUMBER
    return jnp.where((value >= 0) & (value < MODULUS), value, NONE)


def _binding(word: Int[Array, ""]) -> tuple[Int[Array, ""], Int[Array, ""]]:
    code = word - BINDING
    valid = (code >= 0) & (code < NUM_NAMES * MODULUS)
    return jnp.where(valid, code // MODULUS, NONE), jnp.where(valid, code % MODULUS, NONE)
