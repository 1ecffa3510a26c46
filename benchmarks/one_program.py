"""One unmodified NumPyro program under five samplers: do their posteriors agree?

    python benchmarks/one_program.py
    python benchmarks/one_program.py --form centred

Stochastic volatility with three parameters, in two forms with the same posterior of them. Every
sampler is run in R independent replicates (chains, or whole runs). A replicate gives, for each
parameter, its mean and its share of draws below the 5, 50 and 95 % points of all samplers together:
shares, because they are unbiased where quantiles of a short replicate are not. Two samplers are
compared by Welch's t over their replicates; the limit is that of Student's t with Welch's degrees
of freedom at alpha divided by the number of comparisons (Bonferroni), two-sided.

Shape letters: S samplers, R replicates, P parameters, D draws, Q statistics (mean and shares).
"""

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan
from scipy import stats

from jurax.inference import (
    HMC,
    NUTS,
    PMMH,
    SMC2,
    ParticleFilter,
    ParticleGibbs,
    TemperedSMC,
    infer,
)
from jurax.models.state_space import StochasticVolatility
from jurax.ppl import bind, sequential

PARAMETERS = ("mean", "persistence", "scale")
PROBABILITIES = (0.05, 0.5, 0.95)
ALPHA = 0.01


def parameters() -> tuple:
    """Mean, persistence and scale of the log variance."""
    mean = numpyro.sample("mean", dist.Normal(-1.0, 1.0))
    persistence = numpyro.sample("persistence", dist.Beta(20.0, 1.5))
    return mean, persistence, numpyro.sample("scale", dist.HalfNormal(0.5))


def volatility(y):
    """Stochastic volatility with three parameters; the state is (log variance - mean) / scale."""
    mean, persistence, scale = parameters()
    z_0 = numpyro.sample("z_0", dist.Normal(0.0, 1 / jnp.sqrt(1 - persistence**2)))

    def step(z, y_t):
        z = numpyro.sample("z", dist.Normal(persistence * z, 1.0))
        numpyro.sample("y", dist.Normal(0.0, jnp.exp((mean + scale * z) / 2)), obs=y_t)
        return z, None

    scan(step, z_0, y)


def centred(y):
    """The same law of data and parameters; the state is the log variance itself.

    Given the states the scale is nearly known, so chains that move both cross small scales slowly.
    """
    mean, persistence, scale = parameters()
    x_0 = numpyro.sample("x_0", dist.Normal(mean, scale / jnp.sqrt(1 - persistence**2)))

    def step(x, y_t):
        x = numpyro.sample("x", dist.Normal(mean + persistence * (x - mean), scale))
        numpyro.sample("y", dist.Normal(0.0, jnp.exp(x / 2)), obs=y_t)
        return x, None

    scan(step, x_0, y)


FORMS = {"standardised": volatility, "centred": centred}


def observations(num_steps: int) -> jax.Array:
    """A simulated series."""
    return StochasticVolatility.simulate(jax.random.key(1), num_steps=num_steps).observations


def algorithms(length: float, replicates: int) -> dict[str, object]:
    """The samplers; `length` scales chains and populations, chains count as replicates."""

    def scaled(number: int) -> int:
        return max(int(number * length), 1)

    return {
        "particle Gibbs": ParticleGibbs(
            20, scaled(4000), scaled(1000), replicates, ancestor_sampling="exact"
        ),
        "PMMH": PMMH(ParticleFilter(150), scaled(2000), scaled(1000), replicates),
        "SMC^2": SMC2(scaled(200), ParticleFilter(150)),
        "tempered SMC": TemperedSMC(scaled(1600), HMC(num_leapfrogs=10), num_moves=32, dense=False),
        "NUTS": NUTS(scaled(600), scaled(600), replicates),
    }


def replicates_of(
    key: jax.Array, y: jax.Array, algorithm: object, number: int, program: Callable
) -> np.ndarray:
    """Equally weighted draws of the parameters, `(R, D, P)`; consumes `key`."""
    is_whole = getattr(algorithm, "takes_programs", False)
    target = bind(program, y) if is_whole else sequential(program, y)
    if hasattr(algorithm, "num_chains"):
        particles = infer(key, target, algorithm).particles
        return np.stack([np.asarray(particles[name]) for name in PARAMETERS], axis=-1)

    @jax.jit
    def run(key):
        key_run, key_draw = jax.random.split(key)
        posterior = infer(key_run, target, algorithm, throw=False)
        rows = jax.random.categorical(key_draw, posterior.log_weights, shape=(4000,))
        return jnp.stack([posterior.particles[name][rows] for name in PARAMETERS], axis=-1)

    return np.stack([np.asarray(run(k)) for k in jax.random.split(key, number)])


