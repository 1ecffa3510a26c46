"""The same run, one step at a time from Python: hosted processes, progress bars, checkpoints."""

import os
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array
from rich.progress import Progress

from jurax.inference import loop
from jurax.inference.loop import Run
from jurax.ppl import AbstractProcess, Cost, Posterior, random


def run(
    key: Array,
    process: AbstractProcess,
    algorithm: Any,
    *,
    budget: Cost | None,
    progress: bool,
    checkpoint: str | Path | None,
) -> Posterior:
    """Run an algorithm step by step; equal to `algorithm.run` for the same key."""
    process = algorithm.prepare(process)
    path = None if checkpoint is None else Path(checkpoint)
    key_init, key_steps = random.split(key)
    compiled = (lambda f: f) if process.hosted else eqx.filter_jit

    def start(key: Array, process: AbstractProcess) -> Run:
        population = algorithm.init(key, process, algorithm.num_particles)
        history = algorithm.keeps_history(population, process)
        first = loop.start_run(algorithm.kernel, population, process, history)
        return loop.check_budget(first, process, budget)

    def step(key: Array, current: Run, process: AbstractProcess) -> Run:
        moved = loop.advance(algorithm.kernel, key, current, process)
        return loop.check_budget(moved, process, budget)

    start, step = compiled(start), compiled(step)
    title = fingerprint(key, process, algorithm)
    current = start(key_init, process)
    if path is not None and path.exists():
        current = restore(path, title, current)
    with Progress(disable=not progress, transient=True) as bar:
        task = bar.add_task(type(algorithm).__name__, total=process.num_steps)
        while bool(loop.is_running(current, process)):
            current = step(key_steps, current, process)
            bar.update(task, completed=int(current.population.time))
            if path is not None:
                keep(path, title, current)
    if path is not None:
        path.unlink(missing_ok=True)
    return algorithm.report(loop.finish_run(current), process)


def fingerprint(key: Array, process: AbstractProcess, algorithm: Any) -> str:
    """What a checkpoint must agree with to be resumed."""
    data = jax.random.key_data(key).tolist()
    return f"{type(process).__name__}|{process.target}|{process.num_steps}|{algorithm!r}|{data}"


def keep(path: Path, title: str, current: Run) -> None:
    """Write the state atomically."""
    temporary = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(temporary, "wb") as file:
        file.write(title.encode() + b"\n")
        eqx.tree_serialise_leaves(file, _raw_keys(current))
    os.replace(temporary, path)


def restore(path: Path, title: str, like: Run) -> Run:
    """Read a state; one of another run is refused."""
    with open(path, "rb") as file:
        found = file.readline().rstrip(b"\n").decode(errors="replace")
        if found != title:
            raise ValueError(
                f"{path} is a checkpoint of another run (key, target, steps or algorithm differ). "
                "Give the same arguments, or another file"
            )
        return _typed_keys(eqx.tree_deserialise_leaves(file, _raw_keys(like)), like)


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _raw_keys(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def _typed_keys(tree: Any, like: Any) -> Any:
    return jax.tree.map(lambda x, y: jax.random.wrap_key_data(x) if _is_key(y) else x, tree, like)
