"""The same run, one step at a time from Python: hosted processes, progress bars, checkpoints."""

from pathlib import Path
from typing import Any

import equinox as eqx
from jaxtyping import Array
from rich.progress import Progress

from jurax.inference import loop
from jurax.inference.checkpoint import fingerprint, keep, restore
from jurax.inference.loop import Run
from jurax.ppl import AbstractProcess, Cost, Posterior, random


def run(
    key: Array,
    process: Any,
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
        storage = algorithm.storage(population, process)
        first = loop.start_run(algorithm.kernel, population, process, storage)
        return loop.check_budget(first, process, budget)

    def step(key: Array, current: Run, process: AbstractProcess) -> Run:
        storage = algorithm.storage(current.population, process)
        moved = loop.advance(algorithm.kernel, key, current, process, storage)
        return loop.check_budget(moved, process, budget)

    start, step = compiled(start), compiled(step)
    title = "" if path is None else fingerprint(key, process, algorithm, budget)
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
    return algorithm.conclude(key_steps, loop.finish_run(current), process)
