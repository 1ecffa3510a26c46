"""Tempered resampling: parents by a power of their weights, the rest of the weight kept.

Parents are drawn in proportion to v_i = w_i^(1 / tau) by another scheme, and a child keeps the
weight w_i / v_i = w_i^(1 - 1 / tau), up to the constant that `jurax.inference.Resample` moves into
the evidence. The measure is preserved for every tau: tau = 1 is the scheme itself, tau = inf
chooses among all parents of positive weight with equal probability and keeps their weights. Drawing
by v without keeping the rest changes the target.

Shape letters: N particles, M points.
"""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int


class Tempered(eqx.Module):
    """Resample by w^(1 / tau) and keep the residual weight.

    Args:
        resampler: scheme that draws the parents.
        tau: temperature > 0; above 1 fewer particles are lost and weights stay uneven.

    Example:
        >>> import jax.numpy as jnp
        >>> from jurax.inference import Systematic
        >>> scheme = Tempered(Systematic(), tau=2.0)
        >>> scheme.selection(jnp.log(jnp.array([1.0, 16.0]))).round(3).tolist()
        [0.0, 1.3860000371932983]
    """

    resampler: Callable
    tau: float = eqx.field(static=True)

    def __check_init__(self):
        if not self.tau > 0:
            raise ValueError(f"tau must be greater than 0, got {self.tau}")

    def __call__(
        self, key: Array, log_weights: Float[Array, " N"], num_particles: int
    ) -> Int[Array, " M"]:
        """Draw `num_particles` ancestors in proportion to exp(selection); consumes `key`."""
        return self.resampler(key, self._tempered(log_weights), num_particles)

    def conditional(
        self,
        key: Array,
        log_weights: Float[Array, " N"],
        num_particles: int,
        pinned: Int[ArrayLike, ""],
    ) -> tuple[Int[Array, " M"], Int[Array, ""]]:
        """Draw ancestors and a slot whose parent is `pinned`, by the wrapped scheme.

        Raises:
            TypeError: if the wrapped scheme has no conditional form.
        """
        if not hasattr(self.resampler, "conditional"):
            raise TypeError(f"{self.resampler!r} has no `conditional`: see ConditionalFilter")
        tempered = self._tempered(log_weights)
        return self.resampler.conditional(key, tempered, num_particles, pinned)  # type: ignore[attr-defined]

    def selection(self, log_weights: Float[Array, "*B N"]) -> Float[Array, "*B N"]:
        """Log v: parents are drawn in proportion to v, and children keep w / v."""
        return selection_of(self.resampler, self._tempered(log_weights))

    def _tempered(self, log_weights: Array) -> Array:
        # A parent of weight zero stays one, also where the exponent 1 / tau is 0.
        return jnp.where(jnp.isneginf(log_weights), -jnp.inf, log_weights / self.tau)


def selection_of(scheme: Callable, log_weights: Float[Array, "*B N"]) -> Float[Array, "*B N"]:
    """Log v of a scheme: the log-weights themselves, unless it has a `selection` of its own."""
    own = getattr(scheme, "selection", None)
    return log_weights if own is None else own(log_weights)
