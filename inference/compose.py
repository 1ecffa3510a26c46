"""Kernels made of kernels: `when` a condition holds, `repeat` until the process ends, `mixture`."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jurax.inference.kernel import AbstractKernel, Info, active_rows, merge
from jurax.ppl import Population, random


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


class when(AbstractKernel):  # noqa: N801
    """Apply `kernel` to the problems in which `condition` holds and which are not at rest.

    The decision may use the present particles and weights only; then evidence stays unbiased
    (Whiteley, Lee and Heine 2016). For one problem the step is a conditional that stays one; for
    packed problems it runs if any problem needs it, and the others keep their rows.
    """

    condition: Callable
    kernel: AbstractKernel

    def step(self, key, population, process):
        """Step or rest; consumes `key`."""
        flag = self.condition(population)
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


class MixedKernels(AbstractKernel):
    """One of `kernels` at each step, drawn with `probabilities`; built by `mixture`."""

    kernels: tuple[AbstractKernel, ...]
    probabilities: Float[Array, " K"] = eqx.field(converter=jnp.asarray)

    def step(self, key, population, process):
        """Draw a kernel and make its step; consumes `key`."""
        key_choice, key_step = random.split(key)
        choice = random.categorical(key_choice, jnp.log(self.probabilities))
        branches = [self._branch(kernel, process) for kernel in self.kernels]
        if process.hosted:
            return branches[int(choice)](key_step, population)
        return jax.lax.switch(choice, branches, key_step, population)

    def idle_info(self, population):
        """The idle infos of all kernels."""
        info = {}
        for kernel in self.kernels:
            info = merge(info, kernel.idle_info(population))
        return info

    def _branch(self, kernel: AbstractKernel, process):
        def step(key, population):
            stepped, info = kernel.step(key, population, process)
            return stepped, {**self.idle_info(population), **info}

        return step


def mixture(kernels: Sequence, probabilities: Sequence[float] | ArrayLike | None = None):
    """One of several kernels at each step, drawn with fixed probabilities.

    The draw does not look at the population or the chain, so a mixture of preserving kernels is
    preserving, and a mixture of kernels that leave a law invariant leaves it invariant (Tierney
    1994, section 2.4).

    Args:
        kernels: kernels of populations, or Markov kernels such as `RWMH()` and `HMC()`.
        probabilities: of each; equal if None.

    Example:
        >>> from jurax.inference import HMC, RWMH
        >>> mixture([RWMH(), HMC()], [0.25, 0.75]).target_acceptance
        (0.234, 0.8)
    """
    from jurax.inference.mcmc.cycle import MixedChains
    from jurax.inference.mcmc.kernel import AbstractMCMCKernel

    kernels = tuple(kernels)
    weights = jnp.ones(len(kernels)) if probabilities is None else jnp.asarray(probabilities, float)
    if not kernels or weights.shape != (len(kernels),):
        raise ValueError(
            f"mixture expects kernels and a probability for each, got {len(kernels)} kernels and "
            f"probabilities of shape {weights.shape}"
        )
    if bool(jnp.any(weights < 0)) or not bool(jnp.sum(weights) > 0):
        raise ValueError(f"probabilities must be positive, got {weights.tolist()}")
    for kind, mixed in ((AbstractMCMCKernel, MixedChains), (AbstractKernel, MixedKernels)):
        if all(isinstance(kernel, kind) for kernel in kernels):
            return mixed(kernels, weights / jnp.sum(weights))
    raise TypeError(
        "mixture expects kernels of populations (Resample(), Extend(), Move(...)) or Markov "
        f"kernels (RWMH(), HMC()), not both, got {[type(k).__name__ for k in kernels]}"
    )


def step_key(key, time):
    """The key of one step: folded, so that step t draws the same however many were run before."""
    return random.fold_in(key, time)


__all__ = ["Info", "ess_below", "mixture", "repeat", "step_key", "when"]
