"""Iterated batch importance sampling: the data of a program one observation at a time.

    pi_t(x) = p(x) prod_{s <= t} p(y_s | x) / Z_t,    t = 0, ..., T,

a particle filter over the data whose resampling is followed by moves (Chopin 2002, section 4):

    repeat(when(ess_below(c), Rescale() >> Resample() >> Move(kernel)) >> Extend())

Data are fed along the leading axis of the observed sites of a scan-free program: the program is
written and bound as for any algorithm, and the log-density of each observation is read off its
observed sites, so observations must be independent given the latent sites. Factors and observed
sites of another length count from the start. Missing observations (NaN) weigh 1.

Shape letters: N particles, D dimensions, T observations, K observations of a block.
"""

from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jurax.inference.compose import ess_below, when
from jurax.inference.extend import Extend
from jurax.inference.flat import AbstractFlatProcess, FlatParticles, start_particles
from jurax.inference.kernel import AbstractKernel
from jurax.inference.mcmc.hmc import HMC
from jurax.inference.mcmc.kernel import AbstractMCMCKernel
from jurax.inference.move import Move, Rescale
from jurax.inference.resample import Resample
from jurax.inference.resampling import Systematic
from jurax.inference.sampler import AbstractSampler
from jurax.ppl import Population, Posterior, random, weights
from jurax.ppl.program import Program
from jurax.ppl.unconstrained import Unconstrained

BLOCK = 32  # observations whose log-densities are kept with each particle


