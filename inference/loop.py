"""The driver of steps: one compiled loop for traceable processes, a Python loop for hosted ones.

Both run the same `advance`; nothing of the algorithm is here. Infos are written into storage that
is allocated before the loop, one slot for each step; records and ancestors of a history likewise.
Shape letters: B problems, N particles, T steps.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from jurax.inference.compose import step_key
from jurax.inference.kernel import AbstractKernel, Info, active_rows
from jurax.ppl import AbstractProcess, Cost, Population
from jurax.ppl.leaves import allocate, move_axis, store
from jurax.ppl.population import INVALID, INVALID_OUT_OF_BUDGET, OK, OUT_OF_BUDGET


class Run(eqx.Module):
    """The state of a loop.

    Attributes:
        population: the current population.
        cost: what was spent so far.
        info: infos by step, `(T, *B, ...)` inside the loop and `(*B, T, ...)` after it.
        records: what `record` returned by step, `(T + 1, *B, N, ...)`, or None.
    """

    population: Population
    cost: Cost
    info: Info
    records: PyTree


# What is stored of a step: `(population, process) -> pytree` with axes `(*B, N, ...)`.
Recorder = Callable[[Population, AbstractProcess], PyTree]


class Storage(eqx.Module):
    """What a run keeps of its steps besides their infos.

    Attributes:
        record: what is stored of each step, or None.
        ancestors: whether the ancestors of every step are kept, `(*B, T, N)`.
    """

    record: Recorder | None = None
    ancestors: bool = True


NO_HISTORY = Storage()
RECORDS = Storage(
    record=lambda population, process: process.record(population.particles, population.time)
)


def start_run(
    kernel: AbstractKernel,
    population: Population,
    process: AbstractProcess,
    storage: Storage = NO_HISTORY,
) -> Run:
    """Allocate the storage of a loop, filled with the info of steps that are not made."""
    num_steps = process.num_steps
    idle = {**kernel.idle_info(population), "ess": jnp.zeros_like(population.ess)}
    dropped = ("cost",) if storage.ancestors else ("cost", "ancestors")
    idle = {name: x for name, x in idle.items() if name not in dropped}
    info = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_steps, *x.shape)), idle)
    records = None
    if storage.record is not None:
        first = storage.record(population, process)
        records = jax.tree.map(lambda x: store(allocate(x, num_steps + 1), x, 0), first)
    cost = jax.tree.map(jnp.asarray, process.cost(None, population.particles))
    return Run(population=population, cost=cost, info=info, records=records)


def advance(
    kernel: AbstractKernel,
    key: Array,
    run: Run,
    process: AbstractProcess,
    storage: Storage = NO_HISTORY,
) -> Run:
    """Make one step and file its info and record."""
    time = run.population.time
    population, info = kernel.step(step_key(key, time), run.population, process)
    spent = info.pop("cost", Cost())
    # A sum of int32 counts is int64 in double precision; the ledger keeps its types.
    cost = jax.tree.map(lambda a, b: (a + b).astype(a.dtype), run.cost, spent)
    info["ess"] = population.ess
    records = run.records
    if storage.record is not None:
        record = storage.record(population, process)
        records = jax.tree.map(lambda s, x: store(s, x, population.time), records, record)
    kept = {name: info[name] for name in run.info}
    filed = jax.tree.map(lambda s, x: store(s, x, time), run.info, kept)
    return Run(population=population, cost=cost, info=filed, records=records)


def check_budget(run: Run, process: AbstractProcess, budget: Cost | None) -> Run:
    """Report problems that could exceed the budget in the next step; they are not extended."""
    if budget is None:
        return run
    population = run.population
    bound = jax.tree.map(lambda a, b: a + b, run.cost, process.cost_bound(population.particles))
    over = ~bound.within(budget) & jnp.any(active_rows(population, process), axis=-1)
    status = population.status
    for before, after in ((OK, OUT_OF_BUDGET), (INVALID, INVALID_OUT_OF_BUDGET)):
        status = jnp.where(over & (population.status == before), after, status)
    return eqx.tree_at(lambda r: r.population.status, run, status)


def is_running(run: Run, process: AbstractProcess) -> Array:
    """Whether another step is due."""
    return (run.population.time < process.num_steps) & jnp.any(active_rows(run.population, process))


def run_steps(
    kernel: AbstractKernel,
    key: Array,
    population: Population,
    process: AbstractProcess,
    *,
    storage: Storage = NO_HISTORY,
    budget: Cost | None = None,
) -> Run:
    """Step until `num_steps` or until no row is active; consumes `key` (folded by step)."""
    run = check_budget(start_run(kernel, population, process, storage), process, budget)

    def body(run: Run) -> Run:
        return check_budget(advance(kernel, key, run, process, storage), process, budget)

    if process.hosted:
        while is_running(run, process):
            run = body(run)
    elif process.num_steps > 0:
        run = jax.lax.while_loop(lambda run: is_running(run, process), body, run)
    return finish_run(run)


def finish_run(run: Run) -> Run:
    """Move the axis of steps behind the problems."""
    depth = run.population.status.ndim

    def move(tree: Any) -> Any:
        return jax.tree.map(lambda x: move_axis(x, 0, depth), tree)

    return Run(run.population, run.cost, move(run.info), move(run.records))
