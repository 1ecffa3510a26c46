"""Results of problems: one JSON line each, and the particles as arrays.

A line of `answers.jsonl` has

    id             of the problem
    answer         the most probable answer as text; null: no solution was finished
    probability    its posterior probability (the share of votes, for majority)
    distribution   probability of every answer, most probable first; "null" stands for unfinished
    log_evidence   log Zhat; null where the method estimates none
    cost           decoded_tokens, prefilled_tokens, reward_tokens, reward_calls, sequential_passes
    status         "ok", or what went wrong
    correct        whether the answer is the true one; only where that is known

Seconds are those of a whole run and stand in `summary.json`, so that the same run writes the same
lines. Shape letters: B problems, N particles, T steps, S tokens.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jurax.models.language.questions import Question
from jurax.models.language.reasoning import Reasoning
from jurax.ppl import Posterior

UNFINISHED = ""  # in arrays of answers
LEDGER = (
    "decoded_tokens",
    "prefilled_tokens",
    "reward_tokens",
    "reward_calls",
    "sequential_passes",
)
DIGITS = 9  # float32 has 7

Arrays = dict[str, np.ndarray]


def lines_of(questions: Sequence[Question], posterior: Posterior, process: Reasoning) -> list[dict]:
    """One line for each problem of a packed posterior."""
    return [line_of(q, posterior[i], process) for i, q in enumerate(questions)]


def line_of(question: Question, posterior: Posterior, process: Reasoning) -> dict[str, Any]:
    """The line of one problem; see the module docstring.

    A dead population has an empty distribution, no answer, and probability 0.
    """
    found = posterior.distribution(process.answer)
    pairs = list(zip(found.values, found.probabilities, strict=True))
    line = {
        "id": question.id,
        "answer": pairs[0][0] if pairs else None,
        "probability": rounded(pairs[0][1]) if pairs else 0.0,
        "distribution": {key_of(value): rounded(p) for value, p in pairs},
        "log_evidence": rounded(posterior.log_evidence),
        "cost": {name: int(getattr(posterior.cost, name)) for name in LEDGER},
        "status": posterior.status,
    }
    if question.answer is not None:
        line["correct"] = line["answer"] == question.answer
    return line


def arrays_of(posterior: Posterior, process: Reasoning) -> Arrays:
    """Particles of a packed posterior with the answer of each."""
    particles = {name: np.asarray(value) for name, value in posterior.particles.items()}
    num_problems, num_particles = posterior.log_weights.shape
    answers = [
        [answer_of(process, particles, b, n) for n in range(num_particles)]
        for b in range(num_problems)
    ]
    return {
        "answer": np.array(answers, dtype=str),
        "log_weight": np.asarray(posterior.log_weights),
        "log_evidence": np.asarray(posterior.log_evidence),
        "ess": np.asarray(posterior.ess),
        "status": np.asarray(posterior.info["status"]),
        **{
            name: particles[name]
            for name in ("tokens", "length", "finished", "log_odds", "log_prob")
        },
    }


def answer_of(process: Reasoning, particles: Arrays, b: int, n: int) -> str:
    """The answer of particle n of problem b, `UNFINISHED` if there is none."""
    answer = process.answer({name: array[b, n] for name, array in particles.items()})
    return UNFINISHED if answer is None else answer


def take(arrays: Arrays, index: Any) -> Arrays:
    """The problems `index` of every array."""
    return {name: array[index] for name, array in arrays.items()}


def join(parts: Sequence[Arrays]) -> Arrays:
    """Problems of several batches, one after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def to_json(line: Any, **options: Any) -> str:
    """Strict JSON: numbers that are not finite become null.

    Example:
        >>> to_json({"log_evidence": float("nan"), "answer": None})
        '{"log_evidence": null, "answer": null}'
    """
    return json.dumps(finite(line), allow_nan=False, ensure_ascii=False, **options)


def finite(value: Any) -> Any:
    """The same structure with None in place of NaN and infinities."""
    if isinstance(value, dict):
        return {name: finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def key_of(answer: str | None) -> str:
    """The key of an answer in `distribution`."""
    return "null" if answer is None else answer


def rounded(value: Any) -> float:
    """A float with as many digits as mean something."""
    return round(float(value), DIGITS)
