"""Move: preserving kernels that apply a Markov kernel to every particle.

A Markov kernel that leaves the density of the population invariant leaves its measure unchanged:
weights and evidence stay as they are (Gilks and Berzuini 2001; Del Moral, Doucet and Jasra 2006).
Step sizes follow the acceptance rate of the move before, of the whole population, so they are
functions of the past; the bias of such adaptation vanishes with N (Beskos et al. 2016).

Shape letters: N particles, M parents, P parts of a composed Markov kernel.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jurax.inference.flat import AbstractFlatProcess, FlatParticles, population_scale
from jurax.inference.kernel import AbstractKernel
from jurax.inference.mcmc.kernel import AbstractMCMCKernel, ChainState
from jurax.inference.resample import Resample
from jurax.inference.resampling import Systematic
from jurax.ppl import Population, random
from jurax.ppl.checks import at_least
from jurax.ppl.process import missing

GAIN = 1.0  # of log step sizes on acceptance: about the inverse slope of one on the other


class Move(AbstractKernel):
    """Apply `kernel` to every particle, `num_moves` times.

    Needs a process that knows the density of its populations: a program under `TemperedSMC` or
    `IBIS`. Info: `acceptance` `(P,)` (mean over particles, last move), `step_size` `(P,)`.

    Args:
        kernel: a Markov kernel such as `HMC()`; step sizes that it leaves open are tuned.
        num_moves: at least 1.
    """

    kernel: AbstractMCMCKernel
    num_moves: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        at_least(1, num_moves=self.num_moves)

    def step(self, key, population, process):
        """Move every row; consumes `key`."""
        start, log_density = begin(self.kernel, population, process)
        keys = random.split(key, self.num_moves)

        def move(carry: tuple, key: Array) -> tuple[tuple, Array]:
            state, log_steps = carry
            moved = moved_once(self.kernel, key, state, log_density, population, log_steps)
            return moved[:2], moved[2]

        carry = (start, population.particles.log_steps)
        (state, log_steps), acceptance = jax.lax.scan(move, carry, keys)
        particles = with_steps(process.moved(population.particles, state), log_steps)
        return with_rows(population, particles, population.log_weights), {
            "acceptance": acceptance[-1],
            "step_size": jnp.exp(log_steps),
        }

    def idle_info(self, population):
        """No move was made."""
        steps = population.particles.log_steps
        return {"acceptance": jnp.full_like(steps, jnp.nan), "step_size": jnp.exp(steps)}


class Rescale(AbstractKernel):
    """Set the scale of moves to the spread of the weighted population; nothing else changes.

    To be placed before the resampling, which would count equal rows as information.
    """

    def step(self, key, population, process):
        """Measure; draws nothing."""
        del key
        x, normalized = population.particles.x, population.normalized()
        scale = population_scale(x, normalized, process.dense)
        return eqx.tree_at(lambda p: p.particles.scale, population, scale), {}


class WasteFree(AbstractKernel):
    """Resample M = ceil(N / P) parents, run a chain from each, keep all of its P states.

    Each state of a chain that starts in the law of the population has that law, so the N states
    together preserve the measure (Dau and Chopin 2022, Algorithm 2). What M P has beyond N is cut
    off; then the parents are rotated by a random number of slots first, because the slots of a
    systematic draw differ in law and always cutting the same ones would be a bias. Info: as `Move`
    and `Resample`.

    Args:
        kernel: a Markov kernel.
        length: P >= 2, states of each chain.
        resampler: scheme for the parents.
    """

    kernel: AbstractMCMCKernel
    length: int = eqx.field(static=True)
    resampler: Callable = Systematic()

    def __check_init__(self):
        if self.length < 2:
            raise ValueError(f"a waste-free chain needs at least 2 states, got {self.length}")

    def step(self, key, population, process):
        """Resample and run the chains; consumes `key`."""
        num = population.num_particles
        num_parents = -(-num // self.length)
        key_parents, key_rotation, key_chains = random.split(key, 3)
        resample = Resample(self.resampler, num_parents)
        parents, info = resample.step(key_parents, population, process)
        order = jnp.arange(num_parents)
        if num % self.length:
            order = (order + random.randint(key_rotation, (), 0, num_parents)) % num_parents
        rotated = process.gather(parents.particles, order)
        parents = with_rows(parents, rotated, parents.log_weights)
        start, log_density = begin(self.kernel, parents, process)

        def move(carry: tuple, key: Array) -> tuple[tuple, tuple]:
            state, log_steps = carry
            moved = moved_once(self.kernel, key, state, log_density, parents, log_steps)
            return moved[:2], (moved[0], moved[2])

        carry = (start, population.particles.log_steps)
        keys = random.split(key_chains, self.length - 1)
        (_, log_steps), (states, acceptance) = jax.lax.scan(move, carry, keys)

        def all_states(first: Array, later: Array) -> Array:
            together = jnp.concatenate([first[None], later])
            return together.reshape(-1, *first.shape[1:])[:num]

        kept = jax.tree.map(all_states, start, states)
        particles = with_steps(process.moved(population.particles, kept), log_steps)
        parent = jnp.arange(num) % num_parents
        return with_rows(parents, particles, parents.log_weights[parent]), {
            **info,
            "ancestors": info["ancestors"][order][parent],
            "acceptance": acceptance[-1],
            "step_size": jnp.exp(log_steps),
        }

    def idle_info(self, population):
        """That of both parts."""
        moves = Move(self.kernel).idle_info(population)
        return {**Resample(self.resampler).idle_info(population), **moves}


def begin(
    kernel: AbstractMCMCKernel, population: Population, process: Any
) -> tuple[ChainState, Callable]:
    """The states at the particles, and the density that moves leave invariant."""
    if not isinstance(process, AbstractFlatProcess):
        raise missing(process, "log_density", "the density that its populations represent")
    log_density = process.log_density(population)
    return kernel.init(log_density, population.particles.x), log_density


def moved_once(
    kernel: AbstractMCMCKernel,
    key: Array,
    state: ChainState,
    log_density: Callable,
    population: Population,
    log_steps: Float[Array, " P"],
) -> tuple[ChainState, Float[Array, " P"], Float[Array, " P"]]:
    """One move of all rows by the present tuning: states, next log step sizes, acceptance."""
    tuned = kernel.tuned(jnp.exp(log_steps), population.particles.scale)
    state, info = tuned.step(key, state, log_density)
    alive = ~jnp.isneginf(population.log_weights)[:, None] & ~jnp.isnan(info["acceptance"])
    count = jnp.sum(alive, axis=0)
    acceptance = jnp.sum(jnp.where(alive, info["acceptance"], 0.0), axis=0) / jnp.maximum(count, 1)
    gap = jnp.where(count > 0, acceptance - jnp.asarray(kernel.target_acceptance), 0.0)
    largest = jnp.log(jnp.asarray(kernel.largest_step_sizes()))
    tunable = jnp.asarray(kernel.is_tuned)
    raised = jnp.minimum(log_steps + GAIN * gap, largest)
    return state, jnp.where(tunable, raised, log_steps), acceptance


def with_steps(particles: FlatParticles, log_steps: Float[Array, " P"]) -> FlatParticles:
    """The particles with other step sizes."""
    return eqx.tree_at(lambda p: p.log_steps, particles, log_steps)


def with_rows(
    population: Population, particles: FlatParticles, log_weights: Float[Array, " N"]
) -> Population:
    """The population with other rows."""
    return Population(
        particles=particles,
        log_weights=log_weights,
        log_evidence=population.log_evidence,
        time=population.time,
        status=population.status,
    )
