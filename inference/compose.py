"""Kernels made of kernels: `when` a condition holds, `repeat` until the process ends."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from jurax.inference.kernel import AbstractKernel, Info, active_rows
from jurax.ppl import AbstractProcess, Population, random


class ess_below(eqx.Module):  # noqa: N801 - reads as a condition in a composition
    """The condition ESS < fraction * N; never true of a dead population.

    Example:
        >>> import jax.numpy as jnp
        >>> population = Population.start(jnp.zeros(2), jnp.log(jnp.array([0.9, 0.1])))
        >>> bool(ess_below(0.5)(population)), bool(ess_below(0.9)(population))
        (False, True)
    """

    fraction: float = eqx.field(static=True)

    def __check_init__(self):
        if not 0 <= self.fraction <= 1:
            raise ValueError(f"the ESS fraction must lie in [0, 1], got {self.fraction}")

    def __call__(self, population: Population):
        """Evaluate the condition for each problem."""
        ess = population.ess
        return (ess < self.fraction * population.num_particles) & (ess > 0)


def holds(condition: Callable, population: Population, process: AbstractProcess):
    """`condition(population)`, with the process too where the condition says `takes_process`."""
    if getattr(condition, "takes_process", False):
        return condition(population, process)
    return condition(population)


class when(AbstractKernel):  # noqa: N801
    """Apply `kernel` to the problems in which `condition` holds and which are not at rest.

    The decision, `condition(population)`, may use the present particles and weights only; then
    evidence stays unbiased (Whiteley, Lee and Heine 2016). For one problem the step is a
    conditional that stays one; for packed problems it runs if any problem needs it, and the others
    keep their rows.
    """

    condition: Callable
    kernel: AbstractKernel

    def step(self, key, population, process):
        """Step or rest; consumes `key`."""
        flag = holds(self.condition, population, process)
        if process.hosted:
            return self._stepped(key, population, process) if flag else self._idle(population)
        if population.status.ndim == 0:
            return jax.lax.cond(
                flag,
                lambda: self._stepped(key, population, process),
                lambda: self._idle(population),
            )
        flag = flag & jnp.any(active_rows(population, process), axis=-1)
        return jax.lax.cond(
            jnp.any(flag),
            lambda: self._masked(key, population, process, flag),
            lambda: self._idle(population),
        )

    def idle_info(self, population):
        """The idle info of the kernel."""
        return self.kernel.idle_info(population)

    def _stepped(self, key, population, process):
        return self.kernel.step(key, population, process)

    def _idle(self, population):
        return population, self.kernel.idle_info(population)

    def _masked(self, key, population, process, flag):
        stepped, info = self._stepped(key, population, process)
        rows = jnp.broadcast_to(flag[..., None], population.log_weights.shape)

        def choose(new, old):
            return jax.tree.map(
                lambda a, b: jnp.where(
                    flag.reshape(flag.shape + (1,) * (a.ndim - flag.ndim)), a, b
                ),
                new,
                old,
            )

        merged = Population(
            particles=process.where(rows, stepped.particles, population.particles),
            log_weights=choose(stepped.log_weights, population.log_weights),
            log_evidence=choose(stepped.log_evidence, population.log_evidence),
            time=stepped.time,
            status=choose(stepped.status, population.status),
        )
        return merged, choose(info, self.kernel.idle_info(population))


class repeat(AbstractKernel):  # noqa: N801
    """Apply `kernel` until `num_steps` extensions are made or no row is active.

    Info: that of every step on a new axis after the problems, `(*B, T, ...)`; steps that were not
    needed hold the kernel's idle info.
    """

    kernel: AbstractKernel

    def step(self, key, population, process):
        """Run to the end; consumes `key`."""
        from jurax.inference.loop import run_steps

        run = run_steps(self.kernel, key, population, process)
        return run.population, {**run.info, "cost": run.cost}


def step_key(key, time):
    """The key of one step: folded, so that step t draws the same however many were run before."""
    return random.fold_in(key, time)


__all__ = ["Info", "ess_below", "repeat", "step_key", "when"]
