"""Solving problems by a method, in batches, with every finished batch on disk at once.

Problems are sorted by the length of their prompts and packed into batches of one size, so that the
rows of a batch end at about the same time and few shapes are compiled; the last batch is filled up
by repetition. Batches depend on the problems and the number of particles alone, so that a resumed
run computes the same ones.

Shape letters: B problems, N particles.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Int

from jurax.inference.stopwatch import Stopwatch
from jurax.models.language import summary
from jurax.models.language.archive import write_archive
from jurax.models.language.methods import Setting, process_of, run_method
from jurax.models.language.model import AbstractLanguageModel, AbstractReward
from jurax.models.language.outcome import Outcome
from jurax.models.language.questions import Question, prompt_lengths
from jurax.models.language.results import arrays_of, join, lines_of, take
from jurax.models.language.run_folder import RunFolder
from jurax.ppl.storage import versions

MAX_PROBLEMS = 25  # in a batch
MAX_ROWS = 1600  # particles in a batch, all problems together

Advance = Callable[[int], None]


def solve(
    questions: Sequence[Question],
    setting: Setting,
    output: str | Path,
    *,
    model: AbstractLanguageModel,
    reward: AbstractReward,
    resume: bool = False,
    advance: Advance = lambda count: None,
) -> dict[str, Any]:
    """Solve problems by one method and write the output folder.

    Args:
        questions: what to solve; see `questions.read_questions`.
        setting: method, particles, seed.
        output: a new or empty folder; with `resume`, one that holds this run.
        model: the language model.
        reward: its reward model.
        resume: go on with an interrupted run.
        advance: called with the number of problems that were finished.

    Returns:
        The content of `summary.json`; see `jurax.models.language.summary`.

    Raises:
        ValueError: for unreadable prompts, bad arguments, or an output folder that is in use;
            raised before any work.
    """
    lengths = prompt_lengths(questions, model)
    process_of(setting, model, reward, [questions[0].prompt])  # refuses bad arguments
    run = describe_run(questions, setting, model, reward)
    folder = RunFolder(output, run, existing="resume" if resume else "refuse")
    if folder.complete:
        advance(len(questions))
        return summary.read_summary(folder)
    outcome = run_setting(
        folder, questions, lengths, setting, model=model, reward=reward,
        lines_file="answers.jsonl", advance=advance,
    )  # fmt: skip
    ids = [question.id for question in questions]
    write_archive(
        folder.path / "posterior.nc", ids, outcome.arrays, {**run, "target": outcome.target}
    )
    return summary.write_results(folder, {setting.method: outcome}, run)


def run_setting(
    folder: RunFolder,
    questions: Sequence[Question],
    lengths: Int[np.ndarray, " B"],
    setting: Setting,
    *,
    model: AbstractLanguageModel,
    reward: AbstractReward,
    lines_file: str,
    advance: Advance,
) -> Outcome:
    """Run one method over all problems; batches that are on disk are read instead.

    Lines appear in `lines_file` as batches end, and at the end in the order of the problems.
    """
    folder.write_lines(lines_file, [])
    parts, headers, order = [], [], []
    for index, rows in enumerate(batches(lengths, setting.num_samples)):
        name = f"{setting.method}-{setting.num_particles}-{index:05d}"
        if not folder.has_part(name):
            batch = [questions[row] for row in rows]
            size = batch_size(len(questions), setting.num_samples)
            folder.write_part(name, *run_batch(batch, size, setting, model, reward))
        arrays, header = folder.read_part(name)
        folder.append(lines_file, header["lines"])
        parts.append(arrays)
        headers.append(header)
        order.append(rows)
        advance(len(rows))
    back = np.argsort(np.concatenate(order))
    lines = [line for header in headers for line in header["lines"]]
    outcome = Outcome(
        setting=setting,
        truths=[question.answer for question in questions],
        lines=[lines[i] for i in back],
        arrays=take(join(parts), back),
        target=headers[0]["target"],
        seconds=sum(header["seconds"] for header in headers),
        compile_seconds=sum(header["compile_seconds"] for header in headers),
    )
    folder.write_lines(lines_file, outcome.lines)
    return outcome


def run_batch(
    batch: list[Question],
    size: int,
    setting: Setting,
    model: AbstractLanguageModel,
    reward: AbstractReward,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and header of one batch, filled up to `size` problems while it runs."""
    watch = Stopwatch()
    filled = [batch[i % len(batch)] for i in range(size)]
    with watch:
        process, posterior = run_method(setting, model, reward, filled)
    header = {
        "lines": lines_of(batch, posterior, process),
        "target": posterior.target,
        "seconds": watch.seconds,
        "compile_seconds": watch.compile_seconds,
    }
    return take(arrays_of(posterior, process), slice(len(batch))), header


def batches(lengths: Int[np.ndarray, " B"], num_samples: int) -> list[Int[np.ndarray, " b"]]:
    """Indices of the problems of each batch, by increasing length of their prompts.

    Example:
        >>> import numpy as np
        >>> [rows.tolist() for rows in batches(np.array([9, 5, 9, 5, 7]), num_samples=800)]
        [[1, 3], [4, 0], [2]]
    """
    size = batch_size(len(lengths), num_samples)
    order = np.argsort(lengths, kind="stable")
    return [order[begin : begin + size] for begin in range(0, len(order), size)]


def batch_size(num_problems: int, num_samples: int) -> int:
    """Problems that run together."""
    return max(1, min(num_problems, MAX_PROBLEMS, MAX_ROWS // num_samples))


def describe_run(
    questions: Sequence[Question],
    setting: Setting,
    model: AbstractLanguageModel,
    reward: AbstractReward,
) -> dict[str, Any]:
    """What determines the results of a run, as JSON values, and the versions it was made with."""
    text = repr([(question.id, question.prompt, question.answer) for question in questions])
    return {
        "command": "solve",
        **dataclasses.asdict(setting),
        "num_problems": len(questions),
        "problems": hashlib.sha256(text.encode()).hexdigest()[:16],
        "weights": fingerprint(model, reward),
        "versions": versions(),
    }


def fingerprint(*modules: eqx.Module) -> str:
    """A hash of the arrays and plain fields of models."""
    digest = hashlib.sha256()
    for module in modules:
        fields = [(f.name, getattr(module, f.name)) for f in dataclasses.fields(module)]
        plain = [(name, value) for name, value in fields if isinstance(value, int | float | tuple)]
        digest.update(repr(plain).encode())
        for leaf in jax.tree.leaves(module):
            digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]
