"""The particle filter against the usual read-outs, at equal decoded tokens, on unseen problems.

    python benchmarks/reasoning.py --reward dialled --num-problems 500 --seed 2
    python benchmarks/reasoning.py --reward shipped --num-problems 500

One pool of 64 samples for each problem serves every read-out of independent samples; interactive
methods (filter, beam) decode their own particles, as many. Tokens are counted, discarded ones
included. Writes a JSON of every figure and a table in Markdown. Dials were fixed on validation
problems (see the model card and `benchmarks/strengths.py`); nothing here is fitted.
"""

import json
import time
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import typer
from rich.progress import Progress

from jurax.inference import BeamSearch, BestOfN, ParticleFilter, infer
from jurax.inference.calibration import calibration_floor, expected_calibration_error
from jurax.inference.comparison import mean_with_error, paired_difference
from jurax.inference.search.best_of_n import aggregate
from jurax.models.language import regchain
from jurax.models.language.default import load_default
from jurax.models.language.dialled_reward import DialledReward
from jurax.models.language.reasoning import Reasoning
from jurax.models.language.reward_targets import log_potentials

SIZES = (4, 16, 64)
BATCH = 25
DIALLED_STRENGTH = 1.4  # best log score of the filter on validation problems: strengths.py


class Table:
    """Read-outs by method and size: the chosen answer's probability, its rightness, the tokens."""

    def __init__(self, num_problems: int):
        """Empty columns for `num_problems` problems."""
        self.num_problems = num_problems
        self.columns: dict[tuple[str, int], dict[str, np.ndarray]] = {}

    def add(self, method: str, size: int, problem: int, vote: dict, truth: str, tokens: float):
        """File one read-out: `vote` maps answers to weights."""
        empty = {name: np.full(self.num_problems, np.nan) for name in ("right", "p", "tokens")}
        column = self.columns.setdefault((method, size), empty)
        best = max(vote, key=lambda a: vote[a]) if vote else None
        total = sum(vote.values())
        column["right"][problem] = best == truth
        column["p"][problem] = vote[best] / total if total > 0 else 0.0
        column["tokens"][problem] = tokens


def tally(answers: list, weights: np.ndarray) -> dict:
    """Weight of each answer; samples without an answer do not vote."""
    vote: dict = {}
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None and weight > 0:
            vote[answer] = vote.get(answer, 0.0) + float(weight)
    return vote


def softmax(x: np.ndarray) -> np.ndarray:
    """Normalised exponentials."""
    e = np.exp(x - x.max())
    return e / e.sum()


def pool_votes(answers: list, log_odds: np.ndarray, target: str, strength: float) -> dict:
    """Votes of every read-out of a pool of independent samples."""
    exists = ~np.isnan(log_odds)
    last = np.asarray(aggregate("last", log_odds, exists))
    least = np.asarray(aggregate("min", log_odds, exists))
    final = np.take_along_axis(log_odds, np.maximum(exists.sum(-1) - 1, 0)[:, None], -1)[:, 0]
    potential = strength * np.asarray(log_potentials(target, log_odds))
    finished = np.array([a is not None for a in answers])

    def argmax(scores):
        if not finished.any():
            return np.zeros(len(scores))
        return (np.arange(len(scores)) == np.argmax(np.where(finished, scores, -np.inf))) * 1.0

    return {
        "majority": np.ones(len(answers)),
        "best-of-N, last": argmax(last),
        "best-of-N, min": argmax(least),
        "majority weighted by last reward": np.exp(last),
        "majority weighted by last odds": softmax(final),
        "importance-weighted vote": softmax(potential),
    }


