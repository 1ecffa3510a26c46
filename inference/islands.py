"""Islands: a population of populations, each resampled on its own, and all of them by evidence.

    a filter on nest(process, filter)

with K islands of M particles (Verge, Dubarry, Del Moral and Moulines 2015). Islands do not talk to
one another but for the resampling of whole islands by their evidence estimates, which keeps the
weights proper: the evidence is unbiased for every K and M. Islands may live on different devices.

Shape letters: K islands, M particles, N = K M.
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from jurax.inference.kernel import AbstractKernel
from jurax.inference.loop import Run
from jurax.inference.particle_filter import ParticleFilter
from jurax.inference.pimh import check_filter
from jurax.inference.resampling import Systematic
from jurax.inference.sampler import AbstractSampler
from jurax.ppl import AbstractProcess, Posterior, weights
from jurax.ppl.nest import nest


class Islands(AbstractSampler):
    """A filter whose particles are filters.

    Args:
        num_particles: K islands.
        filter: of one island.
        ess_threshold: islands are resampled when their ESS < ess_threshold * K.
        resampler: scheme for islands.

    Returns (through `infer`): N = K M weighted particles; `info["ess"]` counts islands.

    Example:
        >>> import jax
        >>> from jurax.inference import ParticleFilter, infer
        >>> from jurax.models.state_space import LinearGaussian
        >>> model = LinearGaussian.simulate(jax.random.key(0), num_steps=5)
        >>> posterior = infer(jax.random.key(1), model, Islands(20, ParticleFilter(50)))
        >>> posterior.log_weights.shape
        (1000,)
        >>> bool(abs(posterior.log_evidence - model.log_evidence()) < 0.5)
        True
    """

    num_particles: int = eqx.field(static=True)
    filter: AbstractSampler = ParticleFilter(num_particles=100)
    ess_threshold: float = eqx.field(static=True, default=0.5)
    resampler: object = Systematic()
    history: bool | None = eqx.field(static=True, default=False)
    has_budget: ClassVar[bool] = False

    def __check_init__(self):
        check_filter(self.filter)
        assert self.kernel is not None  # checks the threshold

    @property
    def kernel(self) -> AbstractKernel:
        """One step, on the nested process."""
        return ParticleFilter(self.num_particles, self.resampler, self.ess_threshold).kernel  # type: ignore[arg-type]

    def prepare(self, process: AbstractProcess) -> AbstractProcess:
        """The nested process."""
        return nest(self.filter.prepare(process), self.filter)

    def report(self, run: Run, process: AbstractProcess) -> Posterior:
        """All particles of all islands: w = w_island W_inner, of mean w_island."""
        inner = process.output(run.population.particles).population
        shares = jax.vmap(weights.normalized)(inner.log_weights)
        shares = jnp.log(shares * inner.log_weights.shape[-1])
        log_weights = (run.population.log_weights[:, None] + shares).reshape(-1)

        def flat(leaf: Array) -> Array:
            return leaf.reshape(-1, *leaf.shape[2:])

        info = {name: x for name, x in run.info.items() if name != "ancestors"}
        return Posterior(
            particles=jax.tree.map(flat, inner.particles),
            log_weights=log_weights,
            log_evidence=run.population.log_evidence_estimate,
            info={
                **info,
                "num_steps": run.population.time,
                "status": run.population.status,
            },
            cost=run.cost,
            target=process.target,
        )
