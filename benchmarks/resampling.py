"""Systematic resampling alone: jurax against blackjax, cuthbert and particles.

    python benchmarks/resampling.py --rounds 15

One interleaved run, as in `kernels.py`: in each round every library, in turn, draws N ancestors
several times from the same N log-weights (the state of a filter; blackjax and particles normalise
them first). The JAX libraries draw in a scan, as a filter does; particles in a Python loop. Medians
over rounds of CPU time (all threads) in ns per particle, compilation excluded. The log-weights are
N(0, 1); particles works in double precision.

Shape letters: N particles.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import particles.resampling
from blackjax.smc.resampling import systematic as blackjax_systematic
from cuthbertlib.resampling.systematic import resampling as cuthbert_systematic
from kernels import line, number

from jurax.inference import Systematic

REPEATS = {10_000: 100, 100_000: 20, 1_000_000: 4}  # draws of one round


def contenders(log_weights: np.ndarray, repeats: int) -> dict[str, Callable[[int], object]]:
    """`draws(seed)` of each library: `repeats` draws from the same weights."""
    num, logs, double = len(log_weights), jnp.asarray(log_weights), log_weights.astype(np.float64)
    in_jax = {
        "jurax": lambda key, x: Systematic()(key, x, num),
        "blackjax": lambda key, x: blackjax_systematic(key, jax.nn.softmax(x), num),
        "cuthbert": lambda key, x: cuthbert_systematic(key, x, x, num)[0],
    }
    exp, systematic = particles.resampling.exp_and_normalise, particles.resampling.systematic
    return {
        **{name: scanned(draw, logs, repeats) for name, draw in in_jax.items()},
        "particles": lambda seed: [systematic(exp(double), num) for _ in range(repeats)],
    }


def scanned(draw: Callable, log_weights: jax.Array, repeats: int) -> Callable[[int], object]:
    """`repeats` draws in one compiled scan; every ancestor is used."""

    @jax.jit
    def run(key, log_weights):
        def step(log_weights, key):
            ancestors = draw(key, log_weights)
            # The next weights depend on the ancestors, as in a filter: nothing leaves the loop.
            return log_weights + 0.0 * ancestors[-1], jnp.sum(ancestors)

        return jax.lax.scan(step, log_weights, jax.random.split(key, repeats))[1]

    return lambda seed: jax.block_until_ready(run(jax.random.key(seed), log_weights))


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    names = ("jurax", "blackjax", "cuthbert", "particles")
    print(line("N", *names, "fastest peer / jurax"))
    print(line(*["---"] * (2 + len(names))))
    for num, repeats in REPEATS.items():
        log_weights = np.random.default_rng(0).normal(size=num).astype(np.float32)
        cost = measure(contenders(log_weights, repeats), repeats, arguments.rounds, num)
        ratio = min(cost[name] for name in names[1:]) / cost["jurax"]
        print(line(f"{num:,}", *(number(cost[n], 2) for n in names), number(ratio, 2)), flush=True)


def measure(draws: dict[str, Callable], repeats: int, rounds: int, num: int) -> dict[str, float]:
    """Median CPU time of each contender in ns per particle."""
    seconds: dict[str, list[float]] = {name: [] for name in draws}
    for draw in draws.values():
        draw(0)  # compile
    for round_ in range(rounds):
        for name, draw in draws.items():
            start = time.process_time()
            draw(1 + round_)
            seconds[name].append((time.process_time() - start) / repeats)
    return {name: 1e9 / num * statistics.median(values) for name, values in seconds.items()}


if __name__ == "__main__":
    main()
