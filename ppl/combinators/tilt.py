"""A process times a potential of its prefixes.

Shape letters: N particles, B packed problems.
"""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jurax.ppl.combinators.temper import power
from jurax.ppl.combinators.wrapper import AbstractWeighing
from jurax.ppl.process import AbstractProcess


class Tilted(AbstractWeighing):
    """See `tilt`; remembers the last log potential."""

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

    def weigh(self, inner, extra, t):
        """The factor of step t."""
        log_potential = self.potential(inner, t)
        if self.how == "final":
            factor = jnp.where(self.ended(inner, t), power(log_potential, self.strength), 0.0)
        else:
            factor = power(log_potential, self.strength)
        if self.how == "ratio" and extra is not None:
            # A prefix of potential 0 has weight 0 already; its ratio does not matter.
            before = jnp.where(jnp.isneginf(extra), 0.0, extra)
            factor = factor - power(before, self.strength)
        return log_potential, factor


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