def measure(
    key: jax.Array,
    y: jax.Array,
    length: float,
    replicates: int,
    program: Callable = volatility,
    say: Callable = print,
) -> dict[str, np.ndarray]:
    """Draws of every sampler, `(R, D, P)`; consumes `key`."""
    draws = {}
    named = algorithms(length, replicates)
    for (name, algorithm), part in zip(
        named.items(), jax.random.split(key, len(named)), strict=True
    ):
        start = time.process_time()
        draws[name] = replicates_of(part, y, algorithm, replicates, program).astype(np.float64)
        say(f"{name}: {time.process_time() - start:.0f} s of CPU, compilation included")
    return draws


def statistics_of(draws: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Means and shares below pooled quantiles by replicate, `(R, P, Q)`."""
    points = np.mean(  # every sampler has the same say, whatever its number of draws
        [np.quantile(d.reshape(-1, d.shape[-1]), PROBABILITIES, axis=0) for d in draws.values()],
        axis=0,
    )
    return {
        name: np.stack([d.mean(axis=1), *[(d <= p).mean(axis=1) for p in points]], axis=-1)
        for name, d in draws.items()
    }


def compare(found: dict[str, np.ndarray], alpha: float = ALPHA) -> list[dict]:
    """Every pair of samplers: the largest |t| / limit over P x Q statistics, and what it is."""
    pairs = list(itertools.combinations(found, 2))
    shape = next(iter(found.values())).shape[1:]
    level = 1 - alpha / (2 * len(pairs) * np.prod(shape))
    rows = []
    for first, second in pairs:
        parts = [found[name].var(axis=0, ddof=1) / len(found[name]) for name in (first, second)]
        tiny = np.finfo(float).tiny  # both constant: equal gives t = 0, unequal a huge t
        spread = np.maximum(parts[0] + parts[1], tiny)
        least = [p**2 / (len(found[n]) - 1) for p, n in zip(parts, (first, second), strict=True)]
        freedom = np.maximum(spread**2 / np.maximum(sum(least), tiny), 1.0)
        t = (found[first].mean(axis=0) - found[second].mean(axis=0)) / np.sqrt(spread)
        limit = stats.t.ppf(level, freedom)
        worst = np.unravel_index(np.argmax(np.abs(t) / limit), shape)
        rows.append({"pair": (first, second), "t": float(t[worst]), "limit": float(limit[worst])})
    return rows


def error_in_sd(draws: dict[str, np.ndarray]) -> dict[str, float]:
    """Largest Monte Carlo error of a posterior mean, in posterior standard deviations."""
    sd = np.mean([d.std(axis=(0, 1)) for d in draws.values()], axis=0)
    return {
        name: float(np.max(d.mean(axis=1).std(axis=0, ddof=1) / np.sqrt(len(d)) / sd))
        for name, d in draws.items()
    }


def table(draws: dict[str, np.ndarray], rows: list[dict]) -> str:
    """Markdown: posteriors by sampler, then the pairs."""
    errors = error_in_sd(draws)
    head = "| sampler | " + " | ".join(PARAMETERS) + " | error of means, sd |"
    lines = [head, "|---" * (len(PARAMETERS) + 2) + "|"]
    for name, d in draws.items():
        cells = []
        for p in range(len(PARAMETERS)):
            low, middle, high = np.quantile(d[..., p], PROBABILITIES)
            cells.append(f"{d[..., p].mean():.3f} ({low:.3f}, {middle:.3f}, {high:.3f})")
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {errors[name]:.3f} |")
    lines += ["", "| pair | t of the worst statistic | limit |", "|---|---|---|"]
    for row in rows:
        lines.append(f"| {' - '.join(row['pair'])} | {row['t']:.2f} | {row['limit']:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=float, default=1.0, help="scales chains and populations")
    parser.add_argument("--replicates", type=int, default=16)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--form", choices=FORMS, default="standardised")
    parser.add_argument("--output", type=Path, default=Path("out/benchmarks"))
    arguments = parser.parse_args()
    y = observations(arguments.steps)
    key = jax.random.key(arguments.seed)
    draws = measure(key, y, arguments.length, arguments.replicates, FORMS[arguments.form])
    rows = compare(statistics_of(draws))
    report = table(draws, rows)
    print(report)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / f"one_program_{arguments.form}.md").write_text(report)


if __name__ == "__main__":
    main()
