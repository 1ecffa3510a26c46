"""Resample: the preserving kernel that replaces weights by copies.

N children, each of weight mean(w): mu and its total mass are unchanged in expectation when
E[counts_i] = N W_i. A dead population keeps its particles.

Parents may be drawn by other weights v than their own: a *tempered* scheme has v = w^(1 / tau), a
*lookahead* eta favours parents with a future, v = w eta. A child then keeps the weight w / v and
the evidence gains mean(v), so the measure is preserved as before, as long as v > 0 where w > 0:

    E[mean(v) (1/M) sum_children w / v f] = mean(v) (1/M) sum_i M v_i / sum(v) w_i / v_i f(x_i).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jurax.inference.kernel import AbstractKernel, active_rows
from jurax.inference.resampling import Systematic
from jurax.inference.resampling.tempered import selection_of
from jurax.ppl import AbstractProcess, Population, weights
from jurax.ppl.population import check_increments
from jurax.ppl.process import gather_rows


class Resample(AbstractKernel):
    """Draw ancestors by `scheme`, move log mean(v) into the evidence, leave log-weights log(w / v).

    Attributes:
        scheme: `(key, log_weights, num_particles) -> ancestors`; v = w unless it is `Tempered`.
        num_particles: size of the new population; the same as before if None.
        lookahead: `(particles, t) -> log eta`, see `jurax.inference.AuxiliaryFilter`; v = w eta.

    Info: `ancestors` `(*B, N)`, `resampled` `(*B,)`.
    """

    scheme: Callable = Systematic()
    num_particles: int | None = None
    lookahead: Callable | None = None

    def step(self, key, population, process):
        """Resample every problem; consumes `key`."""
        num = self.num_particles or population.num_particles
        first_stage, status = look_ahead(self.lookahead, population, process)
        selection = selection_of(self.scheme, first_stage)
        ancestors = self._ancestors(key, first_stage, num)
        total = weights.log_mean(selection)
        dead = jnp.isneginf(total)
        own = jnp.arange(num, dtype=jnp.int32) % population.num_particles
        own = jnp.broadcast_to(own, ancestors.shape)
        ancestors = jnp.where(dead[..., None], own, ancestors)
        gained = jnp.where(dead, 0.0, total)
        if selection is population.log_weights:
            left = jnp.where(dead, -jnp.inf, 0.0)[..., None].astype(gained.dtype)
            left = jnp.broadcast_to(left, ancestors.shape)
        else:
            left = jnp.where(jnp.isneginf(selection), 0.0, selection)
            left = gather_rows(population.log_weights - left, ancestors)
        resampled = Population(
            particles=process.gather(population.particles, ancestors),
            log_weights=left,
            log_evidence=population.log_evidence + gained,
            time=population.time,
            status=status,
        )
        return resampled, {"ancestors": ancestors, "resampled": ~dead}

    def idle_info(self, population):
        """Every particle is its own ancestor."""
        shape = population.log_weights.shape
        own = jnp.broadcast_to(jnp.arange(shape[-1], dtype=jnp.int32), shape)
        return {"ancestors": own, "resampled": jnp.zeros(shape[:-1], bool)}

    def _ancestors(
        self, key: Array, log_weights: Float[Array, "*B N"], num: int
    ) -> Int[Array, "*B M"]:
        def draw(key: Array, log_weights: Array) -> Array:
            return self.scheme(key, log_weights, num)

        for _ in range(log_weights.ndim - 1):
            draw = jax.vmap(draw)
        return draw(key, log_weights)


def look_ahead(
    lookahead: Callable | None, population: Population, process: AbstractProcess
) -> tuple[Float[Array, "*B N"], Int[Array, "*B"]]:
    """First-stage log-weights log(w eta), and the status; eta = 1 for rows that move no more.

    A lookahead that is NaN or +inf counts as 0 and is reported, like a potential.
    """
    if lookahead is None:
        return population.log_weights, population.status
    log_eta = lookahead(process.innermost(population.particles), population.time + 1)
    log_eta = jnp.where(active_rows(population, process), log_eta, 0.0)
    log_eta, status = check_increments(log_eta, population.status)
    return population.log_weights + log_eta, status
