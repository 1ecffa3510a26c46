"""Kernel: a step from population to population, and the composition of steps.

A kernel is *preserving* (E[mu] before = E[mu] after) or *advancing* (from gamma_t to gamma_{t+1});
see DESIGN and Scibior et al., POPL 2018. Both kinds compose: if each step is properly weighted, so
is the sequence.
"""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from jurax.ppl import AbstractProcess, Population, random
from jurax.ppl.checks import at_least
from jurax.ppl.population import DEAD, INVALID_OUT_OF_BUDGET, OUT_OF_BUDGET

Info = dict


class AbstractKernel(eqx.Module):
    """A pair of pure functions, `init` and `step`."""

    def init(self, key: Array, process: AbstractProcess, num_particles: int) -> Population:
        """Draw the initial population of `process`; consumes `key`."""
        at_least(1, num_particles=num_particles)
        return Population.start(*process.init(key, num_particles))

    @abc.abstractmethod
    def step(
        self, key: Array, population: Population, process: AbstractProcess
    ) -> tuple[Population, Info]:
        """Make one step; consumes `key`."""

    def idle_info(self, population: Population) -> Info:
        """The info of a step that was not made: same keys and shapes as that of `step`."""
        del population
        return {}

    def __rshift__(self, other: "AbstractKernel") -> "Sequence":
        """`a >> b`: first a, then b."""
        return Sequence(first=self, second=other)


class Sequence(AbstractKernel):
    """`first >> second`."""

    first: AbstractKernel
    second: AbstractKernel

    def step(self, key, population, process):
        """Make both steps, each with its own key."""
        key_first, key_second = random.split(key)
        population, first = self.first.step(key_first, population, process)
        population, second = self.second.step(key_second, population, process)
        return population, merge(first, second)

    def idle_info(self, population):
        """The idle info of both."""
        return merge(self.first.idle_info(population), self.second.idle_info(population))


def merge(first: Info, second: Info) -> Info:
    """Join two infos; costs add up, other entries of `second` win."""
    merged = {**first, **second}
    if "cost" in first and "cost" in second:
        merged["cost"] = first["cost"] + second["cost"]
    return merged


def active_rows(population: Population, process: AbstractProcess) -> Array:
    """Rows that a kernel may still extend: alive, unfinished, within budget; shape `(*B, N)`."""
    status = population.status
    stopped = (status == DEAD) | (status == OUT_OF_BUDGET) | (status == INVALID_OUT_OF_BUDGET)
    alive = ~jnp.isneginf(population.log_weights) & ~stopped[..., None]
    return alive & ~process.finished(population.particles)
