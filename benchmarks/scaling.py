"""Cost of the bootstrap filter against N and T, and seconds of compilation of every sampler.

    python benchmarks/scaling.py

Stochastic volatility. CPU time, medians, compilation excluded in the first part: systematic
resampling at every step, N from 100 to 10^6 at T = 100 and T from 100 to 10^5 at N = 1,000. Linear
cost is a flat line of ns per particle and step; small N pay for the launches of a step. Second:
CPU seconds of a first call less those of a second one with another key.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from one_program import volatility
from rich.progress import track

from contenders import with_jurax
from contenders.cases import make_case
from jurax.inference import (
    HMC,
    IBIS,
    MCMC,
    NUTS,
    PIMH,
    PMMH,
    SMC2,
    SVI,
    AuxiliaryFilter,
    ParallelTempering,
    ParticleFilter,
    ParticleGibbs,
    Smoother,
    TemperedSMC,
    infer,
    plots,
)
from jurax.ppl import bind, sequential

POPULATIONS = (100, 1_000, 10_000, 100_000, 1_000_000)
LENGTHS = (100, 1_000, 10_000, 100_000)


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, default=Path("out/benchmarks"))
    arguments = parser.parse_args()
    by_population = [filtering(n, 100, arguments.rounds) for n in track(POPULATIONS, "N")]
    by_length = [filtering(1_000, t, arguments.rounds) for t in track(LENGTHS, "T")]
    compiled = {name: compilation(run) for name, run in track(list(samplers().items()), "jit")}
    print(table(by_population, by_length, compiled))
    arguments.output.mkdir(parents=True, exist_ok=True)
    draw(by_population, by_length).savefig(arguments.output / "scaling.png", dpi=150)


def filtering(num_particles: int, num_times: int, rounds: int) -> float:
    """Median CPU ns per particle and step."""
    process = with_jurax.state_space_model(make_case("sv", num_times))
    algorithm = ParticleFilter(num_particles, ess_threshold=1.0)
    run = eqx.filter_jit(lambda key: infer(key, process, algorithm).log_evidence)
    run(jax.random.key(0)).block_until_ready()
    seconds = [cpu(lambda seed=seed: run(jax.random.key(seed))) for seed in range(rounds)]
    return 1e9 * statistics.median(seconds) / (num_particles * num_times)


def cpu(run: Callable) -> float:
    """CPU seconds of one call, all threads."""
    start = time.process_time()
    jax.block_until_ready(run())
    return time.process_time() - start


def samplers() -> dict[str, Callable]:
    """Every sampler on the program of `one_program.py`, T = 200."""
    y = jnp.asarray(make_case("sv", 200).observations)
    program, process = bind(volatility, y), sequential(volatility, y)
    inner = ParticleFilter(100)
    runs = {
        "particle filter": (process, ParticleFilter(1000)),
        "auxiliary filter": (
            with_jurax.state_space_model(make_case("sv", 200)),
            AuxiliaryFilter(1000, lookahead=lambda x, t: -0.1 * jnp.abs(x)),
        ),
        "smoother, backward": (process.at(values()), Smoother(100, method="backward")),
        "particle Gibbs": (process, ParticleGibbs(50, 20, ancestor_sampling="exact")),
        "PIMH": (process.at(values()), PIMH(inner, 20)),
        "PMMH": (process, PMMH(inner, 20)),
        "SMC^2": (process, SMC2(20, filter=inner)),
        "tempered SMC": (program, TemperedSMC(100)),
        "IBIS (scan-free)": (scan_free(), IBIS(100, move=HMC())),
        "parallel tempering": (program, ParallelTempering(HMC(), 20)),
        "MCMC, HMC": (program, MCMC(HMC(), 20, 20, 1)),
        "NUTS, 4 chains": (program, NUTS(20, 20)),
        "SVI": (program, SVI(num_steps=100)),
    }
    return {
        name: lambda seed, target=target, algorithm=algorithm: (
            infer(jax.random.key(seed), target, algorithm).log_weights
        )
        for name, (target, algorithm) in runs.items()
    }


def values() -> dict:
    """Parameters for the methods that need them fixed."""
    return {"mean": jnp.array(-1.0), "persistence": jnp.array(0.95), "scale": jnp.array(0.2)}


def scan_free():
    """A regression, for data tempering."""
    from contenders import samplers as regression

    return bind(regression.model, *regression.data())


def compilation(run: Callable) -> float:
    """CPU seconds of the first call less those of the second."""
    first = cpu(lambda: run(0))
    return first - cpu(lambda: run(1))


def table(by_population: list, by_length: list, compiled: dict) -> str:
    """Markdown."""
    lines = ["| N (T = 100) | ns per particle and step |", "|---|---|"]
    lines += [f"| {n:,} | {x:.1f} |" for n, x in zip(POPULATIONS, by_population, strict=True)]
    lines += ["", "| T (N = 1,000) | ns per particle and step |", "|---|---|"]
    lines += [f"| {t:,} | {x:.1f} |" for t, x in zip(LENGTHS, by_length, strict=True)]
    lines += ["", "| sampler | compilation, CPU s |", "|---|---|"]
    lines += [f"| {name} | {x:.1f} |" for name, x in compiled.items()]
    return "\n".join(lines)


@matplotlib.rc_context(plots.STYLE)
def draw(by_population: list, by_length: list) -> Figure:
    """Total seconds against N and against T, with lines of slope one."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    panels = (
        (left, POPULATIONS, by_population, 100, "particles N (T = 100)"),
        (right, LENGTHS, by_length, 1_000, "steps T (N = 1,000)"),
    )
    for ax, sizes, cost, other, label in panels:
        seconds = np.array(sizes) * other * np.array(cost) * 1e-9
        ax.loglog(sizes, seconds, "o-", color=plots.COLORS[0], label="measured")
        slope = seconds[-1] * np.array(sizes) / sizes[-1]
        ax.loglog(sizes, slope, "--", color="#666666", label="slope 1")
        ax.set_xlabel(label)
        ax.set_ylabel("CPU seconds of a run")
        ax.legend()
    return figure


if __name__ == "__main__":
    main()
