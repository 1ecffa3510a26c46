"""Which latent sites of a program have coordinates on R^D, and how many.

A site with support S has the coordinates of the bijection T: R^d -> S
(`numpyro.distributions.biject_to`); discrete sites and improper priors have none.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions import biject_to

from jurax.ppl.effects import is_improper, run_before_scan, unmasked
from jurax.ppl.plan import Shape
from jurax.ppl.program import Program
from jurax.ppl.sequential import SequentialProgram


class Coordinates(NamedTuple):
    """One site: its name, its own shape and that of its unconstrained values."""

    name: str
    shape: Shape
    free: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return math.prod(self.free)


def latent_sites(program: Program) -> tuple[Coordinates, ...]:
    """Coordinates of all latent sites of a program, in the order in which it names them.

    Raises:
        ValueError: if there is none, or one is discrete or has an improper prior.
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
    return _some(found, program.name)


def parameters(process: Any) -> tuple[Coordinates, ...]:
    """Coordinates of the parameters of a process built by `sequential`.

    Raises:
        TypeError: for another process.
        ValueError: if there is none, or one is discrete or has an improper prior.
        NotImplementedError: if the prior of a parameter depends on a state site.
    """
    if not isinstance(process, SequentialProgram):
        raise TypeError(
            "of_parameters expects a process built by jurax.ppl.sequential, got "
            f"{type(process).__name__}"
        )
    found: list[Coordinates] = []
    known = dict(process.plan.parameters + process.plan.state)

    def choose(name: str, law: dist.Distribution) -> Array:
        shape = known[name]
        if name in process.parameters:
            found.append(_coordinates(name, law, shape.zeros()))
        return shape.zeros()

    jax.eval_shape(lambda: run_before_scan(process.program, choose)[1])
    # Refuses priors that depend on the state.
    jax.eval_shape(lambda: process.log_prior({n: s.zeros() for n, s in process.plan.parameters}))
    return _some(found, process.program.name)


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
