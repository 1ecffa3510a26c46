"""Time of the crowd's EM loops beside crowd-kit, in one interleaved run.

    python benchmarks/crowd_speed.py --rounds 5 --output out/crowd_speed

20,000 tasks, 500 workers, five answers a task, five classes, drawn from the top-two model. Both
libraries run the same algorithm from the same start with the same rule: stop when the
log-likelihood per answer rises by less than 1e-5 (MACE: 50 steps, 10 restarts). So ours runs
without smoothing and with learned class shares here. The log-likelihoods that are compared come
from one function of each side's fitted parameters, in double precision. GLAD and MACE of crowd-kit
run once, since they take a minute. Times are wall clock from table to labels; ours without
compilation, which is recorded apart. Then time and memory of ours by number of answers.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import crowdkit.aggregation as crowdkit
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from rich.progress import track
from scipy.special import expit, logsumexp

from jurax.models.crowd import GLAD, MACE, Answers, DawidSkene, OneCoinDawidSkene, TopTwo

SLOW = {"GLAD", "MACE"}
OURS: dict[str, Callable] = {
    "Dawid-Skene": lambda: DawidSkene(smoothing=0, diagonal=0, priors="learned"),
    "one coin": lambda: OneCoinDawidSkene(smoothing=0, priors="learned"),
    "GLAD": GLAD,
    "MACE": lambda: MACE(n_iter=50, tol=0.0),
    "Dawid-Skene, default": DawidSkene,
    "top two": TopTwo,
}
THEIRS: dict[str, Callable] = {
    "Dawid-Skene": crowdkit.DawidSkene,
    "one coin": crowdkit.OneCoinDawidSkene,
    "GLAD": crowdkit.GLAD,
    "MACE": crowdkit.MACE,
}
SIZES = [10_000, 30_000, 100_000, 300_000, 1_000_000]


def draw(num_answers: int, seed: int = 0) -> pd.DataFrame:
    """Five answers to each task by 500 workers (at a million answers: 5,000)."""
    rng, num_tasks, num_classes = np.random.default_rng(seed), num_answers // 5, 5
    num_workers = max(500, num_answers // 200)
    first = rng.integers(num_classes, size=num_tasks)
    second = (first + rng.integers(1, num_classes, size=num_tasks)) % num_classes
    q, p = rng.uniform(0.5, 1, num_tasks), rng.uniform(0.2, 0.9, num_workers)
    task = np.repeat(np.arange(num_tasks), 5)
    # Distinct workers of a task: a random start and a random stride of a prime modulus do not meet.
    start, stride = rng.integers(num_workers, size=num_tasks), rng.integers(1, 97, size=num_tasks)
    worker = (start[:, None] + stride[:, None] * np.arange(5)).ravel() % num_workers
    label = np.where(rng.random(len(task)) < q[task], first[task], second[task])
    guess = rng.integers(num_classes, size=len(task))
    label = np.where(rng.random(len(task)) < p[worker], label, guess)
    return pd.DataFrame({"task": task, "worker": worker, "label": label})


# ------------------------------------------------------------------ log-likelihood per answer


def log_likelihood(name: str, model, table: pd.DataFrame) -> float:
    """Of all answers under the fitted parameters (for GLAD with its log-priors), per answer."""
    by_answer = {
        "Dawid-Skene": matrices,
        "one coin": accuracies,
        "GLAD": products,
        "MACE": habits,
    }[name](model, table)
    joint = pd.DataFrame(by_answer).groupby(table["task"].to_numpy()).sum().to_numpy()
    priors = np.full(5, 0.2)
    if name in ("Dawid-Skene", "one coin"):
        priors = model.priors_.reindex(range(5)).to_numpy()
    total = logsumexp(joint + np.log(np.maximum(priors, 1e-10)), axis=1).sum()
    if name == "GLAD":
        total -= 0.5 * (((model.alphas_ - 1) ** 2).sum() + ((model.betas_ - 1) ** 2).sum())
    return float(total / len(table))


def matrices(model, table: pd.DataFrame) -> np.ndarray:
    """Log pi[c, y] of each answer."""
    rows = pd.MultiIndex.from_frame(table[["worker", "label"]])
    errors = model.errors_.reindex(columns=range(5)).reindex(rows).fillna(0)
    return np.log(np.maximum(errors.to_numpy(), 1e-10))


def spread(right: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Log P(y | c) where errors are spread evenly."""
    right = np.clip(right, 1e-10, 1 - 1e-10)[:, None]
    return np.log(np.where(label[:, None] == np.arange(5), right, (1 - right) / 4))


def accuracies(model, table: pd.DataFrame) -> np.ndarray:
    """The one-coin model."""
    return spread(model.skills_.reindex(table["worker"]).to_numpy(), table["label"].to_numpy())


