"""Every member of the family on real answer sets, beside crowd-kit in the same process.

    python benchmarks/crowd_real.py --data ../shared/data/crowd --output out/crowd_real

For each set: percent of wrong labels (expected over random ties for the vote), log loss and ECE on
the tasks with a known label, and the log score of held-out answers, which needs no known labels
and by which the defaults are chosen. Of repeated answers of a worker to a task the last counts.
crowd-kit's methods run with its defaults; those that fail or take longer than `--limit` seconds (in
a process of their own) are left out by name.
"""

import argparse
import json
import multiprocessing
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from rich.progress import track

from jurax.models.crowd import (
    GLAD,
    KOS,
    MACE,
    MMSR,
    Answers,
    DawidSkene,
    MajorityVote,
    OneCoinDawidSkene,
    TopTwo,
    Wawa,
    ZeroBasedSkill,
    calibration,
    held_out,
)

SETS = ["adult2", "bluebird", "color", "dog", "relevance", "rte", "weather_cf", "web"]
FAMILY: dict[str, Callable] = {
    "vote": MajorityVote,
    "wawa": Wawa,
    "zero-based skill": ZeroBasedSkill,
    "one coin": OneCoinDawidSkene,
    "one coin, learned prior": lambda: OneCoinDawidSkene(priors="learned"),
    "Dawid-Skene, uniform prior": lambda: DawidSkene(priors="uniform"),
    "Dawid-Skene": DawidSkene,
    "GLAD": GLAD,
    "GLAD, learned prior": lambda: GLAD(priors="learned"),
    "MACE": MACE,
    "M-MSR": MMSR,
    "KOS": KOS,
    "top two": TopTwo,
    "top two, spectral": lambda: TopTwo(method="spectral"),
    "top two, released": lambda: TopTwo(method="released"),
}
BINARY, MANY = {"KOS"}, {"top two", "top two, spectral", "top two, released"}
PEERS = ["MajorityVote", "Wawa", "ZeroBasedSkill", "OneCoinDawidSkene", "DawidSkene", "GLAD"]
PEERS += ["MACE", "MMSR", "KOS"]


def read(folder: Path) -> tuple[Answers, pd.Series]:
    """Answers and known labels."""
    truth = pd.read_csv(folder / "truth.csv")
    answers = Answers(folder / "answers.csv", repeats="last")
    return answers, pd.Series(truth["label"].to_numpy(), truth["task"].to_numpy())


def members_for(answers: Answers) -> dict:
    """The members that the number of classes admits."""
    left_out = MANY if answers.num_classes == 2 else BINARY
    return {name: make() for name, make in FAMILY.items() if name not in left_out}


def percent_wrong(probas: pd.DataFrame, truth: pd.Series) -> float:
    """Expected over random ties."""
    chances = probas.reindex(truth.index).to_numpy()
    best = chances >= chances.max(axis=1, keepdims=True) - 1e-9
    columns = probas.columns.get_indexer(truth)
    right = best[np.arange(len(truth)), columns] * (columns >= 0) / best.sum(axis=1)
    return float(100 * (1 - right.mean()))


def ours(answers: Answers, truth: pd.Series) -> pd.DataFrame:
    """One row for each member."""
    members, rows = members_for(answers), {}
    held = held_out(answers, members)
    for name, member in members.items():
        probas = member.fit_predict_proba(answers)
        found = calibration(probas, truth)
        rows[name] = {
            "wrong": percent_wrong(probas, truth),
            "log_loss": found.log_loss,
            "ece": found.ece,
            **held.loc[name].to_dict(),
        }
    return pd.DataFrame(rows).T


def peer(name: str, frame: pd.DataFrame, truth: pd.Series, results) -> None:
    """Percent of wrong labels of one of crowd-kit's methods; runs in a child."""
    import crowdkit.aggregation as crowdkit

    warnings.simplefilter("ignore")
    labels = getattr(crowdkit, name)().fit_predict(frame)
    results.put(float(100 * (labels.reindex(truth.index) != truth).mean()))


def theirs(answers: Answers, truth: pd.Series, limit: float) -> dict[str, float | None]:
    """Percent wrong by method; None where it failed or took too long."""
    context, found = multiprocessing.get_context("spawn"), {}
    frame = pd.DataFrame(
        {
            "task": np.asarray(answers.tasks)[answers.task],
            "worker": np.asarray(answers.workers)[answers.worker],
            "label": np.asarray(answers.classes)[answers.label],
        }
    )
    for name in PEERS:
        if name == "KOS" and answers.num_classes > 2:
            continue
        results = context.Queue()
        child = context.Process(target=peer, args=(name, frame, truth, results))
        child.start()
        child.join(limit)
        if child.is_alive():
            child.kill()
        found[name] = results.get() if child.exitcode == 0 else None
    return found


def second_answers(folder: Path, answers: Answers, truth: pd.Series) -> dict[str, float]:
    """Percent wrong of g, h and the pair, where the second answer is known."""
    table = pd.read_csv(folder / "second.csv")
    second = pd.Series(table["label"].to_numpy(), table["task"].to_numpy())
    model = TopTwo().fit(answers)
    pairs = model.pairs_.set_index("task").reindex(second.index)
    first = pairs["first"] == truth.reindex(second.index)
    return {
        "g": percent_wrong(model.probas_, truth),
        "h": float(100 * (model.second_.reindex(second.index) != second).mean()),
        "pair": float(100 * (1 - (first & (pairs["second"] == second)).mean())),
    }


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/crowd"))
    parser.add_argument("--output", type=Path, default=Path("out/crowd_real"))
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--limit", type=float, default=300.0)
    parser.add_argument("--without-peers", action="store_true")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    content = {}
    for name in track(options.sets, "sets"):
        answers, truth = read(options.data / name)
        table = ours(answers, truth)
        content[name] = {"ours": table.to_dict(orient="index")}
        if (options.data / name / "second.csv").exists():
            content[name]["default top two"] = second_answers(options.data / name, answers, truth)
        if not options.without_peers:
            content[name]["crowd-kit, percent wrong"] = theirs(answers, truth, options.limit)
        print(f"\n{name}: {answers}\n{table.round(3).to_string()}")
        print({key: value for key, value in content[name].items() if key != "ours"})
        (options.output / "crowd_real.json").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
