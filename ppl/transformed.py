"""Densities of a program at unconstrained values of its latent sites.

The program runs once with each site v at T_v(x_v); the log densities of its sites are summed by
role: prior (latent sites), likelihood (observed sites and factors), jacobian (log |det dT/dx|).
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import biject_to
from numpyro.infer.util import compute_log_probs

from jurax.ppl.effects import recall, run_before_scan, unmasked
from jurax.ppl.program import Program
from jurax.ppl.sequential import SequentialProgram


class Evaluation(NamedTuple):
    """A program at one point: latent and deterministic values, and the terms of the density."""

    latent: dict[str, Array]
    deterministic: dict[str, Array]
    log_prior: Float[Array, ""]
    log_likelihood: Float[Array, ""]
    log_jacobian: Float[Array, ""]


def evaluate_program(program: Program, free: dict[str, Array]) -> Evaluation:
    """Run the whole program with its latent sites at T(free)."""
    log_probs, trace = run_program(program, free)
    terms = {"prior": jnp.zeros(()), "likelihood": jnp.zeros(()), "jacobian": jnp.zeros(())}
    for name, log_prob in log_probs.items():
        terms[role(name, free)] += log_prob
    deterministic = {n: s["value"] for n, s in trace.items() if s["type"] == "deterministic"}
    return Evaluation(
        latent={name: trace[name]["value"] for name in free},
        deterministic=deterministic,
        log_prior=terms["prior"],
        log_likelihood=terms["likelihood"],
        log_jacobian=terms["jacobian"],
    )


def run_program(program: Program, free: dict[str, Array], *, sum_log_prob: bool = True) -> tuple:
    """Log densities of all sites by name, and the trace."""
    constrained = numpyro.handlers.substitute(program, substitute_fn=_Bijections(free))
    return compute_log_probs(constrained, (), {}, {}, sum_log_prob)


def evaluate_parameters(process: SequentialProgram, free: dict[str, Array]) -> Evaluation:
    """Run what stands before the scan with its parameters at T(free); state sites do not matter."""
    jacobian = [jnp.zeros(())]
    laws: dict[str, Any] = {}

    def value(name: str) -> Array:
        value, log_det = _transform(laws[name], free[name])
        jacobian.append(log_det)
        return value

    sites, _ = run_before_scan(process.program, noting(laws, process, value))
    log_prior = sum((sites.log_probs[name] for name in free), start=jnp.zeros(()))
    return Evaluation(
        latent={name: sites.latent[name] for name in free},
        deterministic={},
        log_prior=log_prior,
        log_likelihood=jnp.zeros(()),
        log_jacobian=sum(jacobian[1:], start=jacobian[0]),
    )


def noting(laws: dict[str, Any], process: SequentialProgram, value):
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


def role(name: str, free: dict[str, Array]) -> str:
    """What the log density of a site counts as: prior, likelihood or jacobian."""
    if name in free:
        return "prior"
    is_jacobian = name.endswith("_log_jacobian") and name[1:].removesuffix("_log_jacobian") in free
    return "jacobian" if is_jacobian else "likelihood"