def products(model, table: pd.DataFrame) -> np.ndarray:
    """GLAD."""
    ability = model.alphas_.reindex(table["worker"]).to_numpy()
    easiness = model.betas_.reindex(table["task"]).to_numpy()
    return spread(expit(ability * np.exp(easiness)), table["label"].to_numpy())


def habits(model, table: pd.DataFrame) -> np.ndarray:
    """MACE at the posterior means of theta and xi."""
    worker, label = table["worker"].to_numpy(), table["label"].to_numpy()
    if isinstance(model, MACE):
        theta, habit = model.skills_.reindex(worker).to_numpy(), model.thetas_.reindex(worker)
        habit = habit[list(range(5))].to_numpy()
    else:  # rows are workers in order of appearance, columns classes in order of appearance
        workers, rows = pd.factorize(worker)[0], pd.unique(label)
        known = model.spamming_ / model.spamming_.sum(axis=1, keepdims=True)
        shares = model.thetas_ / model.thetas_.sum(axis=1, keepdims=True)
        theta, habit = known[workers, 1], shares[workers][:, np.argsort(rows)]
    spam = (1 - theta) * habit[np.arange(len(label)), label]
    return np.log(theta[:, None] * (label[:, None] == np.arange(5)) + spam[:, None])


# ------------------------------------------------------------------ time


def timed(make: Callable, table) -> tuple[float, object]:
    """(Seconds, fitted model)."""
    start = time.perf_counter()
    model = make().fit(table)
    return time.perf_counter() - start, model


def compare(rounds: int) -> dict:
    """Medians of interleaved rounds, and the log-likelihoods."""
    table = draw(100_000)
    first = {name: timed(make, table)[0] for name, make in OURS.items()}  # compiles
    seconds: dict[tuple, list[float]] = {}
    models = {}
    for number in track(range(rounds), "rounds"):
        for side, makers in (("jurax", OURS), ("crowd-kit", THEIRS)):
            for name, make in makers.items():
                if side == "crowd-kit" and name in SLOW and number > 0:
                    continue
                spent, models[side, name] = timed(make, table.copy())
                seconds.setdefault((side, name), []).append(spent)
    median = {key: statistics.median(values) for key, values in seconds.items()}
    rows = {}
    for name in OURS:
        rows[name] = {
            "jurax": median["jurax", name],
            "first call": first[name],
            "steps": models["jurax", name].estimate_.num_iterations,
        }
        if name in THEIRS:
            rows[name]["crowd-kit"] = median["crowd-kit", name]
            rows[name]["ratio"] = median["crowd-kit", name] / median["jurax", name]
            ours, peers = (
                log_likelihood(name, models[side, name], table) for side in ("jurax", "crowd-kit")
            )
            rows[name] |= {"jurax log-likelihood": ours, "crowd-kit log-likelihood": peers}
    return rows


def grow() -> pd.DataFrame:
    """Seconds and peak memory of ours by number of answers; a process for each."""
    rows = []
    for name in track(("Dawid-Skene, default", "top two"), "models x sizes"):
        for size in SIZES:
            command = [sys.executable, __file__, "--child", name, str(size)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append({"model": name, "answers": size, **json.loads(done.stdout)})
    return pd.DataFrame(rows)


def child(name: str, size: int) -> None:
    """Fit twice, 20 steps; print the second time and the peak memory of the process."""
    answers = Answers(draw(size))

    def make():
        model = OURS[name]()
        model.n_iter, model.tol = 20, 0.0
        return model

    timed(make, answers)
    spent, _ = timed(make, answers)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": spent, "peak_gib": peak}))


def draw_figure(rows: pd.DataFrame, path: Path) -> None:
    """Seconds against answers, on logarithmic axes, with a line of slope one."""
    figure, axis = plt.subplots(figsize=(5, 4), layout="constrained")
    for name, part in rows.groupby("model"):
        axis.loglog(part["answers"], part["seconds"], "o-", label=name)
        scale = part["seconds"].iloc[-1] / part["answers"].iloc[-1]
        axis.loglog(part["answers"], scale * part["answers"], "k:", linewidth=1)
    axis.plot([], [], "k:", label="linear")
    axis.set(xlabel="answers", ylabel="seconds of 20 EM steps")
    axis.legend(frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("out/crowd_speed"))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.child:
        child(options.child[0], int(options.child[1]))
        return
    options.output.mkdir(parents=True, exist_ok=True)
    growth = grow()
    draw_figure(growth, options.output / "crowd_speed.png")
    print(growth.round(3).to_string())
    rows = compare(options.rounds)
    content = {"side by side": rows, "growth": growth.to_dict(orient="records")}
    (options.output / "crowd_speed.json").write_text(json.dumps(content, indent=2) + "\n")
    print(pd.DataFrame(rows).T.round(5).to_string())


if __name__ == "__main__":
    main()
