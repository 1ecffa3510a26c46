"""Problems to solve: read from a file of JSON lines, or generated, and checked before any work.

A line is an object such as

    {"id": "first", "prompt": "A=7 B=12 C=3 r1: A * B ? r1", "answer": "8"}

`id` (default: the number of the line) and `answer` may be absent. The answer is used to score
results, never by a method.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from jurax.models.language.model import AbstractLanguageModel
from jurax.models.language.regchain import Problem, problems
from jurax.ppl.checks import at_least

EXPECTED = 'expected one JSON object for each line, such as {"prompt": "A=7 ... ? r2", "id": "1"}'
SHOWN = 5  # bad lines that one message lists


@dataclasses.dataclass(frozen=True)
class Question:
    """A problem as a method sees it, and its answer for the scoring.

    Attributes:
        id: unique name; with the seed it decides the random draws.
        prompt: text for the language model.
        answer: the true answer, or None if it is not known.
        source: where the problem comes from, for messages.
    """

    id: str
    prompt: str
    answer: str | None = None
    source: str = dataclasses.field(default="", compare=False)


def generate_questions(num_problems: int, seed: int) -> list[Question]:
    """Problems of RegChain's test split.

    Raises:
        ValueError: for less than one problem.

    Example:
        >>> [question.id for question in generate_questions(2, seed=0)]
        ['test-0-0', 'test-0-1']
    """
    at_least(1, num_problems=num_problems)
    return [from_problem(problem) for problem in problems("test", num_problems, seed)]


def from_problem(problem: Problem) -> Question:
    """A RegChain problem without its program."""
    return Question(problem.id, problem.prompt, problem.answer, f"problem {problem.id}")


def read_questions(path: str | Path) -> list[Question]:
    """Read problems from JSON lines; blank lines are skipped.

    Raises:
        ValueError: the file is missing, empty or not text, a line is malformed, or an id appears
            twice; the message names file and line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read problems from {path}: {error}") from error
    lines = enumerate(text.splitlines(), start=1)
    found = [
        parse(line, number, f"{path}, line {number}") for number, line in lines if line.strip()
    ]
    if not found:
        raise ValueError(f"{path} holds no problem; {EXPECTED}")
    first: dict[str, str] = {}
    for question in found:
        if question.id in first:
            raise ValueError(
                f"{question.source}: the id {question.id!r} is that of {first[question.id]}"
            )
        first[question.id] = question.source
    return found


def parse(line: str, number: int, source: str) -> Question:
    """One line of a file."""
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{source} is not JSON ({error}); {EXPECTED}") from error
    if not isinstance(entry, dict) or "prompt" not in entry:
        raise ValueError(f'{source} has no "prompt"; {EXPECTED}')
    if not isinstance(entry["prompt"], str) or not entry["prompt"].strip():
        raise ValueError(f'{source}: "prompt" is empty or not a text; {EXPECTED}')
    name = text_of(entry.get("id"), "id", source)
    answer = text_of(entry.get("answer"), "answer", source)
    return Question(str(number) if name is None else name, entry["prompt"], answer, source)


def text_of(value: object, name: str, source: str) -> str | None:
    """A text or whole number as text; None where the entry is absent or null."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f'{source}: "{name}" is {value!r}; expected a text or a whole number')
    return str(value)


def prompt_lengths(
    questions: Sequence[Question], model: AbstractLanguageModel
) -> Int[np.ndarray, " B"]:
    """Tokens of each prompt; refuses prompts that the model cannot read.

    Raises:
        ValueError: unknown tokens, or prompts that leave no room for a solution; the message
            lists the lines.
    """
    try:
        lengths = lengths_of([question.prompt for question in questions], model)
    except ValueError:
        raise ValueError(listed([q for q in questions if complaint(q, model)], model)) from None
    room = model.max_length - model.max_steps * model.max_step_tokens
    long = [f"{q.source}: {n} tokens" for q, n in zip(questions, lengths, strict=True) if n > room]
    if long:
        raise ValueError(
            f"{len(long)} prompts are too long: of the {model.max_length} tokens that the model "
            f"reads, {room} are left for the prompt:\n" + "\n".join(long[:SHOWN])
        )
    return lengths


def lengths_of(prompts: list[str], model: AbstractLanguageModel) -> Int[np.ndarray, " B"]:
    """Tokens of each prompt."""
    return np.asarray(model.prompt_lengths(model.encode(prompts)))


def complaint(question: Question, model: AbstractLanguageModel) -> str:
    """Why the model cannot read a prompt; empty if it can."""
    try:
        lengths_of([question.prompt], model)
    except ValueError as error:
        return f"{question.source}: {error}"
    return ""


def listed(bad: Sequence[Question], model: AbstractLanguageModel) -> str:
    """One message for several prompts."""
    reasons = [complaint(question, model) for question in bad[:SHOWN]]
    more = f"\n... and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    return f"{len(bad)} prompts cannot be read:\n" + "\n".join(reasons) + more
