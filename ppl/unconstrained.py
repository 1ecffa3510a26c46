"""The unconstrained view of a program: its latent sites as one real vector.

For sites v with supports S and bijections T: R^D -> S (`numpyro.distributions.biject_to`),

    log_density(x) = log p(T(x), observations) + log |det dT(x)/dx|
                   = log_prior(x) + log_likelihood(x),

where log_prior holds the densities of the latent sites and the Jacobian, log_likelihood those of
observed sites and factors. Samplers on R^D (MCMC, tempering, PMMH) know nothing else of a program.

Shape letters: D dimensions of the vector.
"""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpyro
from jaxtyping import Array, ArrayLike, Float
from numpyro.distributions import biject_to

from jurax.ppl.coordinates import Coordinates, latent_sites, parameters
from jurax.ppl.effects import run_before_scan, unmasked
from jurax.ppl.program import Program, check_values
from jurax.ppl.sequential import SequentialProgram
from jurax.ppl.transformed import (
    Evaluation,
    evaluate_parameters,
    evaluate_program,
    noting,
    role,
    run_program,
)

# Where a draw sits on the edge of its support in floating point, its image is infinite; these
# values are mapped back to the edge: expit(16) = 1 and exp(-87) = 0 to float32 rounding.
LARGEST, SMALLEST = 16.0, -87.0


