"""What combinators share: a process that wraps another and forwards all that it does not change.

Shape letters: N particles, B packed problems.
"""

import abc
import dataclasses

import equinox as eqx
import jax
from jaxtyping import Array, Bool, Float, PyTree

from jurax.ppl import leaves
from jurax.ppl.process import AbstractProcess, gather_rows


class AbstractWrapper(AbstractProcess):
    """Forwards the optional methods to `process`."""

    process: eqx.AbstractVar[AbstractProcess]

    @property
    def target(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the wrapped process."""
        return self.process.target

    @property
    def num_steps(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Steps of the wrapped process."""
        return self.process.num_steps

    @property
    def hosted(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the wrapped process is hosted."""
        return self.process.hosted

    @property
    def batch_shape(self):
        """That of the wrapped process."""
        return self.process.batch_shape

    @property
    def layout(self):
        """That of the wrapped process."""
        return self.process.layout

    def prior(self):
        """That of the wrapped process."""
        return self.process.prior()

    def inner(self, particles: PyTree) -> PyTree:
        """The wrapped process's part of the particles; by default all of it."""
        return particles

    def innermost(self, particles: PyTree) -> PyTree:
        """Those of the wrapped process."""
        return self.process.innermost(self.inner(particles))

    def finished(self, particles):
        """Forwarded."""
        return self.process.finished(self.inner(particles))

    def gather(self, particles, ancestors):
        """Forwarded."""
        return self.process.gather(particles, ancestors)

    def where(self, mask, new, old):
        """Forwarded."""
        return self.process.where(mask, new, old)

    def settle(self, mask, new, old):
        """Forwarded."""
        return self.process.settle(mask, new, old)

    def retire(self, particles, mask):
        """Forwarded."""
        return self.process.retire(particles, mask)

    def record(self, particles, t):
        """Forwarded."""
        return self.process.record(self.inner(particles), t)

    def output(self, particles):
        """Forwarded."""
        return self.process.output(self.inner(particles))

    def cost(self, before, after):
        """Forwarded."""
        before = None if before is None else self.inner(before)
        return self.process.cost(before, self.inner(after))

    def cost_bound(self, particles):
        """Forwarded."""
        return self.process.cost_bound(self.inner(particles))


class Augmented(eqx.Module):
    """Particles with something more that a wrapper remembers of each: `extra`."""

    inner: PyTree
    extra: PyTree


class AbstractAugmenting(AbstractWrapper):
    """A wrapper that remembers something of each particle.

    Its particles are `Augmented`, or another module with the field `inner`; all other fields are
    what is remembered, one row for each particle.
    """

    def inner(self, particles):
        """Without what is remembered."""
        return particles.inner

    def gather(self, particles, ancestors):
        """Rows of both parts."""
        rest = gather_rows(with_inner(particles, None), ancestors)
        return with_inner(rest, self.process.gather(particles.inner, ancestors))

    def where(self, mask, new, old):
        """Rows of both parts."""
        return self._choose(self.process.where, mask, new, old)

    def settle(self, mask, new, old):
        """Rows of both parts."""
        return self._choose(self.process.settle, mask, new, old)

    def _choose(self, choose, mask, new, old):
        rest = with_inner(new, None), with_inner(old, None)
        chosen = jax.tree.map(lambda a, b: leaves.choose(mask, a, b), *rest)
        return with_inner(chosen, choose(mask, new.inner, old.inner))

    def retire(self, particles, mask):
        """Forwarded."""
        return with_inner(particles, self.process.retire(particles.inner, mask))

    def row_shape(self, particles):
        """That of the wrapped process."""
        return self.process.row_shape(particles.inner)


def with_inner(particles: PyTree, inner: PyTree) -> PyTree:
    """The same memories with other wrapped particles."""
    return dataclasses.replace(particles, inner=inner)


class AbstractWeighing(AbstractAugmenting):
    """The same moves; every weight gets a factor of the particle and of what is remembered."""

    @abc.abstractmethod
    def weigh(
        self, inner: PyTree, extra: PyTree | None, t: Array | int
    ) -> tuple[PyTree, Float[Array, "*B N"]]:
        """What is remembered after step t, and the log factor; `extra` is None at t = 0."""

    def init(self, key, num_particles):
        """G_0 times the factor."""
        inner, log_weights = self.process.init(key, num_particles)
        extra, factor = self.weigh(inner, None, 0)
        return Augmented(inner, extra), log_weights + factor

    def extend(self, key, particles, t):
        """G_t times the factor."""
        inner, log_increments = self.process.extend(key, particles.inner, t)
        extra, factor = self.weigh(inner, particles.extra, t)
        return Augmented(inner, extra), log_increments + factor

    def replay(self, particles, record, t):
        """The given move, weighted by G_t times the factor."""
        before = (None, None) if particles is None else (particles.inner, particles.extra)
        inner, log_increments, log_probs = self.process.replay(before[0], record, t)
        extra, factor = self.weigh(inner, before[1], t)
        return Augmented(inner, extra), log_increments + factor, log_probs

    def ended(self, inner: PyTree, t: Array | int) -> Bool[Array, "*B N"]:
        """Rows that are never weighed again."""
        return self.process.finished(inner) | (t == self.num_steps)


def chain_of(process: AbstractProcess) -> list[AbstractProcess]:
    """A process and all that it wraps, outermost first."""
    chain = [process]
    while isinstance(chain[-1], AbstractWrapper):
        chain.append(chain[-1].process)
    return chain
