"""Backward sampling: paths drawn from the end, from the particles that a filter kept of all times.

    b_T ~ W_T,    b_t ~ W_t^j m_{t+1}(x_t^j, x_{t+1}) G_{t+1}(x_t^j, x_{t+1}),   t = T - 1, ..., 0,

with x_{t+1} the state chosen one step before (forward filtering, backward sampling: Godsill, Doucet
and West 2004). Given the filter, paths are independent; Zhat times their distribution is unbiased
for the unnormalised law of the path, for every N, every scheme with E[counts] = N W and with
adaptive resampling, because sum_i W^i m(x^i, .) cancels in expectation.

Exactly, a step costs N densities for each path. By Metropolis moves it costs one for each move:
from the ancestor of the chosen particle, propose j ~ W_t and accept with probability
min(1, m G(x_t^j, x_{t+1}) / m G(x_t^current, x_{t+1})) (Bunch and Godsill 2013). The ancestor is a
draw from the same law, so any number of moves, also none, keeps it.

A state must be all that its future depends on: `replay` of the record of x_{t+1} must give the same
particle from every x_t^j. This is checked as the paths are drawn.

Shape letters: N particles, M paths, T steps, T1 = T + 1.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jurax.inference.loop import Run
from jurax.ppl import AbstractProcess, random
from jurax.ppl.process import gather_rows, missing

PAIRS = 2**21  # densities that are held at once


class Slice(eqx.Module):
    """What a filter keeps of one time: `(N, ...)`, and of all times: `(T1, N, ...)`."""

    particles: PyTree
    log_weights: Float[Array, "*T1 N"]


def check_process(process: AbstractProcess) -> None:
    """Refuse a process on which no path can be drawn backwards, before any work."""
    if type(process).replay is AbstractProcess.replay:
        raise missing(process, "replay", "the density of its moves")
    if process.batch_shape or process.hosted:
        raise NotImplementedError(
            'method="backward" works on one traceable problem: map over problems, or use '
            'method="traceback"'
        )
    if getattr(process, "parameters", ()):
        raise NotImplementedError(
            f"backward sampling needs fixed parameters; random are {list(process.parameters)}: "  # pyright: ignore
            "use process.at(values)"
        )


def draw_paths(
    key: Array, run: Run, process: AbstractProcess, num: int, num_moves: int | None
) -> Slice:
    """Draw M paths; leaves are `(T1, M, ...)`. Consumes `key`.

    Args:
        key: consumed.
        run: a finished run of a filter, its records `Slice`s of every time.
        process: the process that was run.
        num: M.
        num_moves: Metropolis moves a step; None: exact draws.
    """
    slices: Slice = run.records
    num_steps = process.num_steps
    key_last, key_steps = random.split(key)
    last = _at(slices, num_steps)
    rows = random.categorical(key_last, last.log_weights, shape=(num,)).astype(jnp.int32)
    chosen = _take(last, rows)
    if num_steps == 0:
        return jax.tree.map(lambda x: x[None], chosen)
    num_particles = last.log_weights.shape[0]
    own = jnp.arange(num_particles, dtype=jnp.int32)
    parents = run.info.get("ancestors", jnp.broadcast_to(own, (num_steps, num_particles)))

    def back(carry: tuple[Slice, Array], t: Array) -> tuple[tuple[Slice, Array], Slice]:
        later, rows = carry
        key, now = random.fold_in(key_steps, t), _at(slices, t)
        record = process.record(later.particles, t + 1)
        if num_moves is None:
            rows = _draw_exactly(key, now, record, t, process)
        else:
            ancestors = parents[t][rows]
            rows = _move(key, ancestors, now, record, t, process, num_moves)
        chosen = _take(now, rows)
        chosen = eqx.error_if(chosen, ~_is_markov(now, later, record, t, process), NOT_MARKOV)
        return (chosen, rows), chosen

    steps = jnp.arange(num_steps)
    _, earlier = jax.lax.scan(back, (chosen, rows), steps, reverse=True)
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), earlier, chosen)


def _draw_exactly(
    key: Array, now: Slice, record: PyTree, t: Int[Array, ""], process: AbstractProcess
) -> Int[Array, " M"]:
    """b_t for every path, from all N particles."""
    num_particles, num = now.log_weights.shape[0], jax.tree.leaves(record)[0].shape[0]

    def log_law(record: PyTree) -> Float[Array, " N"]:
        repeated = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_particles, *x.shape)), record)
        return now.log_weights + log_density(now.particles, repeated, t, process)

    at_once = max(1, min(num, PAIRS // num_particles))
    logits = jax.lax.map(log_law, record, batch_size=at_once)
    return random.categorical(key, logits, axis=-1).astype(jnp.int32)


def _move(
    key: Array,
    rows: Int[Array, " M"],
    now: Slice,
    record: PyTree,
    t: Int[Array, ""],
    process: AbstractProcess,
    num_moves: int,
) -> Int[Array, " M"]:
    """b_t for every path, by Metropolis moves from the ancestors `rows`."""

    def log_density_at(rows: Array) -> Array:
        return log_density(gather_rows(now.particles, rows), record, t, process)

    def move(state: tuple[Array, Array], key: Array) -> tuple[tuple[Array, Array], None]:
        rows, current = state
        key_draw, key_accept = random.split(key)
        drawn = random.categorical(key_draw, now.log_weights, shape=rows.shape).astype(jnp.int32)
        log_density = log_density_at(drawn)
        # The current density is positive: the ancestor made the move.
        accepts = random.bernoulli(key_accept, jnp.exp(jnp.minimum(log_density - current, 0.0)))
        chosen = jnp.where(accepts, drawn, rows)
        return (chosen, jnp.where(accepts, log_density, current)), None

    (rows, _), _ = jax.lax.scan(move, (rows, log_density_at(rows)), random.split(key, num_moves))
    return rows


def log_density(
    particles: PyTree, record: PyTree, t: Int[Array, ""], process: AbstractProcess
) -> Float[Array, " N"]:
    """Log m_{t+1} G_{t+1} of the move of each particle of time t to the record beside it.

    A move that cannot be made may have no density (inf - inf): NaN counts as 0, for a categorical
    draw takes a row of NaN before all others. A potential that is NaN where the filter went has
    been reported by the filter.
    """
    _, log_increments, log_probs = process.replay(particles, record, t + 1)
    total = log_increments + log_probs
    return jnp.where(jnp.isnan(total), -jnp.inf, total)


NOT_MARKOV = (
    "backward sampling needs Markov states: replaying a record from another particle gave another "
    "particle, or rows had finished. A state must hold all that its future depends on, and its "
    'record must determine it; otherwise use Smoother(method="traceback")'
)


def _is_markov(
    now: Slice, later: Slice, record: PyTree, t: Int[Array, ""], process: AbstractProcess
) -> Bool[Array, ""]:
    """Whether the chosen states are what their records make of other particles of time t."""
    num_particles, num = now.log_weights.shape[0], later.log_weights.shape[0]
    others = gather_rows(now.particles, jnp.arange(num, dtype=jnp.int32) % num_particles)
    made, _, _ = process.replay(others, record, t + 1)
    finished = jnp.any(process.finished(now.particles))

    def same(a: Array, b: Array) -> Bool[Array, ""]:
        if jnp.issubdtype(a.dtype, jnp.floating):
            return jnp.all(jnp.isclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True))
        return jnp.all(a == b)

    agree = jax.tree.map(same, made, later.particles)
    return jax.tree.reduce(jnp.logical_and, agree) & ~finished


def _at(slices: Slice, t: Int[Array, ""] | int) -> Slice:
    return jax.tree.map(lambda x: x[t], slices)


def _take(now: Slice, rows: Int[Array, " M"]) -> Slice:
    return gather_rows(now, rows)