class Unconstrained(eqx.Module):
    """Latent sites of a program (`of`), or parameters of a process (`of_parameters`), on R^D.

    All methods are pure and work under jit, vmap and grad. Built by its two constructors.

    Example:
        >>> import jax.numpy as jnp, numpyro, numpyro.distributions as dist
        >>> from jurax.ppl import bind
        >>> def model(y):
        ...     rate = numpyro.sample("rate", dist.Exponential(1.0))
        ...     numpyro.sample("y", dist.Poisson(rate), obs=y)
        >>> view = Unconstrained.of(bind(model, jnp.array(2)))
        >>> x = view.flatten({"rate": jnp.array(3.0)})  # log 3
        >>> view.dim, round(float(x[0]), 3), round(float(view.constrain(x)["rate"]), 3)
        (1, 1.099, 3.0)
        >>> round(float(view.log_density(x)), 3)  # log(e^-3 3^2 e^-3 / 2!) + log 3
        -3.397
    """

    source: Program | SequentialProgram
    coordinates: tuple[Coordinates, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, program: Program) -> "Unconstrained":
        """All latent sites of a bound program; sites in its scan are stacked over time.

        Raises:
            ValueError: if there is no latent site, or one is discrete or has an improper prior;
                the message names it.
        """
        return cls(program, latent_sites(program))

    @classmethod
    def of_parameters(cls, process: Any) -> "Unconstrained":
        """The parameters of a process; its likelihood counts as 1, the density is the prior's.

        Raises:
            ValueError: if there is no parameter, or one is discrete or has an improper prior.
            NotImplementedError: if the prior of a parameter depends on a state site.
        """
        if not isinstance(process, SequentialProgram):
            raise TypeError(
                "of_parameters expects a process built by jurax.ppl.sequential, got "
                f"{type(process).__name__}"
            )
        return cls(process, parameters(process))

    @property
    def dim(self) -> int:
        """D."""
        return sum(site.size for site in self.coordinates)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sites, in the order of their coordinates."""
        return tuple(site.name for site in self.coordinates)

    # ------------------------------------------------------------ values

    def flatten(self, values: Mapping[str, ArrayLike]) -> Float[Array, " D"]:
        """The vector of values by site name; values on the edge of a support are moved inside.

        Raises:
            ValueError: for missing or unknown names, and for values of another shape.
        """
        checked = check_values(values, {s.name: s.shape for s in self.coordinates}, "latent sites")
        absent = [name for name in self.names if name not in checked]
        if absent:
            raise ValueError(f"flatten needs a value of every site; absent: {absent}")
        laws = self._laws(checked)
        return self._join({n: biject_to(laws[n].support).inv(checked[n]) for n in self.names})

    def constrain(self, x: Float[Array, " D"]) -> dict[str, Array]:
        """T(x): values by site name."""
        return self.evaluate(x).latent

    def sites(self, x: Float[Array, " D"]) -> dict[str, Array]:
        """Values of latent and deterministic sites by name."""
        values = self.evaluate(x)
        return {**values.latent, **values.deterministic}

    def draw(self, key: Array) -> Float[Array, " D"]:
        """A draw from the prior; consumes `key`."""
        return self.flatten(self._draw_sites(key))

    # ------------------------------------------------------------ densities

    def log_density(self, x: Float[Array, " D"]) -> Float[Array, ""]:
        """Log joint density (for parameters: log prior density) of T(x), plus `log_jacobian`."""
        parts = self.evaluate(x)
        return parts.log_prior + parts.log_jacobian + parts.log_likelihood

    def log_prior(self, x: Float[Array, " D"]) -> Float[Array, ""]:
        """Log density of the latent sites at T(x), plus `log_jacobian`."""
        parts = self.evaluate(x)
        return parts.log_prior + parts.log_jacobian

    def log_likelihood(self, x: Float[Array, " D"]) -> Float[Array, ""]:
        """Log density of observed sites and factors given T(x)."""
        return self.evaluate(x).log_likelihood

    def log_likelihood_terms(self, x: Float[Array, " D"]) -> dict[str, Array]:
        """Log densities of observed sites and factors by name, one number for each observation.

        Missing observations count 0. For `arviz.loo` and for data that arrive one by one.
        """
        if isinstance(self.source, SequentialProgram):
            return {}
        free = self._split(x)
        log_probs, _ = run_program(self.source, free, sum_log_prob=False)
        return {n: jnp.asarray(v) for n, v in log_probs.items() if role(n, free) == "likelihood"}

    def log_jacobian(self, x: Float[Array, " D"]) -> Float[Array, ""]:
        """Log |det dT(x)/dx|."""
        return self.evaluate(x).log_jacobian

    def evaluate(self, x: Float[Array, " D"]) -> Evaluation:
        """Everything at once; what is not used is removed by the compiler."""
        free = self._split(x)
        if isinstance(self.source, SequentialProgram):
            return evaluate_parameters(self.source, free)
        return evaluate_program(self.source, free)

    # ------------------------------------------------------------ helpers

    def _split(self, x: Float[Array, " D"]) -> dict[str, Array]:
        if x.shape != (self.dim,):
            raise ValueError(f"expected a vector of {self.dim} numbers, got shape {x.shape}")
        free, start = {}, 0
        for site in self.coordinates:
            free[site.name] = x[start : start + site.size].reshape(site.free)
            start += site.size
        return free

    def _join(self, free: dict[str, Array]) -> Float[Array, " D"]:
        x = jnp.concatenate([jnp.reshape(free[name], -1) for name in self.names])
        return jnp.nan_to_num(x.astype(float), nan=jnp.nan, posinf=LARGEST, neginf=SMALLEST)

    def _laws(self, values: dict[str, Array]) -> dict[str, Any]:
        """The distribution of each site where the sites have these values."""
        if isinstance(self.source, SequentialProgram):
            laws: dict[str, Any] = {}
            run_before_scan(self.source.program, noting(laws, self.source, values.__getitem__))
            return laws
        fixed = numpyro.handlers.substitute(self.source, data=values)
        trace = numpyro.handlers.trace(fixed).get_trace()
        return {name: unmasked(trace[name]["fn"]) for name in self.names}

    def _draw_sites(self, key: Array) -> dict[str, Array]:
        if isinstance(self.source, SequentialProgram):
            particles, _ = self.source.prior().init(key, 1)
            return {name: particles.parameters[name][0] for name in self.names}
        seeded = numpyro.handlers.seed(self.source, key)
        trace = numpyro.handlers.trace(seeded).get_trace()
        return {name: trace[name]["value"] for name in self.names}
