"""Resample: the preserving kernel that replaces weights by copies.

N children, each of weight mean(w): mu and its total mass are unchanged in expectation when
E[counts_i] = N W_i. A dead population keeps its particles.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jurax.inference.kernel import AbstractKernel
from jurax.inference.resampling import Systematic
from jurax.ppl import Population, weights


class Resample(AbstractKernel):
    """Draw ancestors by `scheme`, move log mean(w) into the evidence, set log-weights to 0.

    Attributes:
        scheme: `(key, log_weights, num_particles) -> ancestors`.
        num_particles: size of the new population; the same as before if None.

    Info: `ancestors` `(*B, N)`, `resampled` `(*B,)`.
    """

    scheme: Callable = Systematic()
    num_particles: int | None = None

    def step(self, key, population, process):
        """Resample every problem; consumes `key`."""
        num = self.num_particles or population.num_particles
        ancestors = self._ancestors(key, population.log_weights, num)
        dead = jnp.all(jnp.isneginf(population.log_weights), axis=-1)
        own = jnp.arange(num, dtype=jnp.int32) % population.num_particles
        own = jnp.broadcast_to(own, ancestors.shape)
        ancestors = jnp.where(dead[..., None], own, ancestors)
        gained = jnp.where(dead, 0.0, weights.log_mean(population.log_weights))
        resampled = Population(
            particles=process.gather(population.particles, ancestors),
            log_weights=jnp.broadcast_to(
                jnp.where(dead, -jnp.inf, 0.0)[..., None].astype(gained.dtype), ancestors.shape
            ),
            log_evidence=population.log_evidence + gained,
            time=population.time,
            status=population.status,
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
