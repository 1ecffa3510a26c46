"""Exact checks of RegChain solutions: the answer, each step, and the liveness of a prefix.

A prefix is *live* if executing the rest without fault, with the values as they were written, ends
in the right answer. Wrong values propagate, but not always: a value that nobody reads, or that is
multiplied by 0, does no harm. Text that no continuation can complete is dead.
"""

import dataclasses
from collections.abc import Sequence

from jurax.models.language.regchain import Problem, apply
from jurax.models.language.tokenizer import (
    MODULUS,
    NAMES,
    NUM_LEAVES,
    OPERATIONS,
    TokenIds,
    decode,
)

STEP_WORDS = 12


@dataclasses.dataclass
class _Trace:
    """Values by name as written, and words of the unfinished step."""

    values: list[int]
    rest: list[str]
    answer: list[str] | None


def extract_answer(text: str) -> str | None:
    """The number of a finished solution: what stands between the last `#` and `<end>`, else None.

    Example:
        >>> extract_answer("r1: A A=7 7 * B B=12 12 > 8 r1=8 ; # 8 <end>")
        '8'
    """
    words = text.split()
    tail = words[-3:]
    finished = (
        len(tail) == 3 and tail[0] == "#" and tail[2] == "<end>" and _number(tail[1]) is not None
    )
    return tail[1] if finished else None


def check_answer(problem: Problem, solution: str | TokenIds) -> bool:
    """Is the solution (text or token ids) finished with the right answer?"""
    return extract_answer(_text(solution)) == problem.answer


def check_step(problem: Problem, prefix: str | TokenIds, step: str | TokenIds) -> bool:
    """Is `step` right after the complete steps `prefix`, given the values written there?

    A step is right if it copies the next instruction, looks up the values as they were last
    written, computes the true result of these, and binds it. The answer step is right if it
    follows the last instruction and repeats the written value of the last register.
    """
    trace = _read(problem, _text(prefix).split())
    if trace is None or trace.rest or trace.answer is not None:
        return False
    return _text(step).split() == _true_step(problem, trace.values)


def check_steps(problem: Problem, solution: str | TokenIds) -> list[bool]:
    """`check_step` for each complete step of a solution, in order."""
    steps = split_steps(_text(solution))
    return [check_step(problem, " ".join(steps[:i]), step) for i, step in enumerate(steps)]


def split_steps(text: str) -> list[str]:
    """Complete steps of a text; each ends with `;` or `<end>`. An unfinished tail is left out."""
    steps, current = [], []
    for word in text.split():
        current.append(word)
        if word in (";", "<end>"):
            steps.append(" ".join(current))
            current = []
    return steps


def liveness(problem: Problem, solution: str | TokenIds) -> bool:
    """Does the faultless continuation of this prefix end in the right answer?

    Args:
        problem: the problem.
        solution: text or token ids of any prefix, also one that ends within a step. An
            operand that is written stays as written; the words after it are continued truly.

    Example:
        >>> from jurax.models.language.regchain import problems
        >>> liveness(problems("test", 1, seed=0)[0], "")
        True
    """
    trace = _read(problem, _text(solution).split())
    if trace is None:
        return False
    if trace.answer is not None:
        return _finish_answer(problem, trace)
    if trace.rest:
        result = _finish_step(problem, trace)
        if result is None:
            return False
        trace.values.append(result)
    values = run(problem, trace.values)
    return str(values[-1]) == problem.answer


def run(problem: Problem, values: Sequence[int]) -> list[int]:
    """Execute the instructions that follow the given values (leaves first) without fault."""
    values = list(values)
    for left, operation, right in problem.instructions[len(values) - NUM_LEAVES :]:
        values.append(int(apply(operation, values[left], values[right])))
    return values


def _text(solution: str | TokenIds) -> str:
    return solution if isinstance(solution, str) else decode(solution)


def _read(problem: Problem, words: list[str]) -> _Trace | None:
    """Follow complete steps; None where a step cannot be one of a solution."""
    values = list(problem.leaves)
    while words and words[0] != "#":
        step, words = words[:STEP_WORDS], words[STEP_WORDS:]
        if len(step) < STEP_WORDS:
            return _Trace(values, step, None)
        result = _step_result(problem, values, step)
        if result is None:
            return None
        values.append(result)
    return _Trace(values, [], words or None)


def _step_result(problem: Problem, values: list[int], step: list[str]) -> int | None:
    """Value that a prefix of a step, if complete, gives to its register; None if it is malformed.

    An operand may be any name and any value: that is an error, not a malformation. What is
    written is what counts: the plain values for the result, the final binding for later look-ups.
    """
    index = len(values)
    if index - NUM_LEAVES >= problem.num_steps:
        return None
    left, operation, right = problem.instructions[index - NUM_LEAVES]
    name = NAMES[index]
    word = dict(enumerate(step)).get
    if word(0, f"{name}:") != f"{name}:" or word(8, ">") != ">" or word(11, ";") != ";":
        return None
    x = _operand(word(1), word(2), word(3), left, values)
    y = _operand(word(5), word(6), word(7), right, values)
    sign = word(4, OPERATIONS[operation])
    if x is None or y is None or sign not in OPERATIONS:
        return None
    result = int(apply(OPERATIONS.index(sign), x, y))
    result = _number(word(9)) if word(9) is not None else result
    if word(10) is None or result is None:
        return result
    bound, value = _binding(word(10))
    return value if bound == index else None


def _operand(
    name: str | None, binding: str | None, plain: str | None, true: int, values: list[int]
):
    """Value of an operand as far as it is written, the rest continued truly; None if malformed."""
    index = NAMES.index(name) if name in NAMES else None
    if name is None:
        return values[true]
    if index is None:
        return None
    if plain is not None:
        return _number(plain) if _binding(binding)[0] is not None else None
    if binding is not None:
        return _binding(binding)[1]
    return values[index] if index < len(values) else None


def _finish_step(problem: Problem, trace: _Trace) -> int | None:
    return _step_result(problem, trace.values, trace.rest)


def _finish_answer(problem: Problem, trace: _Trace) -> bool:
    """`#`, `# 8` or `# 8 <end>`: the value is what is written, or else the last register's."""
    words = trace.answer or []
    if len(words) > 3 or (len(words) == 3 and words[2] != "<end>"):
        return False
    if len(words) > 1:
        return words[1] == problem.answer
    complete = len(trace.values) - NUM_LEAVES == problem.num_steps
    return complete and str(trace.values[-1]) == problem.answer


def _true_step(problem: Problem, values: list[int]) -> list[str]:
    index = len(values)
    if index - NUM_LEAVES == problem.num_steps:
        return ["#", str(values[-1]), "<end>"]
    left, operation, right = problem.instructions[index - NUM_LEAVES]
    x, y = values[left], values[right]
    result = int(apply(operation, x, y))
    words = [f"{NAMES[index]}:"]
    words += [NAMES[left], f"{NAMES[left]}={x}", str(x), OPERATIONS[operation]]
    words += [NAMES[right], f"{NAMES[right]}={y}", str(y), ">", str(result)]
    return [*words, f"{NAMES[index]}={result}", ";"]


def _number(word: str | None) -> int | None:
    valid = word is not None and word.isdecimal() and int(word) < MODULUS
    return int(word) if valid and word is not None else None


def _binding(word: str | None) -> tuple[int | None, int | None]:
    name, _, value = (word or "").partition("=")
    valid = name in NAMES and _number(value) is not None
    return (NAMES.index(name), _number(value)) if valid else (None, None)
