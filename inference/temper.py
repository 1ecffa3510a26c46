"""One stage along a path of densities base(x) ratio(x)^beta: the next beta, and the weights for it.

`TemperedSMC` walks from a prior to its posterior, `Bridge` from one posterior to another.

Shape letters: N particles, D dimensions, K stages.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jurax.inference.flat import AbstractFlatProcess, FlatParticles, start_particles
from jurax.inference.kernel import AbstractKernel
from jurax.inference.mcmc.kernel import AbstractMCMCKernel
from jurax.ppl import Population
from jurax.ppl.population import check_increments, mark_dead

HALVINGS = 30  # exhaust float32
MAX_STAGES = 300


class AbstractTemperedPath(AbstractFlatProcess):
    """A path base(x) ratio(x)^beta that `Temper` walks; a step is a stage, `aux` is log ratio.

    Attributes:
        kernel: of the moves; its step sizes are where tuning starts.
        ladder: betas of the stages, or None: chosen by `Temper`.
        num_steps: bound on the number of stages; the last one goes to beta = 1.
    """

    kernel: eqx.AbstractVar[AbstractMCMCKernel]
    ladder: eqx.AbstractVar[Float[Array, " K"] | None]
    num_steps: eqx.AbstractVar[int]

    @abc.abstractmethod
    def parts(self, x: Float[Array, " D"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """(Log base, log ratio) at a position, with the Jacobian in the base."""

    def begin(self, x: Float[Array, "N D"]) -> tuple[FlatParticles, Float[Array, " N"]]:
        """Particles at positions drawn from the base, beta = 0, and their log-weights."""
        _, log_ratio = jax.vmap(self.parts)(x)
        particles = start_particles(x, log_ratio, self.kernel, self.dense)
        return particles, jnp.zeros(x.shape[0])

    def extend(self, key, particles, t):
        """Refused: the next beta depends on the whole population."""
        raise NotImplementedError("a stage of tempering is made by `Temper`, not by `Extend`")

    def finished(self, particles):
        """Every row, once beta = 1."""
        return jnp.broadcast_to(particles.beta >= 1, particles.x.shape[:-1])

    def log_density(self, population):
        """Log base + beta log ratio, and log ratio."""
        beta = population.particles.beta

        def tempered(x: Array) -> tuple[Array, Array]:
            log_base, log_ratio = self.parts(x)
            # A ratio of 0 stays 0, and counts as 1 at beta = 0.
            return log_base + jnp.where(beta > 0, beta * log_ratio, 0.0), log_ratio

        return tempered


class Temper(AbstractKernel):
    """Advance beta and weight by L^(beta' - beta).

    Without a ladder beta' is the largest at which the conditional effective sample size
    N (sum W v)^2 / sum W v^2, v = L^(beta' - beta), is `ess_target` times the number of rows
    that are alive (Zhou, Johansen and Aston 2016). Info: `beta`.
    """

    ess_target: float = eqx.field(static=True, default=0.5)

    def __check_init__(self):
        if not 0 < self.ess_target < 1:
            raise ValueError(f"ess_target must lie in (0, 1), got {self.ess_target}")

    def step(self, key, population, process):
        """Choose beta' and weight; draws nothing."""
        del key
        particles, time = population.particles, population.time + 1
        beta = self._next_beta(population, process, time)
        delta = beta - particles.beta
        increments = jnp.where(delta > 0, delta * particles.aux, 0.0)
        increments, status = check_increments(increments, population.status)
        log_weights = population.log_weights + increments
        advanced = Population(
            particles=particles,
            log_weights=log_weights,
            log_evidence=population.log_evidence,
            time=time,
            status=mark_dead(log_weights, status),
        )
        return eqx.tree_at(lambda p: p.particles.beta, advanced, beta), {"beta": beta}

    def idle_info(self, population):
        """Beta as it is."""
        return {"beta": population.particles.beta}

    def _next_beta(self, population: Population, process: Any, time: Array) -> Array:
        beta = population.particles.beta
        if process.ladder is not None:
            return process.ladder[time - 1].astype(beta.dtype)
        log_likelihood = jnp.where(
            jnp.isnan(population.particles.aux), -jnp.inf, population.particles.aux
        )
        delta = largest_step(population.normalized(), log_likelihood, 1 - beta, self.ess_target)
        is_last = time == process.num_steps
        return jnp.where((delta >= 1 - beta) | is_last, 1.0, beta + delta)


def largest_step(
    normalized: Float[Array, " N"],
    log_likelihood: Float[Array, " N"],
    limit: Float[Array, ""],
    ess_target: float,
) -> Float[Array, ""]:
    """The largest delta <= limit with conditional ESS >= ess_target, by bisection.

    Rows of likelihood 0 have no say: no delta > 0 saves them.
    """
    alive = (normalized > 0) & ~jnp.isneginf(log_likelihood)
    weights = jnp.where(alive, normalized, 0.0)
    top = jnp.max(jnp.where(alive, log_likelihood, -jnp.inf))
    centred = jnp.where(alive, log_likelihood - top, 0.0)
    total = jnp.sum(weights)

    def is_allowed(delta: Array) -> Array:
        v = jnp.exp(delta * centred)
        return jnp.sum(weights * v) ** 2 >= ess_target * total * jnp.sum(weights * v**2)

    def halve(_, bracket: tuple) -> tuple:
        low, high = bracket
        middle = 0.5 * (low + high)
        allowed = is_allowed(middle)
        return jnp.where(allowed, middle, low), jnp.where(allowed, high, middle)

    low, _ = jax.lax.fori_loop(0, HALVINGS, halve, (jnp.zeros_like(limit), limit))
    return jnp.where(is_allowed(limit), limit, low)