def run(
    reward: Annotated[str, typer.Option(help="dialled or shipped")] = "shipped",
    split: Annotated[str, typer.Option(help="validation or test")] = "test",
    num_problems: Annotated[int, typer.Option(help="how many")] = 500,
    seed: Annotated[int, typer.Option(help="of problems and samples")] = 1,
    reward_target: Annotated[str, typer.Option(help="odds, emission or value")] = "odds",
    strength: Annotated[float | None, typer.Option(help="default: as fitted")] = None,
    max_beam_rows: Annotated[int, typer.Option(help="largest N of the beam search")] = 64,
    output: Annotated[Path, typer.Option(help="folder")] = Path("out/bench"),
) -> None:
    """Run every method and write the table."""
    model, shipped = load_default()
    if strength is None and reward == "dialled":
        strength = DIALLED_STRENGTH
    judge = {"shipped": shipped, "dialled": DialledReward()}[reward]
    problems = regchain.problems(split, num_problems, seed)
    order = sorted(range(num_problems), key=lambda i: problems[i].num_steps)
    batches = [order[i : i + BATCH] for i in range(0, num_problems, BATCH)]
    table, started = Table(num_problems), time.perf_counter()
    with Progress() as bar:
        task = bar.add_task(f"{reward} reward", total=len(batches))
        for rows in batches:
            batch = [problems[i] for i in rows]
            process = Reasoning(
                model,
                judge,
                [p.prompt for p in batch],
                reward_target=reward_target,
                strength=strength,
                max_steps=max(p.num_steps for p in batch) + 1,
            )
            keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(np.array(rows))
            file_pool(table, rows, batch, process, keys)
            for size in SIZES:
                algorithm = ParticleFilter(size, history=False)
                file_run(
                    table, "particle filter, vote", size, rows, batch, process, keys, algorithm
                )
                if size > max_beam_rows:
                    continue
                algorithm = BeamSearch(max(1, size // 4), 4, history=False)
                file_run(table, "beam search, width 4", size, rows, batch, process, keys, algorithm)
            bar.advance(task)
    figures = summarize(table, process.target)
    figures |= {"reward": reward, "split": split, "seed": seed, "num_problems": num_problems}
    figures["seconds"] = time.perf_counter() - started
    output.mkdir(parents=True, exist_ok=True)
    name = f"{reward}-{split}-{reward_target}"
    (output / f"{name}.json").write_text(json.dumps(figures, indent=1))
    (output / f"{name}.md").write_text(markdown(figures))
    print(markdown(figures))


def file_pool(table: Table, rows, batch, process: Reasoning, keys) -> None:
    """Draw the pool of a batch and file its read-outs for every size."""
    pool_keys = jax.vmap(lambda k: jax.random.fold_in(k, 0))(keys)
    posterior = infer(pool_keys, process, BestOfN(max(SIZES), history=False))
    particles = jax.tree.map(np.asarray, posterior.particles)
    for b, (row, problem) in enumerate(zip(rows, batch, strict=True)):
        one = [{k: v[b, n] for k, v in particles.items()} for n in range(max(SIZES))]
        answers = [process.answer(particle) for particle in one]
        strength = float(process.strength)
        for size in SIZES:
            log_odds = particles["log_odds"][b, :size]
            tokens = particles["length"][b, :size].sum()
            votes = pool_votes(answers[:size], log_odds, process.reward_target, strength)
            for method, weights in votes.items():
                vote = tally(answers[:size], weights)
                table.add(method, size, row, vote, problem.answer, tokens)
            share = np.mean([a == problem.answer for a in answers[:size]])
            covered = {problem.answer: 1.0} if share > 0 else {}
            table.add("coverage (oracle)", size, row, covered, problem.answer, tokens)


def file_run(table: Table, method: str, size: int, rows, batch, process, keys, algorithm) -> None:
    """Run an interactive method on a batch and file its vote."""
    offset = size + (1000 if method.startswith("beam") else 0)
    run_keys = jax.vmap(lambda k: jax.random.fold_in(k, offset))(keys)
    posterior = infer(run_keys, process, algorithm)
    for b, (row, problem) in enumerate(zip(rows, batch, strict=True)):
        one = posterior[b]
        found = one.distribution(process.answer)
        vote = dict(zip(found.values, found.probabilities, strict=True))
        vote.pop(None, None)
        table.add(method, size, row, vote, problem.answer, float(one.cost.decoded_tokens))


def summarize(table: Table, target: str) -> dict:
    """Accuracy, tokens, calibration, and differences to the filter problem by problem."""
    filtered = {size: table.columns["particle filter, vote", size]["right"] for size in SIZES}
    methods = {}
    for (method, size), column in table.columns.items():
        accuracy = mean_with_error(column["right"])
        difference = paired_difference(filtered[size], column["right"])
        correct = column["right"].astype(bool)
        methods.setdefault(method, {})[size] = {
            "accuracy": accuracy.value,
            "standard_error": accuracy.standard_error,
            "filter_minus_this": difference.value,
            "difference_error": difference.standard_error,
            "decoded_tokens": float(column["tokens"].mean()),
            "ece": expected_calibration_error(column["p"], correct),
            "ece_floor": calibration_floor(jax.random.key(0), column["p"]),
        }
    growth = paired_difference(filtered[64], filtered[16])
    return {
        "target": target,
        "methods": methods,
        "filter_64_minus_16": {"value": growth.value, "standard_error": growth.standard_error},
    }


def markdown(figures: dict) -> str:
    """The table of accuracies and paired differences."""
    lines = [
        f"{figures['reward']} reward, {figures['num_problems']} {figures['split']} problems, seed "
        f"{figures['seed']}; target {figures['target']}; {figures['seconds']:.0f} s",
        "",
        "| method | " + " | ".join(f"N = {n} | filter - this" for n in SIZES) + " |",
        "|---|" + "---|---|" * len(SIZES),
    ]
    for method, sizes in figures["methods"].items():
        cells = []
        for n in SIZES:
            f = sizes.get(n)
            if f is None:
                cells += ["-", "-"]
                continue
            cells.append(f"{f['accuracy']:.3f} ({f['standard_error']:.3f})")
            cells.append(f"{f['filter_minus_this']:+.3f} ({f['difference_error']:.3f})")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    tokens = [figures["methods"]["majority"][n]["decoded_tokens"] for n in SIZES]
    filtered = [figures["methods"]["particle filter, vote"][n]["decoded_tokens"] for n in SIZES]
    ratio = ", ".join(f"{a:.0f} / {b:.0f}" for a, b in zip(filtered, tokens, strict=True))
    growth = figures["filter_64_minus_16"]
    lines += [
        "",
        f"Decoded tokens a problem, filter / pool: {ratio}. Filter at 64 minus filter at 16: "
        f"{growth['value']:+.3f} ({growth['standard_error']:.3f}).",
        "",
        "| calibration | " + " | ".join(f"N = {n}: ECE (floor)" for n in SIZES) + " |",
        "|---|" + "---|" * len(SIZES),
    ]
    for method in ("majority", "importance-weighted vote", "particle filter, vote"):
        sizes = figures["methods"][method]
        cells = [f"{sizes[n]['ece']:.3f} ({sizes[n]['ece_floor']:.3f})" for n in SIZES]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    typer.run(run)
