"""Warm-up: step sizes by dual averaging, scales from the chains, both frozen afterwards.

Step sizes follow Hoffman and Gelman 2014, Algorithm 5, each to the acceptance rate of its kernel;
scales are estimated in windows of doubling length (Stan reference manual, section 15.2). Schedule
and recursion are numpyro's.

Shape letters: N rows, D dimensions, P parts of a composed kernel.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.infer import hmc_util

from jurax.inference.mcmc.kernel import AbstractMCMCKernel, Scale

_start_averaging, _average = hmc_util.dual_averaging()


class Tuning(eqx.Module):
    """The state of a warm-up.

    Attributes:
        step_sizes: in use now.
        scale: in use now.
        averaging: of dual averaging, for each part.
        moments: count, mean and sum of squares of the window.
    """

    step_sizes: Float[Array, " P"]
    scale: Scale
    averaging: Any
    moments: tuple[Array, Array, Array]


class Tuner(eqx.Module):
    """Tunes `kernel` over `num_warmup` steps.

    Attributes:
        kernel: any Markov kernel.
        num_warmup: steps of the warm-up.
        dense: whether the scale is a Cholesky factor of the covariance, not only its diagonal.
    """

    kernel: AbstractMCMCKernel
    num_warmup: int = eqx.field(static=True)
    dense: bool = eqx.field(static=True, default=False)

    def init(self, dim: int) -> Tuning:
        """The tuning before the first step."""
        step_sizes = self.kernel.step_sizes(dim)
        return Tuning(
            step_sizes=step_sizes,
            scale=jnp.eye(dim) if self.dense else jnp.ones(dim),
            averaging=_restart(step_sizes),
            moments=_no_moments(dim, self.dense),
        )

    def update(
        self,
        tuning: Tuning,
        x: Float[Array, " D"],
        acceptance: Float[Array, " P"],
        counts: Array,
        ends: Array,
    ) -> Tuning:
        """Learn from one step of a chain."""
        added = add_rows(tuning.moments, x[None])
        moments = jax.tree.map(lambda a, b: jnp.where(counts, a, b), added, tuning.moments)
        averaging = self._averaged(tuning.averaging, acceptance)
        step_sizes = self._bounded(jnp.exp(averaging[0]))
        going_on = Tuning(step_sizes, tuning.scale, averaging, moments)

        def next_window() -> Tuning:
            best = self._bounded(jnp.exp(averaging[1]))
            scale = scale_of(moments)
            return Tuning(best, scale, _restart(best), _no_moments(x.shape[-1], self.dense))

        return jax.lax.cond(ends, next_window, lambda: going_on)

    def freeze(self, tuning: Tuning) -> AbstractMCMCKernel:
        """The tuned kernel: averaged step sizes, last scale."""
        return self.running(self.settled(tuning))

    def settled(self, tuning: Tuning) -> Tuning:
        """The tuning with averaged step sizes, to be used from now on."""
        if not self.num_warmup:
            return tuning
        averaged = self._bounded(jnp.exp(tuning.averaging[1]))
        return Tuning(averaged, tuning.scale, tuning.averaging, tuning.moments)

    def running(self, tuning: Tuning) -> AbstractMCMCKernel:
        """The kernel for the next step of the warm-up."""
        step_sizes = self._chosen(tuning.step_sizes, tuning.scale.shape[-1])
        return self.kernel.tuned(step_sizes, tuning.scale)

    def _averaged(self, averaging: Any, acceptance: Array) -> Any:
        used = ~jnp.isnan(acceptance)  # a mixture makes one of its steps
        gap = jnp.asarray(self.kernel.target_acceptance) - acceptance
        updated = jax.vmap(_average)(gap, averaging)
        return jax.tree.map(lambda new, old: jnp.where(used, new, old), updated, averaging)

    def _bounded(self, step_sizes: Array) -> Array:
        return jnp.minimum(step_sizes, jnp.asarray(self.kernel.largest_step_sizes()))

    def _chosen(self, step_sizes: Array, dim: int) -> Array:
        return jnp.where(jnp.asarray(self.kernel.is_tuned), step_sizes, self.kernel.step_sizes(dim))


def schedule(num_warmup: int) -> tuple[np.ndarray, np.ndarray]:
    """For each step: does it count for the scale, and does a window end with it?"""
    counts, ends = np.zeros(num_warmup, bool), np.zeros(num_warmup, bool)
    windows = hmc_util.build_adaptation_schedule(num_warmup) if num_warmup else []
    for window in windows[1:-1]:
        counts[window.start : window.end + 1] = True
        ends[window.end] = True
    return counts, ends


def _restart(step_sizes: Float[Array, " P"]) -> Any:
    """Dual averaging around the present step sizes, which are in units of the scale already."""
    averaging = jax.vmap(_start_averaging)(jnp.log(step_sizes))
    return (averaging[0], jnp.log(step_sizes), *averaging[2:])


def _no_moments(dim: int, dense: bool) -> tuple[Array, Array, Array]:
    square = jnp.zeros((dim, dim) if dense else dim)
    return jnp.zeros(()), jnp.zeros(dim), square


def add_rows(moments: tuple[Array, Array, Array], x: Float[Array, "N D"]) -> tuple:
    """Count, mean and sum of squared deviations with the rows of `x` added (Chan et al. 1979)."""
    count, mean, squares = moments
    total = count + x.shape[0]
    batch_mean = jnp.mean(x, axis=0)
    centred = x - batch_mean[None]
    shift = batch_mean - mean
    weight = count * x.shape[0] / total
    if squares.ndim == 1:
        added = jnp.sum(centred**2, axis=0) + weight * shift**2
    else:
        added = centred.T @ centred + weight * jnp.outer(shift, shift)
    return total, mean + shift * (x.shape[0] / total), squares + added


def scale_of(moments: tuple[Array, Array, Array]) -> Scale:
    """Standard deviations or Cholesky factor, shrunk as in Stan: n/(n+5) V + 5e-3/(n+5)."""
    count, _, squares = moments
    return shrunk_root(squares / jnp.maximum(count - 1, 1.0), count)


def shrunk_root(covariance: Array, count: Array) -> Scale:
    """Root of a (co)variance estimated from `count` values, shrunk towards a small sphere."""
    shrunk = covariance * (count / (count + 5.0))
    floor = 5e-3 / (count + 5.0)
    if covariance.ndim == 1:
        return jnp.sqrt(shrunk + floor)
    return jnp.linalg.cholesky(shrunk + floor * jnp.eye(len(covariance)))
