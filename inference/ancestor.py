"""Ancestor moves: another past for the pinned path of a conditional filter.

Before a resampling at time t the path x*_{t+1:T} may be joined to any row j. With

    R(j) = gamma_T(x^j_{0:t}, x*_{t+1:T}) / gamma_t(x^j_{0:t}),

the product of the densities and potentials of its remaining moves, the parent has the law
proportional to w_t^j R(j) (Lindsten, Jordan and Schon 2014; van de Meent et al. 2015).

    exact        draws from it. If what `replay` makes does not depend on the past (Markov states),
                 R is one step, log m_{t+1} G_{t+1}; else the whole rest of the path is replayed
                 from every row, N (T - t) moves
    metropolis   draws one candidate j from w_t and accepts it with probability min(1, R(j) / R(i)),
                 i the present parent: the weights cancel; 2 (T - t) moves

Both leave the law invariant. A row that has finished cannot be continued: R = 0. Shape letters: B
problems, N particles, M rows whose rests are replayed.
"""

from collections.abc import Callable

import jax
import jax.core
import jax.numpy as jnp
from jax.interpreters import partial_eval
from jaxtyping import Array, Float, Int, PyTree

from jurax.ppl import Population, random
from jurax.ppl.pinned import Pinned, particles_slot
from jurax.ppl.process import gather_rows

Move = Callable[[Array, Population, Pinned], Int[Array, "*B"]]


def keep(key: Array, population: Population, process: Pinned) -> Int[Array, "*B"]:
    """The present parent; consumes `key`."""
    del key, process
    return particles_slot(population.particles)


def exact(key: Array, population: Population, process: Pinned) -> Int[Array, "*B"]:
    """A parent drawn from its law given everything else; consumes `key`."""
    slot = particles_slot(population.particles)
    inner = population.particles.inner
    last = population.time + 1 if is_markov(process, inner) else process.num_steps
    log_ratios = log_rest(process, inner, slot, population.time, last)
    drawn = random.categorical(key, population.log_weights + log_ratios)
    return _unless_finished(process, inner, slot, drawn)


def metropolis(key: Array, population: Population, process: Pinned) -> Int[Array, "*B"]:
    """A candidate drawn by weight and accepted or not; consumes `key`."""
    key_candidate, key_accept = random.split(key)
    slot = particles_slot(population.particles)
    inner = population.particles.inner
    candidate = random.categorical(key_candidate, population.log_weights)
    pair = process.process.gather(inner, jnp.stack([slot, candidate], axis=-1).astype(jnp.int32))
    last = population.time + 1 if is_markov(process, inner) else process.num_steps
    rests = log_rest(process, pair, jnp.zeros_like(slot), population.time, last)
    accepted = accept(key_accept, rests[..., 1] - rests[..., 0])
    drawn = jnp.where(accepted, candidate, slot)
    return _unless_finished(process, inner, slot, drawn)


def accept(key: Array, log_ratio: Float[Array, "*B"]) -> Array:
    """True with probability min(1, ratio); a ratio that is not a number is refused."""
    probability = jnp.exp(jnp.minimum(jnp.nan_to_num(log_ratio, nan=-jnp.inf), 0.0))
    shape = log_ratio.shape[key.ndim :]
    return random.uniform(key, shape, breaks=lambda: probability[..., None]) < probability


def log_rest(
    process: Pinned,
    particles: PyTree,
    present: Int[Array, "*B"],
    time: Int[Array, ""],
    last: Int[Array, ""] | int,
) -> Float[Array, "*B M"]:
    """Log R of every row up to step `last`; row `present` is the one that the path follows."""
    inner = process.process
    rows = inner.row_shape(particles)

    def move(t: Array, state: tuple[PyTree, Array]) -> tuple[PyTree, Array]:
        particles, total = state
        active = ~inner.finished(particles)
        is_made = gather_rows(active, present[..., None])  # the path has a step t
        moved, log_increments, log_probs = inner.replay(
            particles, process.record_at(t, rows[-1]), t
        )
        gained = jnp.where(is_made, log_increments + log_probs, 0.0)
        gained = jnp.where(active == is_made, gained, -jnp.inf)
        total = total + jnp.where(jnp.isnan(gained), -jnp.inf, gained)
        return inner.where(active & is_made, moved, particles), total

    start = (particles, jnp.zeros(rows))
    return jax.lax.fori_loop(time + 1, last + 1, move, start)[1]


def _unless_finished(process: Pinned, particles: PyTree, slot: Array, drawn: Array) -> Array:
    """A path that has ended has no rest; its last row is its own parent."""
    ended = gather_rows(process.process.finished(particles), slot[..., None])[..., 0]
    return jnp.where(ended, slot, drawn).astype(jnp.int32)


def is_markov(process: Pinned, particles: PyTree) -> bool:
    """Whether a replayed particle depends on its record alone, found by tracing `replay`.

    Where tracing cannot tell, the answer is False, which costs time but is right.
    """

    def moved(particles: PyTree) -> PyTree:
        num = process.process.row_shape(particles)[-1]
        return process.process.replay(particles, process.record_at(1, num), 1)[0]

    if process.num_steps == 0:
        return True
    jaxpr = jax.make_jaxpr(moved)(particles).jaxpr
    _, used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return not any(used)


MOVES: dict[object, Move] = {False: keep, "exact": exact, "metropolis": metropolis}
