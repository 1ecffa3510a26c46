"""Filtering a series that is still growing: keep the population, make the steps as data arrive.

    key_start, key_steps = jax.random.split(key)
    population = stream.start(key_start, model_of(y), algorithm)
    population = stream.update(key_steps, population, model_of(y), algorithm)            # y[:10]
    population = stream.update(key_steps, population, model_of(longer_y), algorithm)     # y[:15]

Each update makes the steps that the process has beyond those of the population. The key of a step
is folded from its time, so `key_steps` is the same in every call, and the end result is that of
`infer(key, model_of(longer_y), algorithm)`, however the series was cut. Nothing of the past is
kept but the population: memory and the time of an update do not grow with the series.

A process of another length is another compilation. To compile once, hold the series in an array of
full length, missing (NaN) beyond today, and say `until=` which time to go.

What is applied at `num_steps` alone (`tilt(how="final")`, twists, automata that must accept) is
applied at the end of *each* process, so such a process cannot be continued.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jurax.inference.compose import step_key
from jurax.inference.infer import as_process, check_key
from jurax.inference.kernel import AbstractKernel, active_rows
from jurax.ppl import AbstractProcess, Population


def start(key: Array, target: Any, algorithm: Any) -> Population:
    """The population at time 0; consumes `key`.

    Args:
        key: typed JAX key; one for each problem where the process packs several.
        target: a process or a bound program, with the data known so far.
        algorithm: a filter such as `ParticleFilter(num_particles=1024)`.

    Example:
        >>> import jax
        >>> from jurax.inference import ParticleFilter, stream
        >>> from jurax.models.state_space import LinearGaussian
        >>> model = LinearGaussian.simulate(jax.random.key(0), num_steps=3)
        >>> population = stream.start(jax.random.key(1), model, ParticleFilter(num_particles=100))
        >>> population = stream.update(
        ...     jax.random.key(2), population, model, ParticleFilter(num_particles=100), until=2
        ... )
        >>> int(population.time), bool(population.ess > 1)
        (2, True)
    """
    process = algorithm.prepare(as_process(target))
    key = check_key(key, process)
    if process.hosted:
        return algorithm.init(key, process, algorithm.num_particles)
    return _init(key, process, algorithm)


def update(
    key: Array,
    population: Population,
    target: Any,
    algorithm: Any,
    *,
    until: int | Int[Array, ""] | None = None,
) -> Population:
    """Make the steps from the time of the population to the end of the process.

    Args:
        key: the same key in every update; the time of each step is folded into it.
        population: what `start` or the last `update` returned.
        target: the process with the data known now.
        algorithm: the same filter throughout.
        until: last step to make; default `num_steps` of the process.

    Raises:
        ValueError: if `until` is beyond `num_steps`.
    """
    process = algorithm.prepare(as_process(target))
    last = process.num_steps if until is None else until
    if isinstance(last, int) and last > process.num_steps:
        raise ValueError(
            f"until={last} is beyond the {process.num_steps} steps of the process: give it the "
            "new data first"
        )
    key = check_key(key, process)
    if process.hosted:
        while _is_due(population, process, last):
            population = _one_step(key, population, process, algorithm.kernel)
        return population
    return _update(key, population, process, algorithm, jnp.asarray(last, jnp.int32))


@eqx.filter_jit
def _init(key: Array, process: AbstractProcess, algorithm: Any) -> Population:
    return algorithm.init(key, process, algorithm.num_particles)


@eqx.filter_jit
def _update(
    key: Array, population: Population, process: AbstractProcess, algorithm: Any, until: Array
) -> Population:
    kernel = algorithm.kernel
    return jax.lax.while_loop(
        lambda population: _is_due(population, process, until),
        lambda population: _one_step(key, population, process, kernel),
        population,
    )


def _is_due(population: Population, process: AbstractProcess, until: Array | int) -> Array:
    return (population.time < until) & jnp.any(active_rows(population, process))


def _one_step(
    key: Array, population: Population, process: AbstractProcess, kernel: AbstractKernel
) -> Population:
    stepped, _ = kernel.step(step_key(key, population.time), population, process)
    return stepped
