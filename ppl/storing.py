"""Processes without densities: whole particles are stored, so that a move can be looked up.

A path of `Storing(process)` remembers particles and their increments. Conditional runs without
ancestor moves need no more than that. Shape letters: B problems, N particles, T steps.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jurax.ppl.combinators.wrapper import AbstractAugmenting
from jurax.ppl.process import AbstractProcess, missing


class StoredParticles(eqx.Module):
    """Particles of `Storing`, and what a path remembers of a step: the row and its increment."""

    inner: PyTree
    log_increment: Float[Array, "*B N"]


class Storing(AbstractAugmenting):
    """The same process with records of whole particles, so that `replay` is a look-up."""

    process: AbstractProcess

    @property
    def layout(self):
        """Records are particles here."""
        return None

    def init(self, key, num_particles):
        """Draw x_0; consumes `key`."""
        particles, log_weights = self.process.init(key, num_particles)
        return StoredParticles(particles, log_weights), log_weights

    def extend(self, key, particles, t):
        """Draw x_t; consumes `key`."""
        inner, log_increments = self.process.extend(key, particles.inner, t)
        return StoredParticles(inner, log_increments), log_increments

    def record(self, particles, t):
        """The whole particle."""
        del t
        return particles

    def replay(self, particles, record, t):
        """Look the move up; its density is not known."""
        del particles, t
        return record, record.log_increment, jnp.full_like(record.log_increment, jnp.nan)

    def settle(self, mask, new, old):
        """Rows of both: records are read again."""
        return self.where(mask, new, old)

    def read(self, path: PyTree) -> PyTree:
        """The records of the wrapped process along a path, `(T + 1, *B, ...)`."""
        axis = len(self.batch_shape)

        def read_step(stored: PyTree, t: Array) -> PyTree:
            rows = jax.tree.map(lambda x: jnp.expand_dims(x, axis), stored)
            record = self.process.record(rows, t)
            return jax.tree.map(lambda x: jnp.squeeze(x, axis), record)

        return jax.vmap(read_step)(path.inner, jnp.arange(self.num_steps + 1))


def replayable(process: AbstractProcess) -> AbstractProcess:
    """`process` if its moves can be replayed, else `Storing(process)`."""
    return process if can_replay(process) else Storing(process=process)


def can_replay(process: AbstractProcess) -> bool:
    """Whether `replay` is defined for every step; nothing is computed.

    With free parameters it is not: what is not in the record cannot be replayed.
    """
    if getattr(process, "parameters", ()):
        return False
    keys = jax.random.key(0)
    keys = jax.random.split(keys, process.batch_shape) if process.batch_shape else keys

    def replay_all(keys: Array) -> Any:
        particles, _ = process.init(keys, 1)
        started, *_ = process.replay(None, process.record(particles, 0), 0)
        if process.num_steps == 0:
            return started
        return process.replay(started, process.record(started, 1), 1)

    try:
        jax.eval_shape(replay_all, keys)
    except NotImplementedError:
        return False
    return True


def check_replay(process: AbstractProcess, purpose: str) -> None:
    """Refuse a process without `replay` by name."""
    if not can_replay(process):
        raise missing(process, "replay", f"the density of its moves for {purpose}")
