"""Extend: the advancing kernel that makes one move of the process.

gamma_t -> gamma_{t+1}: x_{t+1} ~ M(x_t, .), w <- w G. Rows that are finished or have weight zero
keep their state and get G = 1, so an absorbed path is weighted once, not again at every step.
"""

import jax.numpy as jnp

from jurax.inference.kernel import AbstractKernel, active_rows
from jurax.ppl import Cost, Population
from jurax.ppl.population import check_increments, mark_dead


class Extend(AbstractKernel):
    """Advance every active particle by one extension of the process.

    Info: `cost` of the step. NaN or +inf increments give the particle weight zero and are reported
    in the population's status.
    """

    def step(self, key, population, process):
        """Extend the active rows; consumes `key`."""
        active = active_rows(population, process)
        before = process.retire(population.particles, ~active)
        particles, increments = process.extend(key, before, population.time + 1)
        increments, status = check_increments(jnp.where(active, increments, 0.0), population.status)
        particles = process.settle(active, particles, before)
        log_weights = population.log_weights + increments
        advanced = Population(
            particles=particles,
            log_weights=log_weights,
            log_evidence=population.log_evidence,
            time=population.time + 1,
            status=mark_dead(log_weights, status),
        )
        return advanced, {"cost": process.cost(before, particles)}

    def idle_info(self, population):
        """Nothing spent."""
        del population
        return {"cost": Cost()}
