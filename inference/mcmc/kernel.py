"""Markov kernel on R^D: `init` and `step` for a given log-density, and compositions of kernels.

A kernel moves one vector `(D,)` or a whole population `(N, D)` by one batched draw; the
log-density is that of one vector and is lifted here. It leaves exp(log_density) invariant for any
fixed tuning. Tuning, a step size for each part of a composition and one common scale, is part of
the kernel: `tuned` returns the kernel with other values.

Shape letters: N chains or particles (absent for one), D dimensions, P parts of a composition.
"""

import abc
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from jurax.ppl import random

# x -> log density, or (log density, anything that is kept with the state).
LogDensity = Callable[[Array], Any]
Scale = Float[Array, " D"] | Float[Array, "D D"]


class ChainState(eqx.Module):
    """Where a chain stands.

    Attributes:
        x: position.
        log_prob: log density there.
        grad: its gradient, for kernels that use it.
        aux: what the log-density returned beside its value, or None.
    """

    x: Float[Array, "*N D"]
    log_prob: Float[Array, "*N"]
    grad: Float[Array, "*N D"] | None
    aux: PyTree = None


class AbstractMCMCKernel(eqx.Module):
    """A Markov kernel; see the module docstring."""

    @abc.abstractmethod
    def init(self, log_density: LogDensity, x: Float[Array, "*N D"]) -> ChainState:
        """The state at `x`."""

    @abc.abstractmethod
    def step(
        self, key: Array, state: ChainState, log_density: LogDensity
    ) -> tuple[ChainState, dict[str, Array]]:
        """One step; consumes `key`.

        Info: `acceptance` `(*N, P)`, the probability with which each part accepts (NaN: not used
        in this step), and `diverging` `(*N, P)`.
        """

    @property
    @abc.abstractmethod
    def target_acceptance(self) -> tuple[float, ...]:
        """The mean acceptance probability that tuning aims at, for each part."""

    @abc.abstractmethod
    def step_sizes(self, dim: int) -> Float[Array, " P"]:
        """The step size of each part: as given, or the start of its tuning."""

    @property
    @abc.abstractmethod
    def is_tuned(self) -> tuple[bool, ...]:
        """For each part, whether its step size is adapted (it was not given)."""

    def largest_step_sizes(self) -> tuple[float, ...]:
        """Bounds of the step sizes in tuning, for each part; by default none."""
        return (float("inf"),) * len(self.target_acceptance)

    @abc.abstractmethod
    def tuned(self, step_sizes: Float[Array, " P"], scale: Scale) -> "AbstractMCMCKernel":
        """The kernel with these step sizes and this scale.

        Args:
            step_sizes: one for each part.
            scale: standard deviations `(D,)` of the target, or a Cholesky factor `(D, D)` of its
                covariance. Proposals are made in the coordinates scale^{-1} x.
        """

    def __rshift__(self, other: "AbstractMCMCKernel") -> "AbstractMCMCKernel":
        """`a >> b`: first a, then b."""
        from jurax.inference.mcmc.cycle import Cycle

        return Cycle(first=self, second=other)


class AbstractMetropolis(AbstractMCMCKernel):
    """What the single kernels share: one step size and a scale.

    Attributes:
        step_size: in units of the scale; None: tuned by the algorithm that runs the kernel.
        scale: see `tuned`; None: 1.
    """

    step_size: eqx.AbstractVar[float | Float[Array, ""] | None]
    scale: eqx.AbstractVar[Scale | None]

    @abc.abstractmethod
    def default_step_size(self, dim: int) -> float:
        """A step size for a standard normal target of dimension `dim`."""

    @property
    def is_tuned(self):
        """Unless a step size was given."""
        return (self.step_size is None,)

    def step_sizes(self, dim):
        """As given, or the default."""
        step_size = self.default_step_size(dim) if self.step_size is None else self.step_size
        return jnp.asarray(step_size, float).reshape(1)

    def tuned(self, step_sizes, scale):
        """With both fields set."""
        is_none = lambda x: x is None  # noqa: E731 - a field without a value is a leaf here
        fields = lambda k: (k.step_size, k.scale)  # noqa: E731
        return eqx.tree_at(fields, self, (step_sizes[0], scale), is_leaf=is_none)


