"""The synthetic figure of the top-two paper, drawn again, with the default beside it.

    python benchmarks/crowd_synthetic.py --repetitions 30 --output out/crowd_synthetic

Fifty workers, 500 tasks, five classes; each cell is answered with probability s = .1, ..., 1. Four
scenarios of p and q (see `SCENARIOS`). Every repetition draws new workers, tasks and answers, and
all methods see the same ones. `PUBLISHED` holds the numbers behind the authors' figure: pair error
of their second stage, means of ten draws (Synt_Data of their repository, Jeong and Chung 2023).
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from rich.progress import track

from jurax.models.crowd import Answers, OneCoinDawidSkene, TopTwo

SHARES = np.round(np.arange(0.1, 1.01, 0.1), 1)
NUM_WORKERS, NUM_TASKS, NUM_CLASSES = 50, 500, 5
PUBLISHED = {
    "easy": [0.737, 0.671, 0.609, 0.597, 0.589, 0.530, 0.524, 0.516, 0.496, 0.480],
    "hard": [0.735, 0.575, 0.508, 0.452, 0.398, 0.390, 0.358, 0.356, 0.347, 0.330],
    "few smart": [0.906, 0.861, 0.797, 0.708, 0.642, 0.608, 0.551, 0.524, 0.496, 0.469],
    "high variance": [0.715, 0.537, 0.455, 0.369, 0.336, 0.284, 0.266, 0.254, 0.225, 0.207],
}
METHODS = {
    "released": lambda: TopTwo(method="released"),
    "spectral": lambda: TopTwo(method="spectral"),
    "default": TopTwo,
    "one coin": OneCoinDawidSkene,
}


def reliabilities(rng: np.random.Generator, scenario: str) -> np.ndarray:
    """P of each worker."""
    if scenario == "few smart":
        return np.r_[rng.uniform(0.9, 0.999, 5), rng.uniform(0.001, 0.1, NUM_WORKERS - 5)]
    return rng.uniform(0.001, 0.999, NUM_WORKERS)


def confusions(rng: np.random.Generator, scenario: str) -> np.ndarray:
    """Q of each task."""
    if scenario == "easy":
        return rng.uniform(0.901, 0.999, NUM_TASKS)
    q = rng.uniform(0.501, 0.599, NUM_TASKS)
    if scenario == "high variance":
        q[: NUM_TASKS // 2] = rng.uniform(0.6, 0.899, NUM_TASKS // 2)
    return q


def draw(rng: np.random.Generator, scenario: str, share: float):
    """(Answers, g, h) of one repetition."""
    p, q = reliabilities(rng, scenario), confusions(rng, scenario)
    first = rng.integers(NUM_CLASSES, size=NUM_TASKS)
    second = rng.integers(NUM_CLASSES - 1, size=NUM_TASKS)
    second = second + (second == first)  # as the authors draw it; not quite uniform
    shape = (NUM_WORKERS, NUM_TASKS)
    informed, right = rng.random(shape) < p[:, None], rng.random(shape) < q[None, :]
    label = np.where(right, first[None, :], second[None, :])
    label = np.where(informed, label, rng.integers(NUM_CLASSES, size=shape))
    worker, task = np.nonzero(rng.random(shape) < share)
    table = {"task": task, "worker": worker, "label": label[worker, task]}
    return Answers(table, classes=range(NUM_CLASSES)), first, second


def errors(method: str, answers: Answers, first: np.ndarray, second: np.ndarray) -> dict:
    """Shares of tasks with a wrong g, h and pair."""
    model = METHODS[method]().fit(answers)
    found, tasks = model.estimate_, np.asarray(answers.tasks)
    if found.pairs is None:  # the runner-up is the second answer
        order = np.argsort(-found.probas, axis=1)
        g, h = order[:, 0], order[:, 1]
    else:
        g, h = np.divmod(found.pairs.reshape(len(tasks), -1).argmax(axis=1), NUM_CLASSES)
    wrong_g, wrong_h = g != first[tasks], h != second[tasks]
    return {"g": wrong_g.mean(), "h": wrong_h.mean(), "pair": (wrong_g | wrong_h).mean()}


def run(repetitions: int, seed: int) -> pd.DataFrame:
    """One row for each scenario, share, repetition and method."""
    rows = []
    cells = [(name, share) for name in PUBLISHED for share in SHARES]
    for number, (scenario, share) in enumerate(track(cells, "scenarios x shares")):
        for repetition in range(repetitions):
            rng = np.random.default_rng([seed, number, repetition])
            data = draw(rng, scenario, share)
            for method in METHODS:
                where = {"scenario": scenario, "share": share, "repetition": repetition}
                rows.append({**where, "method": method, **errors(method, *data)})
    return pd.DataFrame(rows)


def summary(rows: pd.DataFrame) -> dict:
    """The comparisons that decide."""
    keys = ["scenario", "share"]
    means = rows.groupby([*keys, "method"])[["g", "pair"]].mean().unstack("method")
    published = pd.Series(
        {(name, s): x for name, xs in PUBLISHED.items() for s, x in zip(SHARES, xs, strict=True)}
    )
    published.index.names = keys
    away = (means["pair"]["released"] - published).abs()
    paired = rows.pivot(index=[*keys, "repetition"], columns="method", values=["g", "pair"])
    loss = {name: paired[name]["default"] - paired[name]["released"] for name in ("g", "pair")}
    mean = {name: values.groupby(keys).mean() for name, values in loss.items()}
    error = {name: values.groupby(keys).sem() for name, values in loss.items()}
    cell = ("few smart", 0.2)
    return {
        "released within .03 of the published means, of 40": int((away <= 0.03).sum()),
        "largest distance from a published mean": float(away.max()),
        "default less released, largest mean over points": {
            name: [float(mean[name].max()), str(mean[name].idxmax())] for name in mean
        },
        "default less released, few smart, s = .2": {
            name: [float(mean[name][cell]), float(error[name][cell])] for name in mean
        },
    }


def draw_figure(rows: pd.DataFrame, path: Path) -> None:
    """Pair error against the share of answered cells, a panel for each scenario."""
    figure, axes = plt.subplots(1, 4, figsize=(14, 4), sharey=True, layout="constrained")
    for axis, (scenario, published) in zip(axes, PUBLISHED.items(), strict=True):
        part = rows[rows["scenario"] == scenario]
        for method in METHODS:
            cells = part[part["method"] == method].groupby("share")["pair"]
            mean, error = cells.mean(), 2 * cells.sem()
            axis.errorbar(mean.index, mean, error, label=method, capsize=2)
        axis.plot(SHARES, published, "k+", markersize=10, label="published (released)")
        axis.set(title=scenario, xlabel="share of cells answered")
    axes[0].set(ylabel="share of tasks with a wrong pair", ylim=(0, 1))
    axes[-1].legend(frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("out/crowd_synthetic"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    rows = run(options.repetitions, options.seed)
    rows.to_csv(options.output / "errors.csv", index=False)
    content = summary(rows)
    (options.output / "summary.json").write_text(json.dumps(content, indent=2) + "\n")
    draw_figure(rows, options.output / "crowd_synthetic.png")
    table = rows.groupby(["scenario", "method", "share"])["pair"].mean().unstack("share").round(3)
    print(table.to_string())
    print(json.dumps(content, indent=2))


if __name__ == "__main__":
    main()
