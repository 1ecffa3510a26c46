"""Bootstrap filters side by side: jurax, particles, blackjax, cuthbert, and the floor.

    python benchmarks/kernels.py --rounds 9

One interleaved run: in each round every contender filters the same data once, in turn, so that a
slow minute of the machine hits all of them. Reported are medians over rounds of CPU time
(`time.process_time`, all threads) in ns per particle and step, compilation excluded; the ratio
fastest peer / slowest form of jurax; and the ratio to the floor (noise, propagation, weights,
log-sum, no resampling). The log-evidence of each contender is averaged over rounds and shown, so
that a fast wrong answer is seen: exact for lg1 and lg10 by the Kalman filter; its standard
deviation over rounds tells whether the estimates are equally good. `jurax / floor` takes, where
everybody resamples at every step, the floor with one resampling and gather. Rows are printed as
they are finished. benchmarks/README.md says how to install the peers.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import statistics
import time
from pathlib import Path

import jax
from rich.progress import track

from contenders.cases import Case, kalman_log_evidence, make_case

# name: (module, function). The first two are ours, the last is no filter.
CONTENDERS = {
    "jurax": ("with_jurax", "prepare"),
    "jurax program": ("with_jurax", "prepare_program"),
    "particles": ("with_particles", "prepare"),
    "blackjax": ("with_blackjax", "prepare"),
    "cuthbert": ("with_cuthbert", "prepare"),
    "floor": ("floor", "prepare"),
    "floor + resampling": ("floor", "prepare_resampled"),
}
FLOORS = ("floor", "floor + resampling")
OURS = ("jurax", "jurax program")
PEERS = ("particles", "blackjax", "cuthbert")
MODES = {"always": 1.0, "ESS < N/2": 0.5}
SHORT = 200  # times at 100,000 particles; 1,000 otherwise


def main() -> None:
    """Measure every setting and print, then store, the table."""
    arguments = parse()
    rows = []
    for name in arguments.cases:
        for num_particles in arguments.sizes:
            case = make_case(name, SHORT if num_particles >= 100_000 else 1000)
            for mode, threshold in MODES.items():
                rows.append(measure(case, num_particles, mode, threshold, arguments))
                print(table(rows[-1:]), flush=True)
    report = f"{table(rows)}\nLog-evidence, mean (sd of one run):\n\n{evidences(rows)}"
    print(report)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "kernels.md").write_text(report)
    content = {"machine": machine(), "rounds": arguments.rounds, "rows": rows}
    (arguments.output / "kernels.json").write_text(json.dumps(content, indent=1) + "\n")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--cases", nargs="+", default=["lg1", "sv"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[1000, 10_000, 100_000])
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS))
    parser.add_argument("--output", type=Path, default=Path("out/benchmarks"))
    return parser.parse_args()


def measure(
    case: Case, num_particles: int, mode: str, threshold: float, arguments: argparse.Namespace
) -> dict:
    """Time all contenders on one setting, round robin."""
    runs, compiling = {}, {}
    for name in arguments.contenders:
        module, function = CONTENDERS[name]
        prepare = getattr(importlib.import_module(f"contenders.{module}"), function)
        run = prepare(case, num_particles, threshold)
        if run is not None:
            start = time.process_time()
            run(0)
            compiling[name] = time.process_time() - start
            runs[name] = run
    seconds = {name: [] for name in runs}
    evidence = {name: [] for name in runs}
    label = f"{case.name}, N = {num_particles}, {mode}"
    for round_ in track(range(arguments.rounds), label, transient=True):
        for name, run in runs.items():
            start = time.process_time()
            evidence[name].append(run(1 + round_))
            seconds[name].append(time.process_time() - start)
    scale = 1e9 / (num_particles * case.num_times)
    cost = {name: scale * statistics.median(values) for name, values in seconds.items()}
    return {
        "case": case.name,
        "num_particles": num_particles,
        "num_times": case.num_times,
        "mode": mode,
        "ns_per_particle_step": cost,
        "spread": {name: scale * (max(v) - min(v)) for name, v in seconds.items()},
        "peer_over_jurax": ratio(cost, PEERS, OURS),
        "jurax_over_floor": ratio(cost, OURS, FLOORS[-1:] if FLOORS[-1] in cost else FLOORS[:1]),
        "first_run_seconds": compiling,
        "mean_log_evidence": {name: statistics.mean(v) for name, v in evidence.items()},
        "sd_log_evidence": {name: statistics.stdev(v) for name, v in evidence.items()},
        "exact_log_evidence": kalman_log_evidence(case),
    }


def ratio(cost: dict[str, float], above: tuple[str, ...], below: tuple[str, ...]) -> float | None:
    """Fastest of those above over the slowest of those below, of those that ran."""
    first = [cost[name] for name in above if name in cost]
    second = [cost[name] for name in below if name in cost]
    return min(first) / max(second) if first and second else None


def table(rows: list[dict]) -> str:
    """Markdown: ns per particle and step, and the two ratios."""
    names = [name for name in CONTENDERS if any(name in r["ns_per_particle_step"] for r in rows)]
    lines = [line("model", "N", "mode", *names, "peer / jurax", "jurax / floor")]
    lines.append(line(*["---"] * (5 + len(names))))
    for row in rows:
        cells = [number(row["ns_per_particle_step"].get(name), 1) for name in names]
        ratios = [number(row[key], 2) for key in ("peer_over_jurax", "jurax_over_floor")]
        lines.append(line(row["case"], f"{row['num_particles']:,}", row["mode"], *cells, *ratios))
    return "\n".join(lines) + "\n"


def evidences(rows: list[dict]) -> str:
    """Markdown: mean log-evidence of the contenders that are filters, and the exact value."""
    names = [name for name in CONTENDERS if any(name in r["mean_log_evidence"] for r in rows)]
    names = [name for name in names if name not in FLOORS]
    lines = [line("model", "N", "mode", *names, "exact"), line(*["---"] * (4 + len(names)))]
    for row in rows:
        means, sds = row["mean_log_evidence"], row["sd_log_evidence"]
        cells = [f"{number(means.get(n), 1)} ({number(sds.get(n), 2)})" for n in names]
        exact = number(row["exact_log_evidence"], 1)
        lines.append(line(row["case"], f"{row['num_particles']:,}", row["mode"], *cells, exact))
    return "\n".join(lines) + "\n"


def line(*cells: str) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def number(value: float | None, digits: int) -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def machine() -> dict:
    """Where and with what the figures were taken."""
    names = ("jax", "jaxlib", "numpyro", "particles", "blackjax", "cuthbert", "numpy", "numba")
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "backend": jax.default_backend(),
        "versions": versions,
    }


def processor() -> str:
    """Model name of the processor, as Linux tells it."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
