"""SMC^2: a filter over parameters whose particles are filters over states.

    repeat(when(ess_below(c), Resample() >> PMMHMove()) >> Extend())      on nest(process, filter)

A particle is (theta, population of states at theta); its weight grows by the inner evidence ratios.
Where the ESS is low, particles are resampled with their inner populations, and each makes
Metropolis steps on (theta, inner population) from the prior of theta to the present time, which
leave the law of the particles invariant (Chopin, Jacob and Papaspiliopoulos 2013, Algorithm 1).
The evidence is unbiased for a fixed proposal; a proposal that is scaled by the population makes it
consistent.

Shape letters: N outer particles, M inner particles, D dimensions, T steps.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jurax.inference.ancestor import accept
from jurax.inference.compose import ess_below, when
from jurax.inference.extend import Extend
from jurax.inference.flat import population_scale
from jurax.inference.kernel import AbstractKernel
from jurax.inference.loop import Run
from jurax.inference.mcmc.kernel import AbstractMCMCKernel, choose_rows
from jurax.inference.mcmc.rwmh import RWMH
from jurax.inference.particle_filter import ParticleFilter
from jurax.inference.pimh import check_filter
from jurax.inference.resample import Resample
from jurax.inference.resampling import Systematic
from jurax.inference.sampler import AbstractSampler, final_key, posterior_of
from jurax.ppl import AbstractProcess, Population, Posterior, random
from jurax.ppl.checks import at_least
from jurax.ppl.family import parameter_view
from jurax.ppl.nest import Nested, NestedParticles, nest


class PMMHMove(AbstractKernel):
    """Metropolis steps of every (theta, inner population); preserves the measure.

    Attributes:
        proposal: has a symmetric `propose(key, x) -> x`, or None: a random walk scaled by the
            covariance of the population.
        num_moves: steps.

    Info: `acceptance`, the mean over particles and steps; NaN where no move was made.
    """

    proposal: Any = None
    num_moves: int = eqx.field(static=True, default=3)

    def __check_init__(self):
        at_least(1, num_moves=self.num_moves)

    def step(self, key, population, process):
        """Move every particle; consumes `key`."""
        view = parameter_view(process.process)
        x = jax.vmap(view.flatten)(population.particles.values)
        alive = ~jnp.isneginf(population.log_weights)
        proposal = self._scaled(x, population.normalized())

        def move(carry: tuple, key: Array) -> tuple[tuple, Array]:
            x, particles = carry
            key_propose, key_run, key_accept = random.split(key, 3)
            proposed_x = proposal.propose(key_propose, x)
            proposed = run_to(key_run, jax.vmap(view.constrain)(proposed_x), population, process)
            before = jax.vmap(view.log_density)(x) + log_evidence(particles)
            after = jax.vmap(view.log_density)(proposed_x) + log_evidence(proposed)
            accepted = accept(key_accept, after - before) & alive
            kept = choose_rows(accepted, (proposed_x, proposed), (x, particles))
            return kept, jnp.mean(accepted.astype(x.dtype))

        keys = random.split(key, self.num_moves)
        (_, particles), acceptance = jax.lax.scan(move, (x, population.particles), keys)
        moved = eqx.tree_at(lambda p: p.particles, population, particles)
        return moved, {"acceptance": jnp.mean(acceptance)}

    def idle_info(self, population):
        """No move was made."""
        return {"acceptance": jnp.full_like(population.log_evidence, jnp.nan)}

    def _scaled(self, x: Float[Array, "N D"], normalized: Float[Array, " N"]) -> Any:
        if self.proposal is not None and not isinstance(self.proposal, AbstractMCMCKernel):
            return self.proposal
        proposal = RWMH() if self.proposal is None else self.proposal
        if not all(proposal.is_tuned):
            return proposal
        scale = population_scale(x, normalized, dense=True)
        return proposal.tuned(proposal.step_sizes(x.shape[-1]), scale)


def run_to(
    key: Array, values: dict[str, Array], population: Population, process: Nested
) -> NestedParticles:
    """Fresh inner populations at `values`, run to the present time; consumes `key`."""
    key_start, key_steps = random.split(key)
    num = population.num_particles

    def step(t: Array, inner: Population) -> Population:
        keys = random.split(random.fold_in(key_steps, t), num)
        return process.advance(keys, values, inner)

    start = process.start(random.split(key_start, num), values)
    return NestedParticles(values, jax.lax.fori_loop(0, population.time, step, start))


def log_evidence(particles: NestedParticles) -> Float[Array, " N"]:
    """Log Zhat of each inner population; -inf for dead ones."""
    estimate = particles.population.log_evidence_estimate
    return jnp.where(jnp.isnan(estimate), -jnp.inf, estimate)


class SMC2(AbstractSampler):
    """SMC^2 over the parameters of a program or family.

    Args:
        num_particles: N parameter values.
        filter: over states, with M particles; needs `num_particles` near T where the series is
            informative.
        proposal: of the moves, symmetric; None: a random walk scaled by the population.
        num_moves: Metropolis steps after each resampling.
        ess_threshold: resample and move when ESS < ess_threshold * N.
        resampler: scheme of the outer population.

    Returns (through `infer`): N weighted particles, each the parameters by name and the sites of
    the last step of one inner particle, drawn by its weight; `log_evidence`; `info`: `acceptance`
    `(T,)`, `resampled`, `ess`.

    Example:
        >>> import jax, numpyro.distributions as dist
        >>> from jurax.inference import ParticleFilter, infer
        >>> from jurax.models.state_space import StochasticVolatility
        >>> from jurax.ppl import family
        >>> y = StochasticVolatility.simulate(jax.random.key(0), num_steps=10).observations
        >>> models = family(lambda v: StochasticVolatility(y, v["mean"]), {"mean": dist.Normal()})
        >>> posterior = infer(jax.random.key(1), models, SMC2(64, ParticleFilter(20)))
        >>> posterior.particles["mean"].shape
        (64,)
    """

    num_particles: int = eqx.field(static=True)
    filter: AbstractSampler = ParticleFilter(num_particles=100)
    proposal: Any = None
    num_moves: int = eqx.field(static=True, default=3)
    ess_threshold: float = eqx.field(static=True, default=0.5)
    resampler: Any = Systematic()
    history: bool | None = eqx.field(static=True, default=False)
    has_budget: ClassVar[bool] = False

    def __check_init__(self):
        ess_below(self.ess_threshold)
        check_filter(self.filter)
        PMMHMove(self.proposal, self.num_moves)
        if self.proposal is not None and not hasattr(self.proposal, "propose"):
            raise TypeError(
                "proposal must have a symmetric `propose(key, x) -> x`, such as RWMH(), got "
                f"{self.proposal!r}"
            )

    @property
    def kernel(self) -> AbstractKernel:
        """One step, on the nested process."""
        move = Resample(self.resampler) >> PMMHMove(self.proposal, self.num_moves)
        return when(ess_below(self.ess_threshold), move) >> Extend()

    def prepare(self, process: AbstractProcess) -> AbstractProcess:
        """The nested process."""
        parameter_view(process)  # refuses a process without parameters
        return nest(self.filter.prepare(process), self.filter)

    def conclude(self, key_steps: Array, run: Run, process: AbstractProcess) -> Posterior:
        """Draw one inner particle of each row, by `final_key`."""
        return draw_inner(final_key(key_steps, process), self.report(run, process))

    def report(self, run: Run, process: AbstractProcess) -> Posterior:
        """Weighted (values, population)."""
        return posterior_of(run, process, process.target)


def draw_inner(key: Array, posterior: Posterior) -> Posterior:
    """Replace each inner population by one of its rows, drawn by weight; consumes `key`."""
    values, inner = posterior.particles.values, posterior.particles.population
    row = random.categorical(key, inner.log_weights)
    drawn = jax.tree.map(lambda x: jax.vmap(lambda a, i: a[i])(x, row), inner.particles)
    sites = drawn if isinstance(drawn, dict) else {"particle": drawn}
    particles = {**sites, **values} if values else drawn
    return eqx.tree_at(lambda p: p.particles, posterior, particles)
