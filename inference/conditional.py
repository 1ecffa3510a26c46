"""Conditional sequential Monte Carlo: a particle filter in which one path is pinned.

    repeat(when(ess_below(c), ConditionalResample(scheme)) >> Extend())    on Pinned(process, path)

followed by one draw of a path by the final weights (Andrieu, Doucet and Holenstein 2010, section
4.3). From path to path this is a Markov kernel that leaves the posterior of the process invariant,
for every N >= 1, every scheme with a conditional form, and every threshold: the decision to
resample reads all weights, that of the pinned row included. (N = 1 never moves.)

Slots are drawn as well. Given the path, the law of a filter's slots and ancestors is: the first
slot is uniform; at a resampling, ancestors a and slot k have the probability

    r(a) 1{a_k = i} / (N W_i),      i the slot before, r the law of the scheme,

which sums to 1 because E[counts_i] = N W_i. So nothing is asked of a scheme but that, neither
exchangeable slots nor a sorted order, and no slot is overwritten. Parents drawn by other weights v
(`Tempered`) have V_i for W_i, and children keep w / v.

Shape letters: B problems, N particles, T steps.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from jurax.inference import ancestor
from jurax.inference.compose import ess_below, when
from jurax.inference.extend import Extend
from jurax.inference.kernel import AbstractKernel, Info
from jurax.inference.loop import RECORDS, Run, run_steps
from jurax.inference.resample import Resample
from jurax.inference.resampling import Systematic
from jurax.inference.resampling.tempered import selection_of
from jurax.ppl import AbstractProcess, Population, genealogy, random, weights
from jurax.ppl.checks import at_least
from jurax.ppl.leaves import move_axis
from jurax.ppl.pinned import Pinned, PinnedParticles, clear_beyond, particles_slot, slot_mask
from jurax.ppl.process import gather_rows


class ConditionalResample(AbstractKernel):
    """Resample so that the pinned row has a child; that child is pinned from then on.

    Attributes:
        scheme: has `conditional(key, log_weights, num_particles, pinned) -> (ancestors, slot)`.
        ancestor_sampling: False, "exact" or "metropolis"; see `jurax.inference.ancestor`.

    Info: `ancestors` `(*B, N)`, `resampled`, `ancestor_moved` `(*B,)`.
    """

    scheme: Callable = Systematic()
    ancestor_sampling: Any = eqx.field(static=True, default=False)

    def step(self, key, population, process):
        """Resample every problem; consumes `key`."""
        key_parent, key_draw = random.split(key)
        present = particles_slot(population.particles)
        parent = ancestor.MOVES[self.ancestor_sampling](key_parent, population, process)
        ancestors, slot = self._draw(key_draw, population, parent)
        gathered = process.gather(population.particles, ancestors)
        selection = selection_of(self.scheme, population.log_weights)
        kept = population.log_weights - jnp.where(jnp.isneginf(selection), 0.0, selection)
        pinned = slot_mask(slot, population.num_particles)
        resampled = Population(
            particles=PinnedParticles(gathered.inner, pinned, gathered.length),
            log_weights=gather_rows(kept, ancestors),
            log_evidence=population.log_evidence + weights.log_mean(selection),
            time=population.time,
            status=population.status,
        )
        moved = parent != present
        return resampled, {
            "ancestors": ancestors,
            "resampled": jnp.ones_like(moved),
            "ancestor_moved": moved,
        }

    def idle_info(self, population):
        """Every particle is its own ancestor."""
        idle = Resample().idle_info(population)
        return {**idle, "ancestor_moved": jnp.zeros_like(idle["resampled"])}

    def _draw(self, key: Array, population: Population, parent: Array) -> tuple[Array, Array]:
        def draw(key: Array, log_weights: Array, parent: Array) -> tuple[Array, Array]:
            return self.scheme.conditional(key, log_weights, population.num_particles, parent)

        for _ in range(parent.ndim):
            draw = jax.vmap(draw)
        return draw(key, population.log_weights, parent)


class ConditionalFilter(eqx.Module):
    """The kernel from path to path; see the module docstring.

    Args:
        num_particles: N >= 1, the pinned row included.
        resampler: a scheme with `conditional`.
        ess_threshold: resample when ESS < ess_threshold * N.
        ancestor_sampling: False, "exact" or "metropolis"; see `jurax.inference.ancestor`.

    Example:
        >>> import jax
        >>> from jurax.models.state_space import LinearGaussian
        >>> model = LinearGaussian.simulate(jax.random.key(0), num_steps=3)
        >>> path = jnp.zeros((4, 1))
        >>> kernel = ConditionalFilter(num_particles=50)
        >>> kernel.sweep(jax.random.key(1), path, model).shape
        (4, 1)
    """

    num_particles: int = eqx.field(static=True)
    resampler: Any = Systematic()
    ess_threshold: float = eqx.field(static=True, default=0.5)
    ancestor_sampling: Any = eqx.field(static=True, default=False)

    def __check_init__(self):
        ess_below(self.ess_threshold)
        at_least(1, num_particles=self.num_particles)
        if not hasattr(self.resampler, "conditional"):
            raise TypeError(
                f"{self.resampler!r} has no `conditional(key, log_weights, num_particles, "
                "pinned)`: a path can be pinned only in a scheme with a conditional form, such as "
                "Systematic() or Multinomial()"
            )
        if self.ancestor_sampling not in ancestor.MOVES:
            raise ValueError(
                "ancestor_sampling must be False, 'exact' or 'metropolis', got "
                f"{self.ancestor_sampling!r}"
            )

    @property
    def kernel(self) -> AbstractKernel:
        """One step, on a `Pinned` process."""
        resample = ConditionalResample(self.resampler, self.ancestor_sampling)
        return when(ess_below(self.ess_threshold), resample) >> Extend()

    def sweep(self, key: Array, path: PyTree, process: AbstractProcess) -> PyTree:
        """Draw the next path given `path`; consumes `key`.

        Args:
            key: typed key, or one for each packed problem.
            path: records of one row stacked over steps, `(T + 1, *B, ...)`.
            process: with `replay`.
        """
        return self.draw(key, path, process)[0]

    def draw(
        self, key: Array, path: PyTree, process: AbstractProcess
    ) -> tuple[PyTree, Run, Int[Array, "*B"]]:
        """The next path, the run that it comes from, and its row there; consumes `key`."""
        key_init, key_steps, key_pick = random.split(key, 3)
        pinned = Pinned(process=process, path=path)  # pyright: ignore[reportCallIssue]
        population = self.kernel.init(key_init, pinned, self.num_particles)
        run = run_steps(self.kernel, key_steps, population, pinned, storage=RECORDS)
        row = random.categorical(key_pick, run.population.log_weights)
        length = gather_rows(run.population.particles.length, row[..., None])[..., 0]
        traced = trace_row(run.records, run.info["ancestors"], row)
        bare = eqx.tree_at(lambda r: r.population.particles, run, run.population.particles.inner)
        return clear_beyond(traced, length), bare, row


def trace_row(records: PyTree, ancestors: Array | None, row: Int[Array, "*B"]) -> PyTree:
    """The path of one row of a finished run, `(T + 1, *B, ...)`.

    Args:
        records: `(*B, T + 1, N, ...)`.
        ancestors: `(*B, T, N)`, or None where nothing was resampled.
        row: the final slot.
    """

    def trace(records: PyTree, ancestors: Array | None, row: Array) -> PyTree:
        length = jax.tree.leaves(records)[0].shape[0]
        slots = jnp.broadcast_to(row, (length,))
        if ancestors is not None:
            slots = genealogy.lineages(ancestors)[:, row]
        return jax.tree.map(lambda x: x[jnp.arange(length), slots], records)

    for _ in range(row.ndim):
        trace = jax.vmap(trace)
    traced = trace(records, ancestors, row)
    return jax.tree.map(lambda x: move_axis(x, row.ndim, 0), traced)


__all__ = ["ConditionalFilter", "ConditionalResample", "Info", "trace_row"]
