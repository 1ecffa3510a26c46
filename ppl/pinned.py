"""A process with one pinned path: the row of a given path among rows that move freely.

    Pinned(process, path)   row `slot` makes the moves of `path`, all others those of the process

The row is moved by `replay`, from wherever it stands, so that a path may be given another past
(ancestor sampling) and caches follow. Where a process has no `replay`, `jurax.ppl.storing` makes
one out of memory.

A *path* is the pytree of records of one row, stacked over steps, `(T + 1, *B, ...)`; steps that
were not made hold zeros. Shape letters: B problems, N particles, T steps.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jurax.ppl import leaves, random
from jurax.ppl.combinators.wrapper import AbstractAugmenting
from jurax.ppl.process import AbstractProcess


class PinnedParticles(eqx.Module):
    """Particles of `Pinned`: the wrapped ones, the pinned row of each problem, and steps made."""

    inner: PyTree
    pinned: Bool[Array, "*B N"]
    length: Int[Array, "*B N"]


class Pinned(AbstractAugmenting):
    """`process` with one row that follows `path`; starts in a slot drawn uniformly.

    Attributes:
        process: any process with `replay`.
        path: its records, `(T + 1, *B, ...)`.
    """

    process: AbstractProcess
    path: PyTree

    def init(self, key, num_particles):
        """Draw x_0 and a slot, in which the path starts; consumes `key`."""
        key_slot, key_init = random.split(key)
        inner, log_weights = self.process.init(key_init, num_particles)
        slot = draw_slot(key_slot, num_particles)
        pinned = slot_mask(slot, num_particles)
        row, log_weight, _ = self.process.replay(None, self.record_at(0), 0)
        inner, log_weights = self._place(pinned, (row, log_weight), (inner, log_weights))
        return PinnedParticles(inner, pinned, jnp.zeros(pinned.shape, jnp.int32)), log_weights

    def extend(self, key, particles, t):
        """Move all rows, the pinned one as its path says; consumes `key`."""
        row = self.process.gather(particles.inner, particles_slot(particles)[..., None])
        skipped = particles.pinned | self.process.finished(particles.inner)
        moved = self.process.extend(key, self.process.retire(particles.inner, skipped), t)
        row, log_increment, _ = self.process.replay(row, self.record_at(t), t)
        inner, log_increments = self._place(particles.pinned, (row, log_increment), moved)
        length = jnp.broadcast_to(jnp.asarray(t, jnp.int32), particles.length.shape)
        return PinnedParticles(inner, particles.pinned, length), log_increments

    def record_at(self, t: Int[Array, ""] | int, num: int = 1) -> PyTree:
        """The record of step t of the path, for `num` rows."""
        axis = len(self.batch_shape)

        def rows(leaf: Array) -> Array:
            at = jnp.expand_dims(jax.lax.dynamic_index_in_dim(leaf, t, 0, keepdims=False), axis)
            return jnp.broadcast_to(at, (*at.shape[:axis], num, *at.shape[axis + 1 :]))

        return jax.tree.map(rows, self.path)

    def _place(self, pinned: Array, row: tuple, others: tuple) -> tuple[PyTree, Array]:
        """Put the one row where `pinned` is, among the others."""
        copies = self.process.gather(row[0], jnp.zeros(pinned.shape, jnp.int32))
        return self.process.where(pinned, copies, others[0]), jnp.where(pinned, row[1], others[1])


def draw_slot(key: Array, num: int) -> Int[Array, "*B"]:
    """One of `num` slots with equal probability; consumes `key`."""
    point = random.uniform(key, breaks=lambda: jnp.arange(1, num) / num)
    return jnp.minimum((point * num).astype(jnp.int32), num - 1)


def slot_mask(slot: Int[Array, "*B"], num: int) -> Bool[Array, "*B N"]:
    """Where slot is, among `num`."""
    slots = jnp.arange(num).reshape((1,) * slot.ndim + (num,))
    return slots == jnp.expand_dims(slot, -1)


def particles_slot(particles: PinnedParticles) -> Int[Array, "*B"]:
    """The slot of the pinned row."""
    return jnp.argmax(particles.pinned, axis=-1).astype(jnp.int32)


# -------------------------------------------------------------------- the density of a path


class PathDensity(eqx.Module):
    """A path moved once more.

    Attributes:
        log_density: log gamma(path), the sum of log-densities of moves and of log-increments.
        length: extensions made before the path finished.
        particles: the final one, with one row.
    """

    log_density: Float[Array, "*B"]
    length: Int[Array, "*B"]
    particles: PyTree


def replay_path(process: AbstractProcess, path: PyTree) -> PathDensity:
    """Move along `path` and add up log m_t G_t; differentiable where the process is."""
    pinned = Pinned(process=process, path=path)  # pyright: ignore[reportCallIssue]
    first, log_weight, log_prob = process.replay(None, pinned.record_at(0), 0)

    def move(state: PathDensity, t: Array) -> tuple[PathDensity, None]:
        active = ~process.finished(state.particles)
        moved, log_increment, log_prob = process.replay(state.particles, pinned.record_at(t), t)
        gained = jnp.where(active, log_increment + log_prob, 0.0)[..., 0]
        return PathDensity(
            log_density=state.log_density + gained,
            length=jnp.where(active[..., 0], t, state.length),
            particles=process.where(active, moved, state.particles),
        ), None

    log_density = (log_weight + log_prob)[..., 0]
    start = PathDensity(log_density, jnp.zeros(log_density.shape, jnp.int32), first)
    return jax.lax.scan(move, start, jnp.arange(1, process.num_steps + 1, dtype=jnp.int32))[0]


def clear_beyond(path: PyTree, length: Int[Array, "*B"]) -> PyTree:
    """The path with zeros for the steps that were not made."""

    def clear(leaf: Array) -> Array:
        steps = jnp.arange(leaf.shape[0]).reshape((-1,) + (1,) * length.ndim)
        return leaves.choose(steps <= length[None], leaf, jnp.zeros_like(leaf))

    return jax.tree.map(clear, path)
