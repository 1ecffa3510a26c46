"""Particles that carry their path through every kernel, and the values of paths and states.

A *path* is the tuple of the records (`process.record`) of its steps, up to the step at which it
finished. `Carrying(process)` runs the same moves and potentials; its rows hold their records, so
that the path of a row is known whatever a kernel does to the population.

Values are hashable Python objects; floats are compared to ten digits.
Shape letters: B problems, N particles, T steps.
"""

from collections.abc import Hashable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from jurax.ppl.combinators.wrapper import AbstractAugmenting, with_inner
from jurax.ppl.leaves import allocate, choose, is_host
from jurax.ppl.process import AbstractProcess

Measure = dict[Any, float]  # mass by atom
NOT_A_NUMBER = float("nan")  # one object, so that it equals itself inside a path


class Carried(eqx.Module):
    """Particles with their records so far.

    Attributes:
        inner: particles of the wrapped process; in an output, its output.
        records: `(*B, N, T + 1, ...)`.
        length: steps recorded, that is 1 + the extensions made.
    """

    inner: PyTree
    records: PyTree
    length: Int[Array, "*B N"]


class Carrying(AbstractAugmenting):
    """The same process, whose particles carry their path through every kernel."""

    process: AbstractProcess

    def init(self, key, num_particles):
        """Start the records."""
        particles, log_weights = self.process.init(key, num_particles)
        rows = log_weights.shape
        record = self.process.record(particles, 0)
        records = jax.tree.map(lambda x: allocate(x, self.num_steps + 1, len(rows)), record)
        start = Carried(particles, records, jnp.zeros(rows, jnp.int32))
        return self._append(start, particles, 0), log_weights

    def extend(self, key, particles, t):
        """Extend and append the record of the step."""
        extended, increments = self.process.extend(key, particles.inner, t)
        return self._append(particles, extended, t), increments

    def _append(self, before: Carried, particles: PyTree, t: Array | int) -> Carried:
        record = self.process.record(particles, t)
        depth = before.length.ndim
        slots = jnp.arange(self.num_steps + 1).reshape((1,) * depth + (-1,))
        slots = slots == before.length[..., None]
        records = jax.tree.map(
            lambda old, x: choose(slots, _expand_at(x, depth), old), before.records, record
        )
        return Carried(particles, records, before.length + 1)

    def output(self, particles):
        """The output of the wrapped process, with the path."""
        return with_inner(particles, self.process.output(particles.inner))


def carrying(process: AbstractProcess) -> Carrying:
    """`process` with particles that carry their path."""
    return Carrying(process=process)  # pyright: ignore[reportCallIssue]


def _expand_at(x: Any, axis: int) -> Any:
    return (np if is_host(x) else jnp).expand_dims(x, axis)


def paths_of(records: PyTree, length: Any) -> list[tuple]:
    """The path of each particle, as a tuple of the records of its steps."""
    names, leaves = _named_leaves(records)
    paths = []
    for i, num in enumerate(np.asarray(length).tolist()):
        paths.append(tuple(_record_of(names, leaves, (i, t)) for t in range(num)))
    return paths


def states_of(particles: PyTree) -> list[Hashable]:
    """The value of each particle, `(N, ...)` leaves."""
    names, leaves = _named_leaves(particles)
    return [_record_of(names, leaves, (i,)) for i in range(leaves[0].shape[0])]


def _record_of(names: list[str], leaves: list[np.ndarray], index: tuple[int, ...]) -> Hashable:
    values = [_freeze(leaf[index]) for leaf in leaves]
    return values[0] if names == [""] else tuple(zip(names, values, strict=True))


def _named_leaves(tree: PyTree) -> tuple[list[str], list[np.ndarray]]:
    found, _ = jax.tree_util.tree_flatten_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in found]
    return names, [np.asarray(leaf) for _, leaf in found]


def _freeze(value: Any) -> Hashable:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list):
        return tuple(_freeze(x) for x in value)
    if isinstance(value, float):
        return NOT_A_NUMBER if value != value else float(f"{value:.9e}") + 0.0
    return value
