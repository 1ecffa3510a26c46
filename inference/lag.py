"""Fixed lag: particles that remember their last records, and the mean of the oldest.

`remembering(process, lag)` is the same process whose particles carry a ring of their last L + 1
records (L + 2 for statistics of pairs): place t mod K holds time t. Resampling moves the rings with
the rest, so at time s a particle knows the record of its ancestor at time s - L. `Lagged` writes
the ring after every step and files

    sum_i W_s^i f(x_{s - L}^i)   as the estimate of E[f(x_{s - L}) | y_{1:s}];

the last population gives those of the last L times. Memory: N (L + 2) records.

Shape letters: N particles, B packed problems, K places of a ring, T steps, T1 = T + 1.
"""

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from jurax.inference.kernel import AbstractKernel
from jurax.ppl import AbstractProcess, Population
from jurax.ppl.combinators.wrapper import AbstractAugmenting, Augmented
from jurax.ppl.population import weighted_mean


class Remembering(AbstractAugmenting):
    """See `remembering`."""

    process: AbstractProcess
    places: int = eqx.field(static=True)

    def init(self, key, num_particles):
        """Start the rings; every place holds the record of time 0."""
        inner, log_weights = self.process.init(key, num_particles)
        depth = log_weights.ndim

        def ring(x: Array) -> Array:
            shape = (*x.shape[:depth], self.places, *x.shape[depth:])
            return jnp.broadcast_to(jnp.expand_dims(x, depth), shape)

        return Augmented(inner, jax.tree.map(ring, self.process.record(inner, 0))), log_weights

    def extend(self, key, particles, t):
        """Extend; the rings are written by `Lagged`, for rows that rest too."""
        inner, log_increments = self.process.extend(key, particles.inner, t)
        return Augmented(inner, particles.extra), log_increments


def remembering(process: AbstractProcess, lag: int, statistic: Callable | None) -> Remembering:
    """`process` with particles that remember what a fixed lag needs."""
    if process.hosted:
        raise NotImplementedError(
            "fixed-lag smoothing works on traceable processes; for a hosted one use "
            'method="traceback"'
        )
    places = lag + 1 + takes_pairs(statistic)
    return Remembering(process=process, places=places)  # pyright: ignore[reportCallIssue]


class Lagged(AbstractKernel):
    """Step `kernel`, write the rings and report the mean of a statistic L steps ago.

    Draws nothing itself: the population is that of `kernel` for the same key.

    Info: that of `kernel`, and `smoothed` `(*B, ...)`: the estimate for time t - L after step t,
    NaN for t < L.
    """

    kernel: AbstractKernel
    lag: int = eqx.field(static=True)
    statistic: Callable | None = None

    def step(self, key, population, process):
        """Step and report; consumes `key`."""
        population, info = self.kernel.step(key, population, process)
        particles = population.particles
        record = process.process.record(particles.inner, population.time)
        rings = write(particles.extra, record, population)
        population = eqx.tree_at(lambda p: p.particles.extra, population, rings)
        time = population.time - self.lag
        return population, {**info, "smoothed": mean_at(time, population, self.statistic)}

    def idle_info(self, population):
        """That of the kernel, and NaN."""
        unknown = mean_at(jnp.asarray(-1), population, self.statistic)
        return {**self.kernel.idle_info(population), "smoothed": unknown}


def write(rings: PyTree, record: PyTree, population: Population) -> PyTree:
    """Rings with the record of the present time over the oldest."""
    axis = population.log_weights.ndim

    def one(ring: Array, x: Array) -> Array:
        place = population.time % ring.shape[axis]
        return jax.lax.dynamic_update_index_in_dim(ring, x.astype(ring.dtype), place, axis)

    return jax.tree.map(one, rings, record)


def remembered(time: Int[Array, ""], population: Population) -> PyTree:
    """The records at `time` of the ancestors of the particles, `(*B, N, ...)`."""
    axis = population.log_weights.ndim
    return jax.tree.map(
        lambda ring: jax.lax.dynamic_index_in_dim(
            ring, time % ring.shape[axis], axis, keepdims=False
        ),
        population.particles.extra,
    )


def mean_at(time: Int[Array, ""], population: Population, statistic: Callable | None) -> PyTree:
    """The weighted mean of the statistic at a time that the particles remember, else NaN."""
    pairs = takes_pairs(statistic)
    values: tuple = (remembered(time, population),)
    if pairs:
        values = (remembered(time - 1, population), *values)
    function = statistic or (lambda record: record)
    mean = weighted_mean(lambda x: _floats(function(*x)), values, population.normalized())
    is_dead = jnp.all(jnp.isneginf(population.log_weights), axis=-1)

    def known(x: Array) -> Array:
        dead = is_dead.reshape(is_dead.shape + (1,) * (x.ndim - is_dead.ndim))
        return jnp.where(dead | (time < pairs), jnp.nan, x)

    return jax.tree.map(known, mean)


def flush(
    filed: PyTree, population: Population, num_steps: int, lag: int, statistic: Callable | None
) -> PyTree:
    """Estimates by time, `(*B, T1, ...)`: those filed L steps late, then those of the end."""
    axis = population.log_weights.ndim - 1
    oldest = population.time - lag  # the oldest time that the last population remembers
    ends = jax.lax.map(lambda k: mean_at(oldest + k, population, statistic), jnp.arange(lag + 1))
    times = jnp.arange(num_steps + 1)

    def join(filed: Float[Array, "..."], ends: Float[Array, "..."]) -> Array:
        ends = jnp.moveaxis(ends, 0, axis)
        # Row t - 1 of `filed` was filed after step t, for time t - L.
        late = jnp.take(filed, jnp.clip(times + lag - 1, 0, num_steps - 1), axis=axis)
        last = jnp.take(ends, jnp.clip(times - oldest, 0, lag), axis=axis)
        shape = (1,) * axis + (-1,) + (1,) * (late.ndim - axis - 1)
        last = jnp.where((times <= population.time).reshape(shape), last, jnp.nan)
        return jnp.where((times < oldest).reshape(shape), late, last)

    if num_steps == 0:
        return jax.tree.map(lambda x: jnp.moveaxis(x[-1:], 0, axis), ends)
    return jax.tree.map(join, filed, ends)


def takes_pairs(statistic: Callable | None) -> bool:
    """Whether a statistic is a function of two records.

    Example:
        >>> takes_pairs(lambda record: record), takes_pairs(lambda previous, record: record)
        (False, True)
    """
    if statistic is None:
        return False
    parameters = inspect.signature(statistic).parameters.values()
    return sum(p.default is p.empty for p in parameters) == 2


def _floats(tree: Any) -> PyTree:
    return jax.tree.map(lambda x: jnp.asarray(x, float), tree)