class DataPath(AbstractFlatProcess):
    """The path from the prior to the posterior of all data; step t adds observation t.

    `aux` of a particle holds the log-densities of the observations of the present block, `(K,)`,
    so that a program of T observations is evaluated T / K times between two moves, not T times.
    """

    view: Unconstrained
    kernel: AbstractMCMCKernel
    num_steps: int = eqx.field(static=True)
    dense: bool = eqx.field(static=True)

    def init(self, key, num_particles):
        """Draws from the prior, weighted by what is no observation; consumes `key`."""
        x = jax.vmap(self.view.draw)(random.split(key, num_particles))
        aux = jax.vmap(lambda x: self._block(self._terms(x)[0], 0))(x)
        particles = start_particles(x, aux, self.kernel, self.dense)
        return particles, jax.vmap(lambda x: self._terms(x)[1])(x)

    def extend(self, key, particles, t):
        """Weight by observation t; draws nothing."""
        del key
        index = t - 1

        def next_block() -> Array:
            return jax.vmap(lambda x: self._block(self._terms(x)[0], index))(particles.x)

        aux = jax.lax.cond(index % BLOCK == 0, next_block, lambda: particles.aux)
        beta = jnp.asarray(t / self.num_steps, particles.beta.dtype)
        shared = particles.scale, particles.log_steps
        return FlatParticles(particles.x, aux, beta, *shared), aux[:, index % BLOCK]

    def log_density(self, population):
        """Log p(x) + sum of the terms of the first t observations, and the present block."""
        time = population.time

        def partial_data(x: Array) -> tuple[Array, Array]:
            parts = self.view.evaluate(x)
            terms, rest = self._terms(x)
            seen = jnp.arange(self.num_steps) < time
            log_likelihood = rest + jnp.sum(jnp.where(seen, terms, 0.0))
            log_prior = parts.log_prior + parts.log_jacobian
            return log_prior + log_likelihood, self._block(terms, time)

        return partial_data

    def _terms(self, x: Float[Array, " D"]) -> tuple[Float[Array, " T"], Float[Array, ""]]:
        """The log-density of each observation, and of everything else."""
        terms, rest = jnp.zeros(self.num_steps), jnp.zeros(())
        for log_prob in self.view.log_likelihood_terms(x).values():
            if log_prob.shape[:1] == (self.num_steps,):
                terms += jnp.sum(log_prob.reshape(self.num_steps, -1), axis=1)
            else:
                rest += jnp.sum(log_prob)
        return terms, rest

    def _block(self, terms: Float[Array, " T"], index: Array | int) -> Float[Array, " K"]:
        """The terms of the block that observation `index` lies in."""
        padded = jnp.pad(terms, (0, BLOCK))
        return jax.lax.dynamic_slice_in_dim(padded, index // BLOCK * BLOCK, BLOCK)


class IBIS(AbstractSampler):
    """Data tempering of a program without discrete latent sites.

    Args:
        num_particles: N.
        move: Markov kernel that moves the particles after each resampling.
        num_moves: moves after each resampling.
        ess_threshold: resample and move when ESS < ess_threshold * N.
        resampler: scheme.
        dense: scale moves by the full covariance, not only its diagonal.
        start: posterior of an earlier run, of this program on the first data; the run goes on from
            there with the data that are new. It may come from a file.

    Info: `ess`, `resampled` `(T,)`, `acceptance`, `step_size` `(T, P)`, `ancestors` `(T, N)`.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
        >>> from jurax.inference import infer
        >>> from jurax.ppl import bind
        >>> def model(y):
        ...     mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        ...     numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        >>> y = jnp.array([1.0, 2.0, 3.0])
        >>> first = infer(jax.random.key(0), bind(model, y[:2]), IBIS(2000))
        >>> both = infer(jax.random.key(1), bind(model, y), IBIS(2000, start=first))
        >>> exact = dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3) + 1.0)
        >>> bool(abs(both.log_evidence - exact.log_prob(y)) < 0.3)
        True
    """

    num_particles: int = eqx.field(static=True)
    move: AbstractMCMCKernel = HMC()
    num_moves: int = eqx.field(static=True, default=3)
    ess_threshold: float = eqx.field(static=True, default=0.5)
    resampler: Callable = Systematic()
    dense: bool = eqx.field(static=True, default=True)
    start: Posterior | None = None
    takes_programs: ClassVar[bool] = True
    history: ClassVar[bool | None] = False  # type: ignore[misc]

    def __check_init__(self):
        ess_below(self.ess_threshold)
        if self.start is not None and self.start.log_weights.shape != (self.num_particles,):
            raise ValueError(
                f"start holds weights of shape {self.start.log_weights.shape}; IBIS goes on from "
                f"{self.num_particles} particles of one problem"
            )

    @property
    def kernel(self) -> AbstractKernel:
        """One observation."""
        renew = Rescale() >> Resample(self.resampler) >> Move(self.move, self.num_moves)
        return when(ess_below(self.ess_threshold), renew) >> Extend()

    def prepare(self, process: Program) -> DataPath:  # type: ignore[override]
        """The path of the program's data."""
        view = Unconstrained.of(process)
        return DataPath(view, self.move, num_observations(view), self.dense)

    def init(self, key, process, num_particles):
        """Draws from the prior, or the particles of `start`."""
        if self.start is None:
            return super().init(key, process, num_particles)
        start = self.start
        values = {name: start.particles[name] for name in process.view.names}
        x = jax.vmap(process.view.flatten)(values)
        log_evidence = start.log_evidence - weights.log_mean(start.log_weights)
        population = Population(
            particles=start_particles(x, None, self.move, self.dense),
            log_weights=start.log_weights,
            log_evidence=log_evidence,
            time=jnp.asarray(start.info["num_steps"], jnp.int32),
            status=jnp.asarray(start.info["status"], jnp.int32),
        )
        _, aux = jax.vmap(process.log_density(population))(x)
        return eqx.tree_at(
            lambda p: p.particles.aux, population, aux, is_leaf=lambda leaf: leaf is None
        )


def num_observations(view: Unconstrained) -> int:
    """T, the common leading length of the observed sites."""
    shapes = jax.eval_shape(view.log_likelihood_terms, jnp.zeros(view.dim))
    lengths = {name: x.shape[0] for name, x in shapes.items() if x.ndim > 0 and x.shape[0] > 0}
    longer = {name: length for name, length in lengths.items() if length > 1}
    lengths = longer or lengths  # an axis of length 1 beside longer ones is broadcast
    if len(set(lengths.values())) > 1:
        raise ValueError(
            "IBIS feeds the data along the leading axis of the observed sites, which must have one "
            f"length; these have {lengths}. Bring them to one axis, or use TemperedSMC"
        )
    if not lengths:
        raise ValueError(
            "IBIS found no observed site with a leading axis of observations; use TemperedSMC for "
            "a program whose data come at once"
        )
    return next(iter(lengths.values()))
