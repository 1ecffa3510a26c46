"""Bound NumPyro programs: a model with its arguments, for every algorithm.

A program is used as it is. `bind(model, *args)` pairs it with its arguments; algorithms that work
on whole traces (NUTS, SVI) use its joint log-density, those that work step by step use
`jurax.ppl.sequential`.

Missing observations: an observed value that is NaN (for vector events: NaN in every component)
counts as not observed, weight 1, under every algorithm.
"""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Array, ArrayLike, Float, PyTree
from numpyro.infer.util import log_density

from jurax.ppl.effects import MissingObservations, is_improper
from jurax.ppl.process import AbstractProcess


class Program(eqx.Module):
    """A NumPyro model bound to its arguments; built by `bind`.

    Attributes:
        model: the program, any callable with NumPyro sites.
        arrays: array arguments, dynamic: new data of the same shapes need no compilation.
        settings: all other arguments, static.
        fixed: sites fixed by `at`, with their values.
        data: values of observed sites that replace those of the arguments, see `observing`.
    """

    model: Callable = eqx.field(static=True)
    arrays: PyTree
    settings: "_Static" = eqx.field(static=True)
    fixed: dict[str, Array]
    data: dict[str, Array] = eqx.field(default_factory=dict)

    @property
    def args(self) -> tuple:
        """Positional arguments."""
        return self._arguments()[0]

    @property
    def kwargs(self) -> dict:
        """Keyword arguments."""
        return self._arguments()[1]

    def _arguments(self) -> tuple[tuple, dict]:
        return eqx.combine(self.arrays, self.settings.restore())

    @property
    def name(self) -> str:
        """Name of the model."""
        return getattr(self.model, "__name__", type(self.model).__name__)

    @property
    def target(self) -> str:
        """The density that the program defines."""
        fixed = f" at fixed {', '.join(sorted(self.fixed))}" if self.fixed else ""
        return f"p(latent sites | observed sites) of {self.name}{fixed}"

    def __call__(self) -> Any:
        """Run the model on its arguments, NaN observations masked, sites of `at` fixed."""
        with MissingObservations():
            return self.at_fixed()(*self.args, **self.kwargs)

    def at_fixed(self) -> Callable:
        """The model with the sites of `at` replaced by constants of no density."""
        model = self.model
        if self.data:
            model = numpyro.handlers.condition(model, data=self.data)
        if not self.fixed:
            return model
        return numpyro.handlers.block(
            numpyro.handlers.substitute(model, data=self.fixed), hide=list(self.fixed)
        )

    def sites(self) -> dict[str, "Site"]:
        """Describe the sites: role, shape, dtype. Nothing is computed.

        Example:
            >>> import jax.numpy as jnp, numpyro, numpyro.distributions as dist
            >>> def model(y):
            ...     mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
            ...     numpyro.sample("y", dist.Normal(mean, 1.0).expand(y.shape), obs=y)
            >>> sites = bind(model, jnp.zeros(3)).sites()
            >>> sites["mean"].role, sites["y"].role, sites["y"].shape
            ('latent', 'observed', (3,))
        """
        found: dict[str, Site] = {}

        def run() -> None:
            proper = numpyro.handlers.substitute(self, substitute_fn=_placeholder)
            seeded = numpyro.handlers.seed(proper, jax.random.key(0))
            trace = numpyro.handlers.trace(seeded).get_trace()
            for name, site in trace.items():
                if site["type"] in ("sample", "deterministic", "param"):
                    found[name] = Site.of(site)

        jax.eval_shape(run)
        return found

    def log_density(self, values: Mapping[str, ArrayLike]) -> Float[Array, ""]:
        """Joint log-density of latent and observed sites at `values` of the latent sites.

        Sites in a scan are stacked over time. Constrained values, no Jacobian. Sites fixed by
        `at` add nothing.

        Raises:
            ValueError: if a latent site has no value.

        Example:
            >>> import jax.numpy as jnp, numpyro, numpyro.distributions as dist
            >>> def model(y):
            ...     mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
            ...     numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)
            >>> program = bind(model, jnp.array([1.0, jnp.nan]))  # the second is missing
            >>> expected = 2 * dist.Normal(0.0, 1.0).log_prob(0.5)
            >>> float(program.log_density({"mean": jnp.array(0.5)})) == float(expected)
            True
        """
        latent = [name for name, site in self.sites().items() if site.role == "latent"]
        absent = [name for name in latent if name not in values]
        if absent:
            raise ValueError(f"log_density needs a value of every latent site; absent: {absent}")
        density, _ = log_density(self, (), {}, dict(values))
        return jnp.asarray(density)

    def at(self, values: Mapping[str, ArrayLike]) -> "Program":
        """The program with latent sites outside of its scan fixed at `values`.

        Raises:
            ValueError: for names that are not latent sites, and for values of another shape.
        """
        sites = self.sites()
        latent = {name: site for name, site in sites.items() if site.role == "latent"}
        fixed = {**self.fixed, **check_values(values, latent, "latent sites")}
        return Program(self.model, self.arrays, self.settings, fixed, self.data)

    def observing(self, data: Mapping[str, ArrayLike]) -> "Program":
        """The program with other values at observed sites; its arguments stay.

        Sites in a scan are stacked over time. For simulated data, see `jurax.ppl.predictive`.

        Raises:
            ValueError: for names that are not observed sites, and for values of another shape.

        Example:
            >>> import jax.numpy as jnp, numpyro, numpyro.distributions as dist
            >>> def model(y):
            ...     mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
            ...     numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)
            >>> values = {"mean": jnp.array(0.0)}
            >>> first = bind(model, jnp.array([0.0])).observing({"y": jnp.array([2.0])})
            >>> second = bind(model, jnp.array([2.0]))
            >>> float(first.log_density(values)) == float(second.log_density(values))
            True
        """
        sites = {name: site for name, site in self.sites().items() if site.role == "observed"}
        data = {**self.data, **check_values(data, sites, "observed sites")}
        return Program(self.model, self.arrays, self.settings, self.fixed, data)

    def process(self, state: tuple[str, ...] | None = None) -> AbstractProcess:
        """The program as a process, `jurax.ppl.sequential(self, state=state)`."""
        from jurax.ppl.sequential import sequential

        return sequential(self, state=state)


