"""The unconstrained view of a program: its latent sites as one real vector.

For sites v with supports S and bijections T: R^D -> S (`numpyro.distributions.biject_to`),

    log_density(x) = log p(T(x), observations) + log |det dT(x)/dx|
                   = log_prior(x) + log_likelihood(x),

where log_prior holds the densities of the latent sites and the Jacobian, log_likelihood those of
observed sites and factors. Samplers on R^D (MCMC, tempering, PMMH) know nothing else of a program.

Shape letters: D dimensions of the vector.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, ArrayLike, Float
from numpyro.distributions import biject_to
from numpyro.infer.util import compute_log_probs

from jurax.ppl.effects import is_improper, recall, run_before_scan, unmasked
from jurax.ppl.plan import Shape
from jurax.ppl.program import Program, check_values
from jurax.ppl.sequential import SequentialProgram

# Where a draw sits on the edge of its support in floating point, its image is infinite; these
# values are mapped back to the edge: expit(16) = 1 and exp(-87) = 0 to float32 rounding.
LARGEST, SMALLEST = 16.0, -87.0


class Coordinates(NamedTuple):
    """One site: its name, its own shape and that of its unconstrained values."""

    name: str
    shape: Shape
    free: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return math.prod(self.free)


class Evaluation(NamedTuple):
    """A program at one point: latent and deterministic values, and the terms of the density."""

    latent: dict[str, Array]
    deterministic: dict[str, Array]
    log_prior: Float[Array, ""]
    log_likelihood: Float[Array, ""]
    log_jacobian: Float[Array, ""]


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
        found: list[Coordinates] = []

        def survey() -> None:
            seeded = numpyro.handlers.seed(program, jax.random.key(0))
            for name, site in numpyro.handlers.trace(seeded).get_trace().items():
                if site["type"] == "param":
                    raise ValueError(_NO_PRIOR.format(name=name))
                if site["type"] == "sample" and not site["is_observed"]:
                    found.append(_coordinates(name, site["fn"], site["value"]))

        _check_proper(program)
        jax.eval_shape(survey)
        return cls(program, _some(found, program.name))

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
        found: list[Coordinates] = []

        def choose(name: str, law: dist.Distribution) -> Array:
            shape = known[name]
            if name in process.parameters:
                found.append(_coordinates(name, law, shape.zeros()))
            return shape.zeros()

        known = dict(process.plan.parameters + process.plan.state)
        jax.eval_shape(lambda: run_before_scan(process.program, choose)[1])
        view = cls(process, _some(found, process.program.name))
        # Refuses priors that depend on the state.
        jax.eval_shape(
            lambda: process.log_prior({n: s.zeros() for n, s in process.plan.parameters})
        )
        return view

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
        log_probs, _ = _run_program(self.source, free, sum_log_prob=False)
        return {n: jnp.asarray(v) for n, v in log_probs.items() if _role(n, free) == "likelihood"}

    def log_jacobian(self, x: Float[Array, " D"]) -> Float[Array, ""]:
        """Log |det dT(x)/dx|."""
        return self.evaluate(x).log_jacobian

    def evaluate(self, x: Float[Array, " D"]) -> Evaluation:
        """Everything at once; what is not used is removed by the compiler."""
        free = self._split(x)
        if isinstance(self.source, SequentialProgram):
            return _evaluate_parameters(self.source, free)
        return _evaluate_program(self.source, free)

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
            run_before_scan(self.source.program, _noting(laws, self.source, values.__getitem__))
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


def _evaluate_program(program: Program, free: dict[str, Array]) -> Evaluation:
    """Run the whole program with its latent sites at T(free)."""
    log_probs, trace = _run_program(program, free)
    terms = {"prior": jnp.zeros(()), "likelihood": jnp.zeros(()), "jacobian": jnp.zeros(())}
    for name, log_prob in log_probs.items():
        terms[_role(name, free)] += log_prob
    deterministic = {n: s["value"] for n, s in trace.items() if s["type"] == "deterministic"}
    return Evaluation(
        latent={name: trace[name]["value"] for name in free},
        deterministic=deterministic,
        log_prior=terms["prior"],
        log_likelihood=terms["likelihood"],
        log_jacobian=terms["jacobian"],
    )


def _run_program(program: Program, free: dict[str, Array], *, sum_log_prob: bool = True) -> tuple:
    """Log densities of all sites by name, and the trace."""
    constrained = numpyro.handlers.substitute(program, substitute_fn=_Bijections(free))
    return compute_log_probs(constrained, (), {}, {}, sum_log_prob)


def _evaluate_parameters(process: SequentialProgram, free: dict[str, Array]) -> Evaluation:
    """Run what stands before the scan with its parameters at T(free); state sites do not matter."""
    jacobian = [jnp.zeros(())]
    laws: dict[str, Any] = {}

    def value(name: str) -> Array:
        value, log_det = _transform(laws[name], free[name])
        jacobian.append(log_det)
        return value

    sites, _ = run_before_scan(process.program, _noting(laws, process, value))
    log_prior = sum((sites.log_probs[name] for name in free), start=jnp.zeros(()))
    return Evaluation(
        latent={name: sites.latent[name] for name in free},
        deterministic={},
        log_prior=log_prior,
        log_likelihood=jnp.zeros(()),
        log_jacobian=sum(jacobian[1:], start=jacobian[0]),
    )


def _noting(laws: dict[str, Any], process: SequentialProgram, value):
    """A chooser that notes the law of each parameter; state sites are zeros."""
    state = recall({name: shape.zeros() for name, shape in process.plan.state})

    def choose(name: str, law: dist.Distribution) -> Array:
        if name not in process.parameters:
            return state(name, law)
        laws[name] = law
        return value(name)

    return choose


class _Bijections:
    """Gives a latent site T(x) and adds its log-Jacobian as a factor, inside a scan too."""

    def __init__(self, free: dict[str, Array]):
        self.free = free

    def __call__(self, site: dict) -> Array | None:
        """The value of a site; None leaves it alone."""
        name = site["name"]
        if site["type"] != "sample" or name not in self.free:
            return None
        law, free = unmasked(site["fn"]), self.free[name]
        step = site["infer"].get("_scan_current_index")
        if step is not None:  # one step of a stacked series
            free = free[step]
        value, log_det = _transform(law, free)
        numpyro.factor(_factor_name(name), log_det)
        return value


def _transform(law: dist.Distribution, free: Array) -> tuple[Array, Array]:
    """T(x) and log |det| summed over all elements."""
    bijection = biject_to(law.support)
    value = bijection(free)
    return value, jnp.sum(bijection.log_abs_det_jacobian(free, value))


def _factor_name(name: str) -> str:
    return f"_{name}_log_jacobian"


def _role(name: str, free: dict[str, Array]) -> str:
    if name in free:
        return "prior"
    is_jacobian = name.endswith("_log_jacobian") and name[1:].removesuffix("_log_jacobian") in free
    return "jacobian" if is_jacobian else "likelihood"


def _coordinates(name: str, law: Any, value: Array) -> Coordinates:
    law = unmasked(law)
    if is_improper(law):
        raise ValueError(
            f"site {name!r} has an improper prior: give it a proper one, or fix it, "
            "bind(model, ...).at({...})"
        )
    if law.support.is_discrete:
        raise ValueError(
            f"site {name!r} is discrete and has no unconstrained coordinates: sum it out in the "
            "program, fix it, bind(model, ...).at({...}), or use a particle method such as "
            "ParticleFilter or ParticleGibbs"
        )
    free = biject_to(law.support).inverse_shape(jnp.shape(value))
    return Coordinates(name, Shape.of(value), tuple(free))


def _check_proper(program: Program) -> None:
    """Refuse improper sites, which cannot be drawn, before the survey draws them."""

    def refuse(site: dict) -> None:
        is_latent = site["type"] == "sample" and not site["is_observed"]
        if is_latent and site.get("value") is None and is_improper(site["fn"]):
            _coordinates(site["name"], site["fn"], jnp.zeros(()))

    guarded = numpyro.handlers.substitute(program, substitute_fn=refuse)
    seeded = numpyro.handlers.seed(guarded, jax.random.key(0))
    jax.eval_shape(lambda: numpyro.handlers.trace(seeded).get_trace() and None)


def _some(found: list[Coordinates], name: str) -> tuple[Coordinates, ...]:
    if not found:
        raise ValueError(f"{name} has no latent site left to sample: every one is fixed")
    return tuple(found)


_NO_PRIOR = (
    "numpyro.param site {name!r} has no prior: make it a numpyro.sample site, or fix it by "
    "numpyro.handlers.substitute(model, {{{name!r}: value}})"
)
