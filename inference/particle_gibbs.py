"""Particle Gibbs: draws of paths, and of parameters, by conditional sequential Monte Carlo.

    sweep = parameters given the path (if there are any) >> path given the parameters,

the first by a Markov kernel or a function of the user, the second by `ConditionalFilter` (Andrieu,
Doucet and Holenstein 2010, section 2.4.3; with ancestor sampling Lindsten, Jordan and Schon 2014).
Each part reads what the other has just drawn: a stale parameter passes every marginal test and
breaks the joint law. Both leave the posterior invariant, for every number of particles.

Shape letters: C chains, S draws, B problems, N particles, T steps.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from jurax.inference.conditional import ConditionalFilter
from jurax.inference.mcmc.chains import check_counts
from jurax.inference.mcmc.kernel import AbstractMCMCKernel
from jurax.inference.mcmc.rwmh import RWMH
from jurax.inference.mcmc.tuning import schedule
from jurax.inference.parameter_update import ParameterState, ParameterUpdate, check_update
from jurax.inference.particle_filter import ParticleFilter
from jurax.inference.resampling import Systematic
from jurax.inference.trajectory import (
    Trajectory,
    check_traceable,
    posterior_of_draws,
    run_chains,
    run_filter,
    trajectory_of,
)
from jurax.ppl import AbstractProcess, Cost, Posterior, random
from jurax.ppl.family import parameters_of
from jurax.ppl.storing import Storing, check_replay, replayable


class GibbsState(eqx.Module):
    """Where a chain stands: a path, and parameters or None."""

    trajectory: Trajectory
    parameters: ParameterState | None


class ParticleGibbs(eqx.Module):
    """Particle Gibbs.

    Args:
        num_particles: N >= 1, the pinned path included; with N = 1 paths never move.
        num_samples: S >= 1 draws of each chain.
        num_warmup: sweeps that are not kept, in which the parameter kernel is tuned.
        num_chains: C.
        ancestor_sampling: False; "exact" and "metropolis" need `replay`, see
            `jurax.inference.ancestor`. Without it old steps move only if N grows with T.
        parameter_kernel: moves the parameters of a program or family given the path: a Markov
            kernel such as `HMC()`, or a function `(key, values, path, process) -> values`. None:
            `RWMH()`.
        resampler: a scheme with a conditional form.
        ess_threshold: resample when ESS < ess_threshold * N.

    Returns (through `infer`): draws with axes `(C, S)`, zero log-weights; for programs by site name
    as NumPyro stacks them, else what the process puts out, with whole paths in `trajectories()`.
    `info`: `update_rate` `(T + 1,)`, how often the record of a step changed; `ess` `(C, S, T)`;
    `acceptance` of the parameter kernel; `ancestor_moved`.

    Example:
        >>> import jax
        >>> from jurax.inference import infer
        >>> from jurax.models.state_space import LinearGaussian
        >>> model = LinearGaussian.simulate(jax.random.key(0), num_steps=5)
        >>> gibbs = ParticleGibbs(num_particles=20, num_samples=100, ancestor_sampling="exact")
        >>> posterior = infer(jax.random.key(1), model, gibbs)
        >>> posterior.trajectories().shape
        (100, 6, 1)
    """

    num_particles: int = eqx.field(static=True)
    num_samples: int = eqx.field(static=True)
    num_warmup: int = eqx.field(static=True, default=0)
    num_chains: int = eqx.field(static=True, default=1)
    ancestor_sampling: Any = eqx.field(static=True, default=False)
    parameter_kernel: AbstractMCMCKernel | Callable | None = None
    resampler: Any = Systematic()
    ess_threshold: float = eqx.field(static=True, default=0.5)

    def __check_init__(self):
        check_counts(self.num_samples, self.num_warmup, self.num_chains)
        check_update(self.parameter_kernel)
        assert self.filter is not None  # checks the other fields

    @property
    def filter(self) -> ConditionalFilter:
        """The kernel from path to path."""
        return ConditionalFilter(
            self.num_particles, self.resampler, self.ess_threshold, self.ancestor_sampling
        )

    def sweep(self, key: Array, path: PyTree, process: AbstractProcess) -> tuple[PyTree, dict]:
        """The next path given `path`, for a process without free parameters; consumes `key`.

        Args:
            key: typed key, or one for each packed problem.
            path: records of one row stacked over steps, `(T + 1, *B, ...)`.
            process: with `replay`.
        """
        path, run, _ = self.filter.draw(key, path, process)
        return path, run.info

    def run(self, key: Array, process: AbstractProcess, budget: Cost | None = None) -> Posterior:
        """Run all chains; consumes `key`."""
        check_traceable(process, self, budget)
        if self.ancestor_sampling and not parameters_of(process):
            check_replay(process, f"ancestor_sampling={self.ancestor_sampling!r}")
        update = None
        if parameters_of(process):
            kernel = RWMH() if self.parameter_kernel is None else self.parameter_kernel
            update = ParameterUpdate(process, kernel, self.num_warmup)
        cycle = GibbsCycle(process, self.filter, update)
        draws, values, info, spent = run_chains(
            key, self.num_chains, lambda key: self._chain(key, cycle)
        )
        changed = info.pop("changed")
        posterior = posterior_of_draws(draws, values, info, process, spent)
        rates = jnp.moveaxis(jnp.mean(changed.astype(float), axis=(0, 1)), 0, -1)
        return eqx.tree_at(lambda p: p.info, posterior, {**posterior.info, "update_rate": rates})

    def _chain(self, key: Array, cycle: "GibbsCycle") -> tuple:
        """Draws, parameters, info `(S, ...)` and the cost of the start of one chain."""
        key_start, key_warmup, key_draw = random.split(key, 3)
        state = cycle.init(key_start)
        spent = state.trajectory.cost

        def warm(carry: tuple, inputs: tuple) -> tuple[tuple, None]:
            state, spent = carry
            state, _ = cycle.step(inputs[0], state, inputs[1:])
            return (state, add(spent, state.trajectory.cost)), None

        if self.num_warmup:
            counts, ends = map(jnp.asarray, schedule(self.num_warmup))
            inputs = random.split(key_warmup, self.num_warmup), counts, ends
            (state, spent), _ = jax.lax.scan(warm, (state, spent), inputs)
        state = cycle.freeze(state)

        def draw(state: GibbsState, key: Array) -> tuple[GibbsState, tuple]:
            moved, info = cycle.step(key, state)
            changed = differences(moved.trajectory.path, state.trajectory.path, info["ess"].ndim)
            values = {} if moved.parameters is None else moved.parameters.values
            return moved, (cycle.kept(moved), values, {**info, "changed": changed})

        _, kept = jax.lax.scan(draw, state, random.split(key_draw, self.num_samples))
        return *kept, spent


class GibbsCycle(eqx.Module):
    """Parameters, then path; see the module docstring.

    Attributes:
        process: the target, its parameters free.
        filter: the kernel from path to path.
        update: of the parameters, or None.
    """

    process: AbstractProcess
    filter: ConditionalFilter
    update: ParameterUpdate | None

    def init(self, key: Array) -> GibbsState:
        """Parameters from their prior, a path from a particle filter; consumes `key`."""
        key_parameters, key_path = random.split(key)
        parameters = None if self.update is None else self.update.init(key_parameters)
        process = self.process_at(parameters)
        start = ParticleFilter(
            self.filter.num_particles, self.filter.resampler, self.filter.ess_threshold
        )
        trajectory = run_filter(key_path, start.kernel, process, start.num_particles)
        return GibbsState(trajectory, parameters)

    def step(
        self, key: Array, state: GibbsState, inputs: tuple | None = None
    ) -> tuple[GibbsState, dict[str, Array]]:
        """One cycle; consumes `key`."""
        key_parameters, key_path = random.split(key)
        parameters, info = state.parameters, {}
        if self.update is not None and parameters is not None:
            path = state.trajectory.path
            parameters, info = self.update.step(key_parameters, parameters, path, inputs)
        process = self.process_at(parameters)
        path, run, row = self.filter.draw(key_path, state.trajectory.path, process)
        trajectory = trajectory_of(run, process, path, row)
        named = {name: run.info[name] for name in ("ess", "ancestor_moved") if name in run.info}
        return GibbsState(trajectory, parameters), {**named, **info}

    def freeze(self, state: GibbsState) -> GibbsState:
        """End the warm-up."""
        if self.update is None or state.parameters is None:
            return state
        return GibbsState(state.trajectory, self.update.freeze(state.parameters))

    def kept(self, state: GibbsState) -> Trajectory:
        """What is stored of a state: records as the process makes them."""
        process = self.process_at(state.parameters)
        if not isinstance(process, Storing):
            return state.trajectory
        path = process.read(state.trajectory.path)
        return eqx.tree_at(lambda s: s.path, state.trajectory, path)

    def process_at(self, parameters: ParameterState | None) -> AbstractProcess:
        """The process at fixed parameters, its moves replayable."""
        if parameters is None:
            return replayable(self.process)
        fixed = self.process.at(parameters.values)  # type: ignore[attr-defined]
        check_replay(fixed, "the density of a path given the parameters")
        return fixed


def differences(new: PyTree, old: PyTree, depth: int) -> Array:
    """Steps at which two paths differ, `(T + 1, *B)`, with `depth` axes."""

    def differs(a: Array, b: Array) -> Array:
        return jnp.any((a != b).reshape(*a.shape[:depth], -1), axis=-1)

    found = [differs(a, b) for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=True)]
    return jnp.any(jnp.stack(found), axis=0)


def add(first: Cost, second: Cost) -> Cost:
    """Sums that keep their types."""
    return jax.tree.map(lambda a, b: (a + b).astype(a.dtype), first, second)
