"""Nesting: a process whose particles are populations of another process.

    particle      (theta, population of gamma_theta with M particles, moved by an inner kernel)
    G_t           Zhat_t / Zhat_{t-1} of the inner population, t = 0..T  (Zhat_{-1} = 1)

The inner estimate is unbiased, so the nested process has the evidence of the family,
Z = int p(theta) Z_theta d theta, whatever M, and a row of an inner population, drawn by its weight,
has the law of the family (Chopin, Jacob and Papaspiliopoulos 2013; Andrieu et al. 2010). A filter
on it is the first half of SMC^2; without parameters it is a system of islands (Verge et al. 2015).

Shape letters: N outer particles, M inner particles.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jurax.ppl import random
from jurax.ppl.cost import Cost
from jurax.ppl.family import draw_parameters, parameters_of
from jurax.ppl.population import DEAD, INVALID, Population
from jurax.ppl.process import AbstractProcess


class NestedParticles(eqx.Module):
    """Parameter values `(N, ...)`, empty for islands, and inner populations `(N, M, ...)`."""

    values: dict[str, Array]
    population: Population


class Nested(AbstractProcess):
    """See `nest`."""

    process: AbstractProcess
    algorithm: Any

    @property
    def num_steps(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Steps of the inner process."""
        return self.process.num_steps

    @property
    def target(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the inner process."""
        return self.process.target

    def at(self, values: dict[str, Array]) -> AbstractProcess:
        """The inner process at given values."""
        return self.process.at(values) if values else self.process  # type: ignore[attr-defined]

    def init(self, key, num_particles):
        """Draw parameters, start inner populations; consumes `key`."""
        key_values, key_inner = random.split(key)
        values: dict[str, Array] = {}
        if parameters_of(self.process):
            values = draw_parameters(self.process, key_values, num_particles)
        population = self.start(random.split(key_inner, num_particles), values)
        return NestedParticles(values, population), _or_nan(
            population, population.log_evidence_estimate
        )

    def start(self, keys: Array, values: dict[str, Array]) -> Population:
        """Inner populations at time 0, one for each key; consumes `keys`."""

        def start(key: Array, values: dict[str, Array]) -> Population:
            return self.algorithm.init(key, self.at(values), self.algorithm.num_particles)

        return jax.vmap(start)(keys, values)

    def extend(self, key, particles, t):
        """One step of every inner population; consumes `key`."""
        del t
        keys = random.split(key, self.row_shape(particles)[0])
        population = self.advance(keys, particles.values, particles.population)
        before = particles.population.log_evidence_estimate
        after = population.log_evidence_estimate
        increments = jnp.where(jnp.isneginf(after), -jnp.inf, after - before)
        return NestedParticles(particles.values, population), _or_nan(population, increments)

    def advance(self, keys: Array, values: dict[str, Array], population: Population) -> Population:
        """One step of the inner kernel; consumes `keys`."""

        def step(key: Array, values: dict[str, Array], population: Population) -> Population:
            return self.algorithm.step(key, population, self.at(values))[0]

        return jax.vmap(step)(keys, values, population)

    def finished(self, particles):
        """Populations without a row that may be extended."""

        def ended(values: dict[str, Array], population: Population) -> Array:
            absorbed = self.at(values).finished(population.particles)
            at_rest = absorbed | jnp.isneginf(population.log_weights)
            return jnp.all(at_rest) | (population.status == DEAD)

        return jax.vmap(ended)(particles.values, particles.population)

    def cost(self, before, after):
        """Unknown: what inner populations spend is not counted."""
        del before, after
        return Cost(*[jnp.nan] * len(dataclasses.fields(Cost)))

    def record(self, particles, t):
        """The parameters and the evidence estimates so far."""
        del t
        return {**particles.values, "log_evidence": particles.population.log_evidence_estimate}

    def output(self, particles):
        """Parameters, and populations with the outputs of their particles."""

        def output(values: dict[str, Array], population: Population) -> Population:
            kept = self.at(values).output(population.particles)
            return eqx.tree_at(lambda p: p.particles, population, kept)

        population = jax.vmap(output)(particles.values, particles.population)
        return NestedParticles(particles.values, population)

    def row_shape(self, particles):
        """The axis `(N,)`."""
        return particles.population.log_evidence.shape


def _or_nan(population: Population, log_weights: Float[Array, " N"]) -> Float[Array, " N"]:
    """NaN for inner populations with an invalid potential, so that the outer one reports it."""
    return jnp.where(population.status == INVALID, jnp.nan, log_weights)


def nest(process: AbstractProcess, algorithm: Any) -> Nested:
    """A process whose particles are (values, Population); see the module docstring.

    Args:
        process: a traceable process of one problem; its parameters, if it has any, are drawn from
            their prior and fixed in each particle.
        algorithm: a filter with unbiased evidence, such as `ParticleFilter(num_particles=64)`.

    Example:
        >>> import jax
        >>> from jurax.inference import ParticleFilter, infer
        >>> from jurax.models.state_space import LinearGaussian
        >>> model = LinearGaussian.simulate(jax.random.key(0), num_steps=5)
        >>> islands = nest(model, ParticleFilter(num_particles=50))
        >>> posterior = infer(jax.random.key(1), islands, ParticleFilter(num_particles=20))
        >>> bool(abs(posterior.log_evidence - model.log_evidence()) < 0.5)
        True
    """
    if process.hosted or process.batch_shape:
        kind = "a hosted process" if process.hosted else "several packed problems"
        raise NotImplementedError(f"nest takes one traceable problem, got {kind}")
    if not hasattr(algorithm, "num_particles"):
        raise TypeError(
            "nest needs an algorithm with num_particles, such as "
            f"ParticleFilter(num_particles=64), got {algorithm!r}"
        )
    return Nested(process, algorithm)
