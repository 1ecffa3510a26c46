"""Laws of kernels and algorithms, checked as identities by enumerating their own randomness.

Every outcome of the draws of a *shipped* kernel is replayed (`jurax.ppl.walk`) and expectations are
sums, so a law holds to rounding error or is broken. Each check compares two finite measures, atom
by atom:

    check_preserving   E[mu'] = mu
    check_advancing    E[mu'] = mu moved by M and weighted by G
    check_unbiased     E[Zhat sum_i W_i 1{x_i = s}] = gamma(s) for every path s, hence E[Zhat] = Z
    check_invariant    sum_s pi(s) P(s, s') = pi(s') for every path s'

where mu = Zacc (1/N) sum_i w_i delta_{x_i} is the measure of a population (Scibior et al., POPL
2018; Del Moral 2004, Theorem 7.4.2). A key that is used twice breaks a law of its own. All runs in
double precision. The number of replays grows fast: take 2 or 3 particles, 2 or 3 steps and few
symbols; a few hundred replays take a second.
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jurax.ppl import genealogy, weights
from jurax.ppl.carrying import Measure, carrying, paths_of, states_of
from jurax.ppl.enumeration import (
    ExactPosterior,
    enumerate_process,
    follow,
    in_double,
)
from jurax.ppl.measures import (
    ADVANCING,
    INVARIANT,
    PRESERVING,
    UNBIASED,
    LawReport,
    Tally,
    flags_of,
)
from jurax.ppl.population import Population
from jurax.ppl.process import AbstractProcess
from jurax.ppl.walk import Walk

__all__ = [
    "ExactPosterior",
    "LawReport",
    "check_advancing",
    "check_invariant",
    "check_preserving",
    "check_unbiased",
    "enumerate_process",
]


def check_preserving(
    kernel: Any, process: AbstractProcess, population: Population, *, tolerance: float = 1e-10
) -> LawReport:
    """Check E[mu'] = mu for one step of a preserving kernel from `population`.

    A resampling preserves every population. A Markov move preserves those that represent its
    target: give it all states with their exact weights.

    Args:
        kernel: has `step(key, population, process) -> (population, info)`.
        process: the process of the population.
        population: one problem; its particles are compared by `process.output`.
        tolerance: largest error, relative to the mass of the population.

    Example:
        >>> import jax.numpy as jnp, numpyro.distributions as dist
        >>> from jurax.inference import Resample, Stratified
        >>> from jurax.ppl.state_space import StateSpaceModel
        >>> process = StateSpaceModel(
        ...     initial=dist.Bernoulli(0.5),
        ...     transition=lambda state, t: dist.Bernoulli(0.5),
        ...     potential=lambda state, t: 0.0,
        ...     num_steps=1,
        ... )
        >>> population = Population.start(jnp.array([0, 1]), jnp.log(jnp.array([0.3, 0.9])))
        >>> check_preserving(Resample(Stratified()), process, population).passed
        True
    """
    process, population = _prepared(process, population)
    tally = Tally(tolerance)
    walk = _walk_steps(kernel, process, population, tally)
    expected = _measure_of(process, population)
    return tally.report(walk, PRESERVING, expected)


def check_advancing(
    kernel: Any, process: AbstractProcess, population: Population, *, tolerance: float = 1e-10
) -> LawReport:
    """Check that one step of an advancing kernel moves and weights the measure of `population`.

    E[mu'] must be what each particle becomes on its own: drawn by M and weighted by G for as many
    steps as the kernel advanced, left alone where it is finished or has weight zero.

    Args:
        kernel: has `step(key, population, process) -> (population, info)`.
        process: the process of the population.
        population: one problem; its particles are compared by `process.output`.
        tolerance: largest error, relative to the mass of the result.

    Example:
        >>> import jax.numpy as jnp, numpyro.distributions as dist
        >>> from jurax.inference import Extend, Resample
        >>> from jurax.ppl.state_space import StateSpaceModel
        >>> process = StateSpaceModel(
        ...     initial=dist.Bernoulli(0.5),
        ...     transition=lambda x, t: dist.Bernoulli(jnp.where(x == 1, 0.75, 0.25)),
        ...     potential=lambda x, t: jnp.where(x == 1, -1.0, 0.0),
        ...     num_steps=1,
        ... )
        >>> population = Population.start(jnp.array([0, 1]), jnp.log(jnp.array([0.3, 0.9])))
        >>> bool(check_advancing(Resample() >> Extend(), process, population))
        True
    """
    process, population = _prepared(process, population)
    tally = Tally(tolerance)
    walk = _walk_steps(kernel, process, population, tally)
    expected = _advanced_measure(process, population, tally.last_time)
    return tally.report(walk, ADVANCING, expected)


def check_unbiased(
    algorithm: Any,
    process: AbstractProcess,
    *,
    exact: ExactPosterior | None = None,
    tolerance: float = 1e-10,
) -> LawReport:
    """Check E[Zhat sum_i W_i 1{x_i = s}] = gamma(s) for every path s, hence E[Zhat] = Z.

    If the algorithm keeps a history, the records traced along its ancestors must also be the path
    that each particle carries.

    Args:
        algorithm: has `run(key, process) -> Posterior`.
        process: one problem with finitely many outcomes.
        exact: what `enumerate_process(process)` returned, if it is at hand.
        tolerance: largest error, relative to Z.

    Example:
        >>> import jax.numpy as jnp, numpyro.distributions as dist
        >>> from jurax.inference import ParticleFilter
        >>> from jurax.ppl.state_space import StateSpaceModel
        >>> process = StateSpaceModel(
        ...     initial=dist.Bernoulli(0.5),
        ...     transition=lambda x, t: dist.Bernoulli(jnp.where(x == 1, 0.75, 0.25)),
        ...     potential=lambda x, t: jnp.where(x == 1, -1.0, 0.0),
        ...     num_steps=1,
        ... )
        >>> report = check_unbiased(ParticleFilter(num_particles=2, ess_threshold=0.9), process)
        >>> report.passed, report.branches
        (True, {'resampled': (16, 8)})
    """
    exact = enumerate_process(process) if exact is None else exact
    carried, algorithm = carrying(in_double(process)), in_double(algorithm)
    tally = Tally(tolerance)

    def run(key: Array) -> dict[str, Any]:
        posterior = algorithm.run(key, carried)
        check_double(posterior.log_weights, tolerance)
        traced = None
        if posterior.history is not None:
            history = posterior.history
            traced = genealogy.trace(history.records, history.ancestors, process.num_steps)
        return {
            "carried": posterior.particles,
            "traced": traced,
            "masses": jnp.exp(posterior.log_evidence) * weights.normalized(posterior.log_weights),
            "evidence": jnp.exp(posterior.log_evidence),
            "info": flags_of(posterior.info),
            "num_steps": posterior.info["num_steps"],
        }

    def visit(probability: float, end: dict[str, Any]) -> None:
        records, length, masses = end["carried"].records, end["carried"].length, end["masses"]
        tally.add(probability, paths_of(records, length), masses)
        tally.add_evidence(probability, float(end["evidence"]))
        tally.count({name: flag[: int(end["num_steps"])] for name, flag in end["info"].items()})
        if end["traced"] is not None:
            pairs = paths_of(records, length), paths_of(end["traced"], length)
            tally.add_genealogy(probability, *pairs, masses)

    walk = Walk(run, compiled=not process.hosted)
    walk.run(visit)
    return tally.report(walk, UNBIASED, exact.masses)


def check_invariant(
    algorithm: Any, process: AbstractProcess, *, tolerance: float = 1e-10
) -> LawReport:
    """Check that a sweep from path to path leaves the posterior of `process` invariant.

    sum_s pi(s) P(s, s') = pi(s') for every path s', where pi is the exact posterior and P(s, .)
    the law of one sweep from s.

    Args:
        algorithm: has `sweep(key, path, process) -> path`, where a path is the pytree of records
            of `process.record` stacked over steps, `(T + 1, ...)`; steps that were not made hold
            zeros. It may return `(path, info)`: boolean entries of the info are counted.
        process: one problem with finitely many outcomes.
        tolerance: largest error of a probability.

    Raises:
        NotImplementedError: if the algorithm has no `sweep`.

    Example:
        >>> import jax.numpy as jnp, numpyro.distributions as dist
        >>> from jurax.inference import ParticleGibbs
        >>> from jurax.ppl.state_space import StateSpaceModel
        >>> process = StateSpaceModel(
        ...     initial=dist.Bernoulli(0.5),
        ...     transition=lambda x, t: dist.Bernoulli(jnp.where(x == 1, 0.75, 0.25)),
        ...     potential=lambda x, t: jnp.where(x == 1, -1.0, 0.0),
        ...     num_steps=1,
        ... )
        >>> check_invariant(ParticleGibbs(num_particles=2, num_samples=1), process).passed
        True
    """
    if not hasattr(algorithm, "sweep"):
        raise NotImplementedError(
            f"{type(algorithm).__name__} has no `sweep(key, path, process) -> path`. "
            "check_invariant judges Markov kernels on paths, such as particle Gibbs; for filters "
            "use check_unbiased"
        )
    exact = enumerate_process(process)
    process, algorithm = in_double(process), in_double(algorithm)
    tally = Tally(tolerance)

    def run(key: Array, path: PyTree) -> tuple[PyTree, dict]:
        swept = algorithm.sweep(key, path, process)
        path, info = swept if isinstance(swept, tuple) else (swept, {})
        return path, flags_of(info)

    with jax.enable_x64(True):
        starts = [jax.tree.map(jnp.asarray, path) for path in exact.trajectories]
    walk = Walk(run, starts[0], compiled=not process.hosted)
    for start, mass in zip(starts, exact.probabilities, strict=True):

        def visit(probability: float, end: tuple, mass: float = mass) -> None:
            path, info = end
            tally.add(probability * mass, [tuple(states_of(path))], np.ones(1))
            tally.count(info)

        walk.run(visit, start)
    paths = [tuple(states_of(path)) for path in starts]
    expected = dict(zip(paths, map(float, exact.probabilities), strict=True))
    return tally.report(walk, INVARIANT, expected)


# -------------------------------------------------------------------- measures of populations


def _prepared(
    process: AbstractProcess, population: Population
) -> tuple[AbstractProcess, Population]:
    """Both in double precision; particles in the types that the process has there."""
    if process.batch_shape:
        raise ValueError("laws are checked on one problem; this process packs several")
    process, population = in_double(process), in_double(population)
    if process.hosted:
        return process, population
    with jax.enable_x64(True):
        start = functools.partial(process.init, num_particles=population.num_particles)
        like, _ = jax.eval_shape(start, jax.random.key(0))
        typed = jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), population.particles, like)
    return process, eqx.tree_at(lambda p: p.particles, population, typed)


def _walk_steps(
    kernel: Any, process: AbstractProcess, population: Population, tally: Tally
) -> Walk:
    """Replay one step of `kernel` and add up the measures of its results."""
    kernel = in_double(kernel)

    def run(key: Array) -> tuple:
        stepped, info = kernel.step(key, population, process)
        check_double(stepped.log_weights, tally.tolerance)
        return _row_masses(stepped), process.output(stepped.particles), stepped.time, flags_of(info)

    def visit(probability: float, end: tuple) -> None:
        masses, particles, time, info = end
        tally.add(probability, states_of(particles), masses)
        tally.last_time = max(tally.last_time, int(time))
        tally.count(info)

    walk = Walk(run, compiled=not process.hosted)
    walk.run(visit)
    return walk


def _measure_of(process: AbstractProcess, population: Population) -> Measure:
    tally = Tally()
    with jax.enable_x64(True):
        masses = np.asarray(_row_masses(population))
        tally.add(1.0, states_of(process.output(population.particles)), masses)
    return tally.measure


def _advanced_measure(process: AbstractProcess, population: Population, time: int) -> Measure:
    """Every particle on its own, from the time of the population to `time`."""
    tally = Tally()
    start = int(population.time) + 1
    with jax.enable_x64(True):
        masses = np.asarray(_row_masses(population))

    def run(key: Array, row: Array) -> tuple:
        particles = process.gather(population.particles, row[None])
        end, log_mass, _ = follow(key, particles, jnp.zeros(1), process, start, time + 1)
        return process.output(end), log_mass

    walk = Walk(run, jnp.int32(0), compiled=not process.hosted)
    for row in np.flatnonzero(masses):

        def visit(probability: float, end: tuple, mass: float = masses[row]) -> None:
            particles, log_mass = end
            tally.add(probability * mass, states_of(particles), np.exp(log_mass))

        walk.run(visit, jnp.int32(row))
    return tally.measure


def check_double(log_weights: Array, tolerance: float) -> None:
    """Refuse weights in single precision where the tolerance is below their rounding."""
    if log_weights.dtype != jnp.float64 and tolerance < 1e-6:
        raise ValueError(
            "the log-weights are in single precision, which cannot show a law to "
            f"{tolerance:g}. Arrays held by the process are widened; functions that close over "
            "float32 arrays are not: hold them in a callable eqx.Module, build them under "
            "jax.enable_x64(True), or pass tolerance=1e-4"
        )


def _row_masses(population: Population) -> Array:
    """Zacc w_i / N."""
    scale = jnp.exp(population.log_evidence) / population.num_particles
    return scale * jnp.exp(population.log_weights)
