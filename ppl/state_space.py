"""State-space models from a description of one particle.

    x_0 ~ mu,   x_t ~ m(x_{t-1}, .),   weight G_0(x_0) prod_{t=1}^{T} G_t(x_t)

The parts are functions of one particle; they are lifted to N particles by the one `vmap` of
`_lift`. Where parts return NumPyro distributions, all particles are drawn at once
(`jurax.ppl.lanes`) and moves have densities.
"""

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, Int, PyTree

from jurax.ppl import lanes, random
from jurax.ppl.process import AbstractProcess, missing


class StateSpaceModel(AbstractProcess):
    """A Markov process with potentials; particles are the states.

    Args:
        initial: the law of x_0: a NumPyro distribution, a function `() -> distribution`, or a
            sampler `(key) -> state`.
        transition: `(state, t) -> distribution` of x_t given x_{t-1} = state, or a sampler
            `(key, state, t) -> state`; t = 1, ..., num_steps.
        potential: `(state, t) -> log G_t(x_t)`, one number; t = 0, ..., num_steps.
        num_steps: T >= 0.
        target: name of the density, for reports.

    States are arrays where parts are distributions and any pytree where they are samplers. Batch
    axes of a distribution are independent components of the state. A callable `eqx.Module` may
    hold data: then new data of the same shape need no compilation.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
        >>> y = jnp.array([0.0, 0.3, -0.1])
        >>> walk = StateSpaceModel(
        ...     initial=dist.Normal(0.0, 1.0),
        ...     transition=lambda state, t: dist.Normal(state, 0.5),
        ...     potential=lambda state, t: dist.Normal(state, 0.2).log_prob(y[t]),
        ...     num_steps=2,
        ... )
        >>> states, log_weights = walk.init(jax.random.key(0), 4)
        >>> states, log_increments = walk.extend(jax.random.key(1), states, 1)
        >>> states.shape, log_increments.shape
        ((4,), (4,))
    """

    initial: Any
    transition: Callable
    potential: Callable
    num_steps: int = eqx.field(static=True)
    target: str = eqx.field(static=True, default="p(x_0) G_0(x_0) prod_t p(x_t | x_{t-1}) G_t(x_t)")

    def __check_init__(self):
        _check_arity("transition", self.transition, (2, 3), "(state, t) or (key, state, t)")
        _check_arity("potential", self.potential, (2,), "(state, t)")
        if not isinstance(self.initial, dist.Distribution):
            _check_arity("initial", self.initial, (0, 1), "() or (key)")
        if not isinstance(self.num_steps, int) or self.num_steps < 0:
            raise ValueError(f"num_steps must be an integer >= 0, got {self.num_steps!r}")

    def init(self, key: Array, num_particles: int) -> tuple[PyTree, Float[Array, " N"]]:
        """Draw x_0 and weigh it by G_0; consumes `key`."""
        particles = self._draw(key, self._initial(), (), num_particles)
        return particles, self._weigh(particles, 0)

    def extend(
        self, key: Array, particles: PyTree, t: Int[Array, "..."] | int
    ) -> tuple[PyTree, Float[Array, " N"]]:
        """Draw x_t given x_{t-1} and weigh it by G_t; consumes `key`."""
        num_particles = self.row_shape(particles)[0]
        particles = self._draw(key, self.transition, (particles, t), num_particles)
        return particles, self._weigh(particles, t)

    def replay(
        self, particles: PyTree, record: PyTree, t: Int[Array, "..."] | int
    ) -> tuple[PyTree, Float[Array, " N"], Float[Array, " N"]]:
        """Move to the states `record`; `log_probs` are their log-densities under the move.

        With t = 0 and `particles` None the states are those of x_0.

        Raises:
            NotImplementedError: if the move is a sampler, which has no density.
        """
        law = self._initial() if particles is None else self.transition
        if _num_arguments(law) in (1, 3):
            raise missing(
                self, "replay", "parts that return distributions; samplers have no density"
            )
        arguments = (record,) if particles is None else (record, particles, t)

        def density(state: PyTree, *rest: Any) -> Array:
            return jnp.sum(lanes.log_prob(law(*rest), state))

        return record, self._weigh(record, t), _lift(density, *arguments)

    def prior(self) -> "StateSpaceModel":
        """The same moves, every potential 1."""
        return StateSpaceModel(
            initial=self.initial,
            transition=self.transition,
            potential=_no_potential,
            num_steps=self.num_steps,
            target="p(x_0) prod_t p(x_t | x_{t-1})",
        )

    def _initial(self) -> Callable:
        if isinstance(self.initial, dist.Distribution):
            return lambda: self.initial
        return self.initial

    def _draw(self, key: Array, law: Callable, arguments: tuple, num_particles: int) -> PyTree:
        if _num_arguments(law) in (1, 3):
            return _lift(law, random.split(key, num_particles), *arguments)
        rows = jnp.arange(num_particles)
        return _lift(lambda lane, *rest: lanes.sample(law(*rest), key, lane), rows, *arguments)

    def _weigh(self, particles: PyTree, t: Int[Array, "..."] | int) -> Float[Array, " N"]:
        log_weights = _lift(lambda state, t: jnp.asarray(self.potential(state, t)), particles, t)
        if log_weights.ndim != 1:
            raise ValueError(
                "potential must return one number for each particle, got shape "
                f"{log_weights.shape[1:]}: sum the log-densities of the observations"
            )
        return log_weights.astype(float)


def _lift(function: Callable, *arguments: Any) -> Any:
    """Apply a function of one particle to all: the only `vmap`. Scalars (a common t) are shared."""
    arguments = tuple(jax.tree.map(jnp.asarray, arguments))
    axes = tuple(None if jnp.ndim(x) == 0 else 0 for x in map(_first_leaf, arguments))
    return jax.vmap(function, in_axes=axes)(*arguments)


def _first_leaf(tree: Any) -> Any:
    return jax.tree.leaves(tree)[0]


def _no_potential(state: PyTree, t: Int[Array, ""]) -> float:
    del state, t
    return 0.0


def _num_arguments(function: Callable) -> int:
    """Number of positional arguments without a default."""
    parameters = inspect.signature(function).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters)


def _check_arity(name: str, function: Any, allowed: tuple[int, ...], signature: str) -> None:
    if not callable(function):
        raise TypeError(f"{name} must be a function of {signature}, got {type(function).__name__}")
    if _num_arguments(function) not in allowed:
        raise TypeError(
            f"{name} must be a function of {signature}; this one takes {_num_arguments(function)} "
            "arguments. Bind others by functools.partial or a callable eqx.Module"
        )
