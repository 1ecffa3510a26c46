"""Smoothing: the law of the whole path given the whole series, in three ways.

    traceback   particle filter, ancestors followed back from the end
    fixed_lag   particle filter on a process that remembers L steps; x_t is summed up at t + L
    backward    particle filter, then paths drawn backwards (`jurax.inference.backward`)

Followed back, paths coalesce: far from the end they are few. A fixed lag ignores observations later
than t + L, a bias that falls with L (Kitagawa and Sato 2001; Olsson et al. 2008); its memory does
not grow with the series. Backward sampling keeps the particles of all times and has neither fault;
it needs Markov states with a density (Godsill, Doucet and West 2004).

Shape letters: N particles, M trajectories, T steps, T1 = T + 1, L lag.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from jurax.inference import backward
from jurax.inference.compose import ess_below
from jurax.inference.kernel import AbstractKernel
from jurax.inference.lag import Lagged, flush, remembering
from jurax.inference.particle_filter import ParticleFilter
from jurax.inference.resampling import Systematic
from jurax.inference.sampler import AbstractSampler, final_key, posterior_of
from jurax.ppl import History, Posterior
from jurax.ppl.checks import at_least
from jurax.ppl.process import AbstractProcess

METHODS = ("traceback", "fixed_lag", "backward")


class Smoother(AbstractSampler):
    """Particle smoother; a filter first, with its unbiased evidence.

    "traceback" and "backward" return trajectories (`posterior.trajectories()`): the N weighted ones
    of the filter, or `num_trajectories` equally weighted ones drawn backwards. "fixed_lag" returns
    the filter's last population, and in `posterior.info["smoothed"]` the means of `statistic` for
    every time, `(T1, ...)`; for times that a run that ended early did not reach, NaN.

    Args:
        num_particles: N >= 1.
        method: "traceback", "fixed_lag" or "backward".
        lag: L >= 1, for "fixed_lag" only.
        statistic: what "fixed_lag" averages: `(record) -> arrays` of one particle's record at time
            t = 0..T, or `(previous, record) -> arrays` of those at t - 1 and t, for t = 1..T (entry
            0 is then NaN). None: the record itself.
        num_trajectories: M, for "backward" only; None: N.
        num_moves: for "backward" only. None: each state is drawn exactly, at a cost of N densities
            for each of M trajectories and T steps. A number >= 1: so many Metropolis moves from the
            ancestor, each one density (Bunch and Godsill 2013); the law is right for every number,
            but few moves leave some of the coalescence.
        resampler: as in `ParticleFilter`.
        ess_threshold: as in `ParticleFilter`.

    Example:
        >>> import jax
        >>> from jurax.inference import infer
        >>> from jurax.models.state_space import LinearGaussian
        >>> model = LinearGaussian.simulate(jax.random.key(0), num_steps=10)
        >>> smoother = Smoother(num_particles=1000, method="backward")
        >>> paths = infer(jax.random.key(1), model, smoother).trajectories()
        >>> paths.shape, bool(abs(paths.mean(0) - model.smoothed().means).max() < 0.2)
        ((1000, 11, 1), True)
    """

    num_particles: int = eqx.field(static=True)
    method: str = eqx.field(static=True, default="traceback")
    lag: int | None = eqx.field(static=True, default=None)
    statistic: Callable | None = None
    num_trajectories: int | None = eqx.field(static=True, default=None)
    num_moves: int | None = eqx.field(static=True, default=None)
    resampler: Callable = Systematic()
    ess_threshold: float = eqx.field(static=True, default=0.5)

    def __check_init__(self):
        ess_below(self.ess_threshold)
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {METHODS}, got {self.method!r}")
        if self.method == "fixed_lag" and not (isinstance(self.lag, int) and self.lag >= 1):
            raise ValueError(f"fixed_lag needs a lag >= 1, got lag={self.lag!r}")
        for name, method in (
            ("lag", "fixed_lag"),
            ("statistic", "fixed_lag"),
            ("num_trajectories", "backward"),
            ("num_moves", "backward"),
        ):
            value = getattr(self, name)
            if value is not None and self.method != method:
                raise ValueError(f"{name} belongs to method={method!r}, not {self.method!r}")
            if method == "backward" and value is not None:
                at_least(1, **{name: value})

    @property
    def history(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Records of all steps are kept, except with a fixed lag."""
        return self.method != "fixed_lag"

    @property
    def kernel(self) -> AbstractKernel:
        """One step of the filter; with a fixed lag, the report of the oldest state too."""
        step = ParticleFilter(
            self.num_particles, resampler=self.resampler, ess_threshold=self.ess_threshold
        ).kernel
        if self.lag is None:
            return step
        return Lagged(step, lag=self.lag, statistic=self.statistic)

    def prepare(self, process):
        """A process that remembers its last L steps, for a fixed lag."""
        if self.lag is not None:
            return remembering(process, self.lag, self.statistic)
        if self.method == "backward":
            backward.check_process(process)
        return process

    def record(self, population, process):
        """Particles and weights for backward sampling, else the record of the process."""
        if self.method != "backward":
            return super().record(population, process)
        return backward.Slice(population.particles, population.log_weights)

    def conclude(self, key_steps, run, process):
        """Draw paths backwards, or add the times of the last L steps."""
        if self.method == "traceback":
            return self.report(run, process)
        if self.lag is not None:
            posterior = self.report(run, process)
            filed, num_steps = posterior.info["smoothed"], process.num_steps
            smoothed = flush(filed, run.population, num_steps, self.lag, self.statistic)
            return eqx.tree_at(lambda p: p.info["smoothed"], posterior, smoothed)
        num = self.num_trajectories or self.num_particles
        paths = backward.draw_paths(
            final_key(key_steps, process), run, process, num, self.num_moves
        )
        return path_posterior(paths, posterior_of(run, process, process.target), process)


def path_posterior(
    paths: backward.Slice, filtered: Posterior, process: AbstractProcess
) -> Posterior:
    """Equally weighted trajectories with the evidence of the filter that they were drawn from."""
    times = jnp.arange(process.num_steps + 1)
    records = jax.vmap(process.record)(paths.particles, times)
    last = jax.tree.map(lambda x: x[-1], paths.particles)
    num = paths.log_weights.shape[-1]
    is_dead = jnp.isneginf(filtered.log_evidence)
    # Ancestors are those of the filter, not of the trajectories.
    of_filter = ("ancestors", "resampled")
    info = {name: x for name, x in filtered.info.items() if name not in of_filter}
    return Posterior(
        particles=process.output(last),
        log_weights=jnp.full(num, jnp.where(is_dead, -jnp.inf, 0.0), filtered.log_weights.dtype),
        log_evidence=filtered.log_evidence,
        info=info,
        cost=filtered.cost,
        history=History(records=records, ancestors=None, layout=process.layout),
        target=filtered.target,
    )