class Site(eqx.Module):
    """One site of a program: role (latent, observed, deterministic, param), shape, dtype."""

    role: str = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    dtype: Any = eqx.field(static=True)

    @classmethod
    def of(cls, site: dict) -> "Site":
        """Read a site of a NumPyro trace."""
        role = site["type"]
        if role == "sample":
            role = "observed" if site["is_observed"] else "latent"
        return cls(role, jnp.shape(site["value"]), jnp.result_type(site["value"]))


def bind(model: Callable, /, *args: Any, **kwargs: Any) -> Program:
    """Bind a NumPyro program to its arguments.

    Args:
        model: a callable with NumPyro sites, unmodified. Programs with equal shapes share a
            compilation if this is the same object.
        *args: its arguments. Arrays are data; anything else (numbers, None, strings) is fixed
            when an algorithm is compiled.
        **kwargs: its keyword arguments.

    Example:
        >>> import jax.numpy as jnp, numpyro, numpyro.distributions as dist
        >>> def model(y, scale=1.0):
        ...     mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        ...     numpyro.sample("y", dist.Normal(mean, scale), obs=y)
        >>> bind(model, jnp.zeros(3), scale=2.0).target
        'p(latent sites | observed sites) of model'
    """
    if not callable(model):
        raise TypeError(f"bind expects a NumPyro model (a callable), got {type(model).__name__}")
    arrays, settings = eqx.partition((args, kwargs), _is_data)
    arrays = jax.tree.map(jnp.asarray, arrays)
    return Program(model, arrays, _Static.store(settings), {})


def check_values(
    values: Mapping[str, ArrayLike], sites: dict[str, Any], what: str
) -> dict[str, Array]:
    """Values of known sites as arrays of their dtype; names and shapes are checked."""
    unknown = sorted(set(values) - set(sites))
    if unknown:
        raise ValueError(f"{unknown} are not {what} of this program; these are {sorted(sites)}")
    checked = {name: jnp.asarray(value, sites[name].dtype) for name, value in values.items()}
    for name, value in checked.items():
        if value.shape != tuple(sites[name].shape):
            raise ValueError(
                f"site {name!r} has shape {tuple(sites[name].shape)}, the value has {value.shape}"
            )
    return checked


def _placeholder(site: dict) -> Array | None:
    """A value of an improper site, which cannot be drawn."""
    if site["type"] == "sample" and not site["is_observed"] and is_improper(site["fn"]):
        return jnp.zeros(site["fn"].shape())
    return None


def _is_data(leaf: Any) -> bool:
    if isinstance(leaf, np.ndarray):
        return np.issubdtype(leaf.dtype, np.number) or leaf.dtype == bool
    return eqx.is_array(leaf)


class _Static:
    """A pytree of settings that compares by value where it can, else by identity."""

    def __init__(self, leaves: tuple, treedef: Any):
        self.leaves = leaves
        self.treedef = treedef

    @classmethod
    def store(cls, tree: PyTree) -> "_Static":
        """Flatten a tree."""
        leaves, treedef = jax.tree.flatten(tree)
        return cls(tuple(leaves), treedef)

    def restore(self) -> PyTree:
        """The tree."""
        return jax.tree.unflatten(self.treedef, self.leaves)

    def _identity(self) -> tuple:
        return tuple((type(x), x if _is_hashable(x) else id(x)) for x in self.leaves)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Static):
            return NotImplemented
        return self.treedef == other.treedef and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash((self.treedef, self._identity()))


def _is_hashable(leaf: Any) -> bool:
    try:
        hash(leaf)
    except TypeError:
        return False
    return True
