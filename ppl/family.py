"""Families of processes: parameters with priors, and a process for each of their values.

A family defines the joint measure

    gamma(theta, x_{0:T}) = p(theta) gamma_theta(x_{0:T}).

Algorithms over parameters (`PMMH`, `ParticleGibbs`, `SMC2`) need three methods of it: `parameters`,
`log_prior(values)` and `at(values)`. Programs have them; `family` gives them to any process. Under
a filter the parameters are carried in the particles.

Shape letters: N particles, D dimensions of the unconstrained parameters.
"""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, ArrayLike, Float, PyTree

from jurax.ppl import lanes, random
from jurax.ppl.process import AbstractProcess, missing
from jurax.ppl.program import bind
from jurax.ppl.sequential import SequentialProgram
from jurax.ppl.unconstrained import Unconstrained


class FamilyParticles(eqx.Module):
    """Parameter values `(N, ...)` and one particle of the process at each, `(N, 1, ...)`."""

    values: dict[str, Array]
    inner: PyTree


class Family(AbstractProcess):
    """A family of processes; built by `family`.

    Attributes:
        function: values by name -> process.
        priors: a NumPyro distribution for each parameter.
    """

    function: Callable
    priors: dict[str, Any]
    num_steps: int = eqx.field(static=True)
    target: str = eqx.field(static=True)

    def __init__(
        self,
        function: Callable[[dict[str, Array]], AbstractProcess],
        priors: Mapping[str, dist.Distribution],
    ):
        if not priors:
            raise ValueError("a family needs at least one parameter with a prior")
        for name, law in priors.items():
            if not isinstance(law, dist.Distribution):
                raise TypeError(
                    f"the prior of {name!r} must be a NumPyro distribution, got "
                    f"{type(law).__name__}"
                )
        self.function, self.priors = function, dict(priors)
        process = eqx.filter_eval_shape(function, self._zeros())
        if not isinstance(process, AbstractProcess):
            raise TypeError(
                f"a family needs a function from values to a process, got {type(process).__name__}"
            )
        if process.hosted or process.batch_shape:
            kind = "a hosted process" if process.hosted else "several packed problems"
            raise NotImplementedError(f"a family is made of traceable single problems, got {kind}")
        self.num_steps = process.num_steps
        self.target = f"p({', '.join(self.priors)}) times: {process.target}"

    # ------------------------------------------------------------ the family

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return tuple(self.priors)

    def at(self, values: Mapping[str, ArrayLike]) -> AbstractProcess:
        """The process at these values of all parameters.

        Raises:
            ValueError: for missing and unknown names.
        """
        if set(values) != set(self.priors):
            raise ValueError(
                f"expected values of {sorted(self.priors)}, got those of {sorted(values)}"
            )
        return self.function({name: jnp.asarray(values[name]) for name in self.priors})

    def log_prior(self, values: Mapping[str, ArrayLike]) -> Float[Array, ""]:
        """Log p(theta), all components summed."""
        terms = (jnp.sum(law.log_prob(jnp.asarray(values[n]))) for n, law in self.priors.items())
        return sum(terms, start=jnp.zeros(()))

    def view(self) -> Unconstrained:
        """The parameters on R^D; its density is that of the prior."""
        return Unconstrained.of(bind(_sample_priors, self.priors))

    def draw_parameters(self, key: Array, num: int) -> dict[str, Array]:
        """Draws from the prior, `(num, ...)`; consumes `key`."""
        keys = random.split(key, len(self.priors))
        rows = jnp.arange(num)

        def draw(key: Array, law: dist.Distribution) -> Array:
            return jax.vmap(lambda lane: lanes.sample(law, key, lane))(rows)

        named = zip(self.priors.items(), keys, strict=True)
        return {name: draw(key, law) for (name, law), key in named}

    # ------------------------------------------------------------ the process

    def init(self, key, num_particles):
        """Draw parameters and x_0; consumes `key`."""
        key_values, key_states = random.split(key)
        values = self.draw_parameters(key_values, num_particles)
        keys = random.split(key_states, num_particles)
        inner, log_weights = jax.vmap(lambda v, k: self.at(v).init(k, 1))(values, keys)
        return FamilyParticles(values, inner), log_weights[:, 0]

    def extend(self, key, particles, t):
        """Extend each particle at its parameters; consumes `key`."""
        keys = random.split(key, self.row_shape(particles)[0])
        move = jax.vmap(lambda v, k, x: self.at(v).extend(k, x, t))
        inner, log_increments = move(particles.values, keys, particles.inner)
        return FamilyParticles(particles.values, inner), log_increments[:, 0]

    def finished(self, particles):
        """Rows absorbed at their parameters."""
        finished = jax.vmap(lambda v, x: self.at(v).finished(x))
        return finished(particles.values, particles.inner)[:, 0]

    def record(self, particles, t):
        """Records of the processes."""
        record = jax.vmap(lambda v, x: self.at(v).record(x, t))(particles.values, particles.inner)
        return jax.tree.map(lambda x: x[:, 0], record)

    def output(self, particles):
        """Parameters by name, and `particle`, what the process puts out."""
        output = jax.vmap(lambda v, x: self.at(v).output(x))(particles.values, particles.inner)
        return {**particles.values, "particle": jax.tree.map(lambda x: x[:, 0], output)}

    def _zeros(self) -> dict[str, Array]:
        return {name: jnp.zeros(law.shape()) for name, law in self.priors.items()}


def family(
    function: Callable[[dict[str, Array]], AbstractProcess], priors: Mapping[str, dist.Distribution]
) -> Family:
    """Make a family out of a function from parameter values to a process.

    Args:
        function: values by name -> process; the same structure and number of steps for all values.
        priors: an independent prior for each parameter.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
        >>> from jurax.ppl import StateSpaceModel
        >>> def walk(values):
        ...     return StateSpaceModel(
        ...         initial=dist.Normal(0.0, 1.0),
        ...         transition=lambda state, t: dist.Normal(state, values["scale"]),
        ...         potential=lambda state, t: dist.Normal(state, 0.5).log_prob(0.3),
        ...         num_steps=4,
        ...     )
        >>> walks = family(walk, {"scale": dist.Exponential(1.0)})
        >>> walks.parameters, walks.at({"scale": 0.5}).num_steps
        (('scale',), 4)
        >>> particles, log_weights = walks.init(jax.random.key(0), 3)
        >>> particles.values["scale"].shape, log_weights.shape
        ((3,), (3,))
    """
    return Family(function, priors)


def _sample_priors(priors: dict[str, dist.Distribution]) -> None:
    for name, law in priors.items():
        numpyro.sample(name, law)


# -------------------------------------------------------------------- parameters of any process


def parameters_of(process: Any) -> tuple[str, ...]:
    """Names of the parameters of a process; empty if it has none."""
    return tuple(getattr(process, "parameters", ()))


def parameter_view(process: Any) -> Unconstrained:
    """The parameters of a program or family on R^D, with the density of their prior.

    Raises:
        NotImplementedError: if the process has no parameters.
    """
    if not parameters_of(process):
        raise missing(
            process,
            "parameters",
            "parameters with a prior (jurax.ppl.family makes a family out of any process)",
        )
    return process.view() if hasattr(process, "view") else Unconstrained.of_parameters(process)


def draw_parameters(process: Any, key: Array, num: int) -> dict[str, Array]:
    """Draws from the prior of the parameters, `(num, ...)`; consumes `key`."""
    if isinstance(process, SequentialProgram):
        return process.prior().init(key, num)[0].parameters
    return process.draw_parameters(key, num)
