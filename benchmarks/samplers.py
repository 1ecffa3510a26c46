"""Samplers on whole programs side by side: tempered SMC against blackjax, NUTS against numpyro.

    python benchmarks/samplers.py --rounds 9

One interleaved run, CPU time (`time.process_time`, all threads), compilation excluded, as in
`kernels.py`. Tempered SMC is compared at equal precision: the cost of an estimate of the log
evidence is its CPU time times its mean squared error, because the error falls as one over the
square root of the work; the reference value is the mean of long runs of both. For NUTS the ratio of
CPU times is shown.
"""

import argparse
import json
import math
import statistics
import time
from pathlib import Path

from kernels import line, machine
from rich.progress import track

from contenders import samplers

LONG = 20_000  # particles of the runs that give the reference value


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--particles", type=int, default=4000)
    parser.add_argument("--output", type=Path, default=Path("out/benchmarks"))
    arguments = parser.parse_args()
    rows = [tempered(kind, arguments) for kind in ("rwmh", "hmc")]
    chains = nuts(arguments)
    report = tempered_table(rows) + "\n" + nuts_table(chains)
    print(report)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "samplers.md").write_text(report)
    content = {"machine": machine(), "tempered": rows, "nuts": chains}
    (arguments.output / "samplers.json").write_text(json.dumps(content, indent=1) + "\n")


def tempered(kind: str, arguments: argparse.Namespace) -> dict:
    """Both tempered samplers with one kind of move."""
    makers = {"jurax": samplers.jurax_tempered, "blackjax": samplers.blackjax_tempered}
    reference = statistics.mean(samplers.jurax_tempered("hmc", LONG)(seed) for seed in range(4))
    runs = {name: make(kind, arguments.particles) for name, make in makers.items()}
    seconds, values = interleaved(runs, arguments.rounds, kind)
    errors = {
        name: math.sqrt(statistics.mean((v - reference) ** 2 for v in values[name]))
        for name in runs
    }
    median = {name: statistics.median(seconds[name]) for name in runs}
    cost = {name: median[name] * errors[name] ** 2 for name in runs}
    return {
        "move": kind,
        "num_particles": arguments.particles,
        "seconds": median,
        "rmse": errors,
        "bias": {name: statistics.mean(values[name]) - reference for name in runs},
        "time_ratio": median["blackjax"] / median["jurax"],
        "equal_precision_ratio": cost["blackjax"] / cost["jurax"],
    }


def nuts(arguments: argparse.Namespace) -> list[dict]:
    """NUTS of both doors, one chain and four."""
    rows = []
    for num_chains in (1, 4):
        runs = {
            "jurax": samplers.jurax_nuts(num_chains),
            "numpyro": samplers.numpyro_nuts(num_chains),
        }
        seconds, values = interleaved(runs, arguments.rounds, f"NUTS, {num_chains} chains")
        median = {name: statistics.median(seconds[name]) for name in runs}
        mean = {name: statistics.mean(values[name]) for name in runs}
        ratio = median["jurax"] / median["numpyro"]
        rows.append({"chains": num_chains, "seconds": median, "mean": mean, "ratio": ratio})
    return rows


def interleaved(runs: dict, rounds: int, label: str) -> tuple[dict, dict]:
    """CPU seconds and results of each contender, round robin."""
    for run in runs.values():
        run(10_000)  # compile
    seconds, values = {name: [] for name in runs}, {name: [] for name in runs}
    for round_ in track(range(rounds), label, transient=True):
        for name, run in runs.items():
            start = time.process_time()
            values[name].append(run(1 + round_))
            seconds[name].append(time.process_time() - start)
    return seconds, values


def tempered_table(rows: list[dict]) -> str:
    """Markdown."""
    head = ["move", "N", "jurax s", "blackjax s", "jurax rmse", "blackjax rmse"]
    lines = [line(*head, "time ratio", "at equal precision"), line(*["---"] * 8)]
    for row in rows:
        times = [f"{row['seconds'][name]:.2f}" for name in ("jurax", "blackjax")]
        errors = [f"{row['rmse'][name]:.3f}" for name in ("jurax", "blackjax")]
        ratios = [f"{row['time_ratio']:.2f}", f"{row['equal_precision_ratio']:.2f}"]
        lines.append(line(row["move"], f"{row['num_particles']:,}", *times, *errors, *ratios))
    return "\n".join(lines) + "\n"


def nuts_table(rows: list[dict]) -> str:
    """Markdown."""
    lines = [line("NUTS chains", "jurax s", "numpyro s", "ratio"), line(*["---"] * 4)]
    for row in rows:
        times = [f"{row['seconds'][name]:.3f}" for name in ("jurax", "numpyro")]
        lines.append(line(str(row["chains"]), *times, f"{row['ratio']:.2f}"))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