def evaluate_like(
    state: ChainState, log_density: LogDensity, x: Float[Array, "*N D"]
) -> ChainState:
    """The state at `x`, with a gradient iff `state` has one (in a cycle with other kernels)."""
    return (evaluate if state.grad is None else differentiate)(log_density, x)


def evaluate(log_density: LogDensity, x: Float[Array, "*N D"]) -> ChainState:
    """The state at `x`, without a gradient."""

    def value(x: Array) -> tuple[Array, Any]:
        return with_aux(log_density(x))

    log_prob, aux = lifted(value, x.ndim - 1)(x)
    return ChainState(x=x, log_prob=log_prob, grad=None, aux=aux)


def differentiate(log_density: LogDensity, x: Float[Array, "*N D"]) -> ChainState:
    """The state at `x`, with its gradient."""

    def value(x: Array) -> tuple[Array, Any]:
        return with_aux(log_density(x))

    (log_prob, aux), grad = lifted(jax.value_and_grad(value, has_aux=True), x.ndim - 1)(x)
    return ChainState(x=x, log_prob=log_prob, grad=grad, aux=aux)


def with_aux(result: Any) -> tuple[Array, Any]:
    """`(log density, aux)` of what a log-density returned."""
    return result if isinstance(result, tuple) else (result, None)


def lifted(function: Callable, depth: int) -> Callable:
    """Map a function of one vector over `depth` leading axes."""
    for _ in range(depth):
        function = jax.vmap(function)
    return function


def accept(
    key: Array,
    state: ChainState,
    proposed: ChainState,
    log_ratio: Float[Array, "*N"],
    *,
    largest_drop: float = float("inf"),
) -> tuple[ChainState, dict[str, Array]]:
    """Accept with probability min(1, exp(log_ratio)); a ratio of NaN or a density of NaN rejects.

    Every leaf of the state is chosen, cached densities and gradients too.

    Args:
        key: consumed.
        state: where the chain stands.
        proposed: where it may go.
        log_ratio: log of the Metropolis-Hastings ratio.
        largest_drop: a log ratio below -largest_drop is reported as diverging.
    """
    log_ratio = jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)
    acceptance = jnp.exp(jnp.minimum(log_ratio, 0.0))
    accepted = random.bernoulli(key, acceptance)
    moved = choose_rows(accepted, proposed, state)
    info = {
        "acceptance": acceptance[..., None],
        "diverging": (log_ratio < -largest_drop)[..., None],
    }
    return moved, info


def choose_rows(mask: Bool[Array, "*N"], new: PyTree, old: PyTree) -> PyTree:
    """Rows of `new` where `mask` holds, else of `old`."""

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(mask.reshape(mask.shape + (1,) * (jnp.ndim(a) - mask.ndim)), a, b)

    return jax.tree.map(choose, new, old)


def noise(key: Array, shape: tuple[int, ...]) -> Float[Array, "*N D"]:
    """Standard normal noise, drawn flat: short trailing axes are slow otherwise."""
    return random.normal(key, (math.prod(shape),)).reshape(shape)


def stretch(scale: Scale | None, vector: Float[Array, "*N D"]) -> Float[Array, "*N D"]:
    """Scale times each vector."""
    if scale is None:
        return vector
    if scale.ndim == 1:
        return vector * jnp.expand_dims(scale, tuple(range(vector.ndim - 1)))
    return vector @ scale.T


def stretch_back(scale: Scale | None, vector: Float[Array, "*N D"]) -> Float[Array, "*N D"]:
    """Transposed scale times each vector: a gradient in the coordinates scale^{-1} x."""
    if scale is None or scale.ndim == 1:
        return stretch(scale, vector)
    return vector @ scale
