"""Exact answers for finite processes: every path, its posterior probability, and the evidence.

The one path of a population of one particle is followed through every outcome of its draws:

    gamma(s) = sum over outcomes that give the path s of (their probability) prod_t G_t(s),
    Z = sum_s gamma(s),      posterior(s) = gamma(s) / Z.

Shape letters: N particles, T steps.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from jurax.ppl import random
from jurax.ppl.carrying import Measure, carrying, paths_of
from jurax.ppl.process import AbstractProcess
from jurax.ppl.walk import Walk


@dataclasses.dataclass(frozen=True, eq=False)
class ExactPosterior:
    """The posterior of a finite process, most probable path first.

    Attributes:
        paths: tuples of records, one for each step made.
        probabilities: their posterior probabilities, float64; paths of mass 0 are left out.
        log_evidence: log Z; -inf if every path has mass 0, and then there are no paths.
        trajectories: the records of each path as `process.record` gave them, stacked over steps
            `(T + 1, ...)`; steps that were not made hold zeros.
    """

    paths: list[tuple]
    probabilities: np.ndarray
    log_evidence: float
    trajectories: list[PyTree]

    @property
    def masses(self) -> Measure:
        """gamma(s) of every path."""
        scale = np.exp(self.log_evidence)
        return {s: float(scale * p) for s, p in zip(self.paths, self.probabilities, strict=True)}

    def distribution(self, f: Callable[[tuple], Hashable]) -> Measure:
        """The exact law of a read-out of the path, as probability by value."""
        law: Measure = defaultdict(float)
        for path, probability in zip(self.paths, self.probabilities, strict=True):
            law[f(path)] += float(probability)
        return dict(law)

    def __str__(self) -> str:
        rows = zip(self.paths, self.probabilities, strict=True)
        lines = [f"log evidence {self.log_evidence:.6f}", *(f"{p:.6f}  {s}" for s, p in rows)]
        return "\n".join(lines)


def enumerate_process(process: AbstractProcess) -> ExactPosterior:
    """Compute the exact posterior of a process with finitely many outcomes.

    Runs in double precision, whatever the global setting.

    Args:
        process: draws by `jurax.ppl.random` or from finite NumPyro distributions; one problem.

    Raises:
        ValueError: if a draw has infinitely many outcomes, bypasses `jurax.ppl.random`, or if the
            process packs problems.

    Example:
        >>> import jax.numpy as jnp, numpyro.distributions as dist
        >>> from jurax.ppl.state_space import StateSpaceModel
        >>> process = StateSpaceModel(
        ...     initial=dist.Bernoulli(0.5),
        ...     transition=lambda state, t: dist.Bernoulli(jnp.where(state == 1, 0.75, 0.25)),
        ...     potential=lambda state, t: jnp.log(jnp.where(state == 1, 1.0, 0.5)),
        ...     num_steps=1,
        ... )
        >>> print(enumerate_process(process))
        log evidence -0.521297
        0.631579  (1, 1)
        0.157895  (0, 0)
        0.105263  (0, 1)
        0.105263  (1, 0)
    """
    if process.batch_shape:
        raise ValueError("enumerate_process takes one problem; this process packs several")
    process = carrying(in_double(process))
    masses: Measure = defaultdict(float)
    trajectories: dict[tuple, PyTree] = {}

    def visit(probability: float, end: tuple) -> None:
        carried, log_mass = end
        if log_mass[0] > -np.inf:
            (path,) = paths_of(carried.records, carried.length)
            masses[path] += probability * float(np.exp(log_mass[0]))
            trajectories.setdefault(path, jax.tree.map(lambda x: x[0], carried.records))

    def run(key: Array) -> tuple:
        key_init, key_steps = random.split(key)
        start = process.init(key_init, 1)
        last = process.num_steps + 1
        particles, log_mass, _ = follow(key_steps, *start, process, 1, last)
        return process.output(particles), log_mass

    walk = Walk(run, compiled=not process.hosted)
    walk.run(visit)
    evidence = sum(masses.values())
    paths = sorted(masses, key=lambda path: -masses[path])
    return ExactPosterior(
        paths=paths,
        probabilities=np.array([masses[path] for path in paths]) / (evidence or 1.0),
        log_evidence=float(np.log(evidence)) if evidence > 0 else -np.inf,
        trajectories=[trajectories[path] for path in paths],
    )


def follow(
    key: Array,
    particles: PyTree,
    log_mass: Float[Array, " 1"],
    process: AbstractProcess,
    start: Int[Array, ""] | int,
    stop: Int[Array, ""] | int,
) -> tuple[PyTree, Float[Array, " 1"], Int[Array, ""]]:
    """Extend one particle for t = start, ..., stop - 1, until it is finished or dead.

    This is the meaning of a process, against which kernels are judged; it is no kernel.
    """

    def is_active(state: tuple) -> Array:
        particles, log_mass, t = state
        return (t < stop) & ~process.finished(particles)[0] & ~jnp.isneginf(log_mass[0])

    def extend(state: tuple) -> tuple:
        particles, log_mass, t = state
        particles, increments = process.extend(random.fold_in(key, t), particles, t)
        return particles, log_mass + increments, t + 1

    state = (particles, log_mass, jnp.asarray(start, jnp.int32))
    if not process.hosted:
        return jax.lax.while_loop(is_active, extend, state)
    while is_active(state):
        state = extend(state)
    return state


def in_double(tree: PyTree) -> PyTree:
    """Floating arrays in double precision."""
    with jax.enable_x64(True):
        return jax.tree.map(_widen, tree)


def _widen(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array | np.ndarray) and jnp.issubdtype(leaf.dtype, jnp.floating):
        return jnp.asarray(leaf, jnp.float64)
    return leaf
