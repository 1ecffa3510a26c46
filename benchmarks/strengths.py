"""Which strength of the dialled reward suits the particle filter on the shipped language model?

    python benchmarks/strengths.py

Runs the filter on validation problems with each strength and prints, for N = 16 and 64, the log
score of the right answer,

    mean log((N P(right answer) + 1 / K) / (N + 1)),    K = 19 numbers and no answer

(one more vote is spread over the K answers, as in `jurax.models.language.calibrate`), the accuracy,
the mean stated probability and its ECE. The strength with the best log score at N = 64 is
`DIALLED_STRENGTH` in `benchmarks/reasoning.py`. `calibrate` fits on importance-weighted pools and
finds 0.52 for this model and reward, less than the filter bears.
"""

import time
from typing import Annotated

import jax
import numpy as np
import typer

from jurax.inference import ParticleFilter, infer
from jurax.inference.calibration import calibration_floor, expected_calibration_error
from jurax.models.language import regchain
from jurax.models.language.default import load_default
from jurax.models.language.dialled_reward import DialledReward
from jurax.models.language.model import AbstractLanguageModel
from jurax.models.language.reasoning import Reasoning
from jurax.models.language.regchain import Problem

NUM_ANSWERS = 20
BATCH = 25


def run(
    strengths: Annotated[str, typer.Option(help="with commas")] = "0.6,1.0,1.2,1.4,1.8",
    num_problems: Annotated[int, typer.Option(help="validation problems")] = 200,
    seed: Annotated[int, typer.Option(help="of problems and samples")] = 3,
) -> None:
    """Print one row for each strength and number of particles."""
    model, _ = load_default()
    problems = sorted(
        regchain.problems("validation", num_problems, seed), key=lambda p: p.num_steps
    )
    batches = [problems[i : i + BATCH] for i in range(0, num_problems, BATCH)]
    print("| strength | N | log score | accuracy | stated | ECE (floor) | seconds |")
    print("|---|---|---|---|---|---|---|")
    for strength in map(float, strengths.split(",")):
        for size in (16, 64):
            started = time.perf_counter()
            votes = [vote for batch in batches for vote in filtered(model, batch, strength, size)]
            row = summarize(votes, problems, size)
            print(f"| {strength:g} | {size} | {row} | {time.perf_counter() - started:.0f} |")


def filtered(
    model: AbstractLanguageModel, batch: list[Problem], strength: float, size: int
) -> list[dict]:
    """The filter's distribution of answers for each problem; no answer does not vote."""
    process = Reasoning(
        model,
        DialledReward(),
        [p.prompt for p in batch],
        strength=strength,
        max_steps=max(p.num_steps for p in batch) + 1,
    )
    posterior = infer(jax.random.key(size), process, ParticleFilter(size, history=False))
    laws = [posterior[b].distribution(process.answer) for b in range(len(batch))]
    votes = [dict(zip(law.values, law.probabilities, strict=True)) for law in laws]
    return [{answer: p for answer, p in vote.items() if answer is not None} for vote in votes]


def summarize(votes: list[dict], problems: list[Problem], size: int) -> str:
    """Log score, accuracy, mean stated probability and ECE as cells of a table."""
    truth = np.array([v.get(p.answer, 0.0) for v, p in zip(votes, problems, strict=True)])
    chosen = [max(v, key=lambda a, v=v: v[a], default=None) for v in votes]
    stated = np.array([v.get(a, 0.0) for v, a in zip(votes, chosen, strict=True)])
    right = np.array([a == p.answer for a, p in zip(chosen, problems, strict=True)])
    score = np.mean(np.log((size * truth + 1 / NUM_ANSWERS) / (size + 1)))
    error = expected_calibration_error(stated, right)
    floor = calibration_floor(jax.random.key(0), stated)
    return f"{score:.3f} | {right.mean():.3f} | {stated.mean():.3f} | {error:.3f} ({floor:.3f})"


if __name__ == "__main__":
    typer.run(run)
