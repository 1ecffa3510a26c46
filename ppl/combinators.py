"""Processes from processes: `tilt` multiplies by a potential, `temper` takes powers of potentials.

A combinator wraps a process and forwards everything that it does not change.
Shape letters: N particles, B packed problems.
"""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jurax.ppl.process import AbstractProcess, gather_rows


class AbstractWrapper(AbstractProcess):
    """Forwards the optional methods to `process`."""

    process: eqx.AbstractVar[AbstractProcess]

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


class Tempered(AbstractWrapper):
    """See `temper`."""

    process: AbstractProcess
    beta: Float[Array, ""]

    @property
    def target(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The wrapped target with its potentials raised to beta."""
        return f"potentials^beta of: {self.process.target}"

    def init(self, key, num_particles):
        """G_0^beta."""
        particles, log_weights = self.process.init(key, num_particles)
        return particles, power(log_weights, self.beta)

    def extend(self, key, particles, t):
        """G_t^beta."""
        particles, log_increments = self.process.extend(key, particles, t)
        return particles, power(log_increments, self.beta)

    def replay(self, particles, record, t):
        """The given move, weighted by G_t^beta."""
        particles, log_increments, log_probs = self.process.replay(particles, record, t)
        return particles, power(log_increments, self.beta), log_probs


class TiltedParticles(eqx.Module):
    """Particles of a tilted process: those of the inner one and the last log potential."""

    inner: PyTree
    log_potential: Float[Array, "*B N"]


class Tilted(AbstractWrapper):
    """See `tilt`."""

    process: AbstractProcess
    potential: Callable
    strength: Float[Array, ""]
    how: str = eqx.field(static=True)

    @property
    def target(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The wrapped target times the potential."""
        factor = {
            "product": "prod_t psi_t^strength",
            "ratio": "psi_T^strength",
            "final": "psi_T^strength",
        }
        return f"({self.process.target}) * {factor[self.how]}"

    def init(self, key, num_particles):
        """G_0, tilted."""
        inner, log_weights = self.process.init(key, num_particles)
        log_potential = self.potential(inner, 0)
        ended = self.process.finished(inner) | (self.num_steps == 0)
        tilted = TiltedParticles(inner=inner, log_potential=log_potential)
        previous = jnp.zeros_like(log_potential)
        return tilted, log_weights + self._factor(log_potential, previous, ended)

    def extend(self, key, particles, t):
        """G_t, tilted."""
        inner, log_increments = self.process.extend(key, particles.inner, t)
        log_potential = self.potential(inner, t)
        ended = self.process.finished(inner) | (t == self.num_steps)
        factor = self._factor(log_potential, particles.log_potential, ended)
        return TiltedParticles(inner, log_potential), log_increments + factor

    def _factor(self, new: Array, old: Array, ended: Array) -> Array:
        if self.how == "product":
            return power(new, self.strength)
        if self.how == "ratio":
            # A prefix of potential 0 has weight 0 already; its ratio does not matter.
            return power(new, self.strength) - power(
                jnp.where(jnp.isneginf(old), 0.0, old), self.strength
            )
        return jnp.where(ended, power(new, self.strength), 0.0)

    def inner(self, particles):
        """Without the potential."""
        return particles.inner

    def gather(self, particles, ancestors):
        """Rows of both parts."""
        return TiltedParticles(
            inner=self.process.gather(particles.inner, ancestors),
            log_potential=gather_rows(particles.log_potential, ancestors),
        )

    def where(self, mask, new, old):
        """Rows of both parts."""
        return self._choose(self.process.where, mask, new, old)

    def settle(self, mask, new, old):
        """Rows of both parts."""
        return self._choose(self.process.settle, mask, new, old)

    def _choose(self, choose, mask, new, old):
        return TiltedParticles(
            inner=choose(mask, new.inner, old.inner),
            log_potential=jnp.where(mask, new.log_potential, old.log_potential),
        )

    def retire(self, particles, mask):
        """Forwarded."""
        inner = self.process.retire(particles.inner, mask)
        return TiltedParticles(inner=inner, log_potential=particles.log_potential)


def temper(process: AbstractProcess, beta: float | Float[Array, ""]) -> AbstractProcess:
    """Raise every potential to the power `beta` and leave the moves alone.

    gamma_beta = M_0 G_0^beta prod_t M_t G_t^beta. A potential of 0 stays 0 for beta > 0; for
    beta = 0 it counts as 1.

    Args:
        process: any process.
        beta: inverse temperature >= 0.
    """
    return Tempered(process=process, beta=jnp.asarray(beta, float))


def tilt(
    process: AbstractProcess,
    potential: Callable[[PyTree, Array | int], Float[Array, "*B N"]],
    strength: float | Float[Array, ""] = 1.0,
    how: str = "product",
) -> AbstractProcess:
    """Multiply the law of a process by a potential of its prefixes.

    Args:
        process: any process.
        potential: `(particles, t) -> log psi_t` for a whole population, t = 0..num_steps.
        strength: exponent of psi.
        how: "product": prod_t psi_t^strength; "ratio": increments (psi_t / psi_{t-1})^strength, so
            the target has psi_T^strength and the earlier ones only steer; "final":
            psi_T^strength, applied when a row finishes or at num_steps.
    """
    if how not in ("product", "ratio", "final"):
        raise ValueError(f"how must be 'product', 'ratio' or 'final', got {how!r}")
    return Tilted(
        process=process, potential=potential, strength=jnp.asarray(strength, float), how=how
    )


def power(log_potential: Array, exponent: Array) -> Array:
    """Log psi^exponent with 0^0 = 1."""
    return jnp.where(exponent == 0, 0.0, exponent * log_potential)
