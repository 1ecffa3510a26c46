"""What filtering costs on top of plain sampling, with the same engine in one interleaved run.

    python benchmarks/decode.py

Contenders, each one compiled program for all problems:

    plain                  sample N solutions, no reward
    plain + reward         the same with the reward model reading every token
    filter                 particle filter, resampling when ESS < N / 2
    filter, every step     particle filter, resampling after every step

The floor is arithmetic: operations of the dense layers and of attention, and the bytes of weights
and caches that a token must read. CPU seconds, medians of interleaved rounds.
"""

import json
import time
from pathlib import Path
from typing import Annotated

import equinox as eqx
import jax
import numpy as np
import typer
from flax import nnx

from jurax.inference import ImportanceSampling, ParticleFilter, SelfConsistency
from jurax.models.language import regchain
from jurax.models.language.default import load_default
from jurax.models.language.reasoning import Reasoning


def floor(model, process: Reasoning, num_particles: int) -> dict:
    """Operations and bytes of one decoded token, averaged over a solution."""
    decoder = model.decoder
    config = nnx.merge(decoder.structure, decoder.weights).config
    embedding = config.vocab_size * config.width
    weights = sum(x.size for x in jax.tree.leaves(decoder.weights)) - embedding
    context = float(np.mean(process.context.lengths)) + process.max_tokens / 2
    per_position = 2 * config.num_layers * config.num_kv_heads * config.head_size
    attention = 4 * config.num_layers * config.num_heads * config.head_size * context
    rows = process.context.lengths.shape[0] * num_particles
    return {
        "operations_per_token": 2 * weights + attention,
        "cache_bytes_per_token": 4 * per_position * context,
        "weight_bytes_per_pass": 4 * weights,
        "weight_bytes_per_token": 4 * weights / rows,
    }


def run(
    num_problems: Annotated[int, typer.Option(help="packed problems")] = 25,
    num_particles: Annotated[int, typer.Option(help="N")] = 16,
    rounds: Annotated[int, typer.Option(help="interleaved rounds")] = 9,
    output: Annotated[Path, typer.Option(help="JSON file")] = Path("out/bench/decode.json"),
) -> None:
    """Time the contenders and print their ratios."""
    model, reward = load_default()
    problems = regchain.problems("validation", num_problems, 0, lengths=(6, 6))
    process = Reasoning(model, reward, [p.prompt for p in problems], max_steps=7)
    contenders = {
        "plain": SelfConsistency(num_particles, history=False),
        "plain + reward": ImportanceSampling(num_particles, history=False),
        "filter": ParticleFilter(num_particles, history=False),
        "filter, every step": ParticleFilter(num_particles, ess_threshold=1.0, history=False),
    }
    compiled = {name: eqx.filter_jit(algorithm.run) for name, algorithm in contenders.items()}
    seconds: dict[str, list] = {name: [] for name in contenders}
    wall: dict[str, list] = {name: [] for name in contenders}
    tokens: dict[str, list] = {name: [] for name in contenders}
    for round_ in range(rounds + 1):  # the first round compiles
        keys = jax.random.split(jax.random.key(round_), num_problems)
        for name, function in compiled.items():
            cpu, clock = time.process_time(), time.perf_counter()
            posterior = jax.block_until_ready(function(keys, process))
            if round_:
                seconds[name].append(time.process_time() - cpu)
                wall[name].append(time.perf_counter() - clock)
                tokens[name].append(int(posterior.cost.decoded_tokens.sum()))
    per_token = {
        name: [s / n for s, n in zip(seconds[name], tokens[name], strict=True)]
        for name in contenders
    }
    result: dict = {"floor": floor(model, process, num_particles), "contenders": {}}
    for name in contenders:
        against = {
            other: float(np.median(np.divide(per_token[name], per_token[other])))
            for other in ("plain", "plain + reward")
        }
        result["contenders"][name] = {
            "cpu_microseconds_per_token": 1e6 * float(np.median(per_token[name])),
            "tokens_per_wall_second": float(np.median(np.divide(tokens[name], wall[name]))),
            "ratio_to": against,
        }
    operations = result["floor"]["operations_per_token"]
    for figures in result["contenders"].values():
        figures["gflops_per_cpu_second"] = operations / figures["cpu_microseconds_per_token"] / 1e3
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    typer.run(run)
