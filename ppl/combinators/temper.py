"""Powers of the potentials.

    gamma_beta = M_0 G_0^beta prod_t M_t G_t^beta

Shape letters: N particles, B packed problems.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jurax.ppl.combinators.propose import Proposed
from jurax.ppl.combinators.wrapper import AbstractWrapper, chain_of
from jurax.ppl.process import AbstractProcess


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


def temper(process: AbstractProcess, beta: float | Float[Array, ""]) -> AbstractProcess:
    """Raise every potential to the power `beta` and leave the moves alone.

    A potential of 0 stays 0 for beta > 0; for beta = 0 it counts as 1.

    Args:
        process: any process.
        beta: inverse temperature >= 0.

    Raises:
        ValueError: if the process has a proposal, whose correction must not be tempered.
    """
    if any(isinstance(wrapped, Proposed) for wrapped in chain_of(process)):
        raise ValueError(
            "temper would also raise the correction of a proposal to the power beta: temper the "
            "process first and propose outermost, propose(temper(process, beta), proposal)"
        )
    return Tempered(process=process, beta=jnp.asarray(beta, float))


def power(log_potential: Array, exponent: Array) -> Array:
    """Log psi^exponent with 0^0 = 1."""
    return jnp.where(exponent == 0, 0.0, exponent * log_potential)
