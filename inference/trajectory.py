"""Draws of particle MCMC: trajectories drawn from runs, and their posterior by chains.

Shape letters: C chains, S draws, B problems, T steps.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from jurax.inference.conditional import trace_row
from jurax.inference.kernel import AbstractKernel
from jurax.inference.loop import RECORDS, Run, run_steps
from jurax.ppl import AbstractProcess, Cost, History, Posterior, random
from jurax.ppl.posterior import arrange
from jurax.ppl.process import gather_rows


class Trajectory(eqx.Module):
    """One path of a process.

    Attributes:
        path: records stacked over steps, `(T + 1, *B, ...)`; steps that were not made hold zeros.
        particle: `process.output` of its last particle, `(*B, ...)`.
        log_evidence: log Zhat of the run that it was drawn from.
        status: of that run.
        cost: of that run.
    """

    path: PyTree
    particle: PyTree
    log_evidence: Float[Array, "*B"]
    status: Int[Array, "*B"]
    cost: Cost


def run_filter(
    key: Array, kernel: AbstractKernel, process: AbstractProcess, num_particles: int
) -> Trajectory:
    """Run a filter and draw one of its paths by weight; consumes `key`."""
    key_init, key_steps, key_pick = random.split(key, 3)
    population = kernel.init(key_init, process, num_particles)
    run = run_steps(kernel, key_steps, population, process, storage=RECORDS)
    row = random.categorical(key_pick, run.population.log_weights)
    path = trace_row(run.records, run.info.get("ancestors"), row)
    return trajectory_of(run, process, path, row)


def trajectory_of(
    run: Run, process: AbstractProcess, path: PyTree, row: Int[Array, "*B"]
) -> Trajectory:
    """The trajectory that ends in `row` of a finished run."""
    output = process.output(run.population.particles)
    last = gather_rows(output, row[..., None].astype(jnp.int32))
    return Trajectory(
        path=path,
        particle=jax.tree.map(lambda x: jnp.squeeze(x, row.ndim), last),
        log_evidence=run.population.log_evidence_estimate,
        status=run.population.status,
        cost=run.cost,
    )


def run_chains(key: Array, num_chains: int, chain: Callable[[Array], Any]) -> Any:
    """Run `chain(key)` for every chain and stack the results, `(C, ...)`; consumes `key`.

    One chain is not mapped: its conditionals stay conditionals.
    """
    keys = random.split(key, num_chains)
    if num_chains == 1:
        return jax.tree.map(lambda x: x[None], chain(keys[0]))
    return jax.vmap(chain)(keys)


def posterior_of_draws(
    draws: Trajectory,
    values: dict[str, Array],
    info: dict[str, Array],
    process: AbstractProcess,
    warmup_cost: Cost,
) -> Posterior:
    """The posterior of draws `(C, S, ...)`: weights 1, no evidence.

    Args:
        draws: trajectories.
        values: parameters by name.
        info: arrays `(C, S, *B, ...)`.
        process: the target; its parameters may be free.
        warmup_cost: spent before the first draw, `(C, *B)`.
    """
    shape, depth = draws.status.shape, len(process.batch_shape)
    particles, history = draws.particle, None
    if process.layout is not None:
        sites = {name: particles[name] for name in particles if name not in values}
        particles = {**sites, **values, **arranged(draws, process)}
    else:
        particles = {**values, "particle": particles} if values else particles
        records = jax.tree.map(lambda x: as_records(x, depth), draws.path)
        history = History(records=records, ancestors=None)
    spent = jax.tree.map(
        lambda a, b: (jnp.sum(a, axis=(0, 1)) + jnp.sum(b, axis=0)).astype(a.dtype),
        draws.cost,
        warmup_cost,
    )
    return Posterior(
        particles=jax.tree.map(lambda x: problems_first(x, depth), particles),
        log_weights=jnp.zeros((*shape[2:], *shape[:2])),
        log_evidence=jnp.full(shape[2:], jnp.nan),
        info={
            **{name: problems_first(x, depth) for name, x in info.items()},
            "num_steps": jnp.asarray(process.num_steps, jnp.int32),
            "status": jnp.max(draws.status, axis=(0, 1)),
        },
        cost=spent,
        history=history,
        target=process.target,
    )


def arranged(draws: Trajectory, process: AbstractProcess) -> dict[str, Array]:
    """Sites of a program by name, `(C, S, ...)`, stacked over steps as NumPyro stacks them."""
    shape = draws.status.shape[:2]
    flat = lambda x: x.reshape(-1, *x.shape[2:])  # noqa: E731
    path, particle = jax.tree.map(flat, (draws.path, draws.particle))
    layout = tuple(entry for entry in process.layout or () if entry[2] != "final")
    sites = arrange(path, particle, layout)
    return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), sites)


def as_records(leaf: Array, depth: int) -> Array:
    """Paths `(C, S, T + 1, *B, ...)` as records of a history `(*B, T + 1, C S, ...)`."""
    leaf = jnp.moveaxis(leaf, (0, 1), (1 + depth, 2 + depth))  # (T + 1, *B, C, S, ...)
    leaf = jnp.moveaxis(leaf, 0, depth)
    before, after = leaf.shape[: depth + 1], leaf.shape[depth + 3 :]
    return leaf.reshape(*before, -1, *after)


def problems_first(leaf: Array, depth: int) -> Array:
    """`(C, S, *B, ...)` as `(*B, C, S, ...)`."""
    return jnp.moveaxis(leaf, (0, 1), (depth, depth + 1))


def check_traceable(process: AbstractProcess, algorithm: Any, budget: Cost | None) -> None:
    """Refuse what particle MCMC does not do."""
    name = type(algorithm).__name__
    if process.hosted:
        raise NotImplementedError(
            f"{name} runs many sweeps as one compiled loop and cannot call out of JAX: use "
            "ParticleFilter for a hosted process"
        )
    if budget is not None:
        raise NotImplementedError(
            f"{name} has no budget: its cost is num_warmup + num_samples sweeps for each chain"
        )
