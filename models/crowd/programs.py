"""What the family's NumPyro programs share: binding to answers, and the shares of the classes.

Each member's file holds its program: the labels are summed out, the workers are sampled. Priors
have the pseudo-answers of its EM, which finds the mode of this posterior (of MACE a variational
one).

Shape letters: K classes.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float

from jurax.models.crowd.answers import Answers
from jurax.models.crowd.em import Edges
from jurax.ppl.program import Program, bind


def bound(model: Callable[..., None], answers: Answers, gold: Any, *arguments: Any) -> Program:
    """`model(edges, *arguments)` with its data; `gold` as in `fit`."""
    return bind(model, Edges.of(answers, answers.gold(gold)), *arguments)


def class_shares(num_classes: int, kind: str) -> Float[Array, " K"]:
    """Rho: uniform, or the site `priors` ~ Dirichlet(1, ..., 1) where it is learned."""
    if kind == "uniform":
        return jnp.full(num_classes, 1 / num_classes)
    return numpyro.sample("priors", dist.Dirichlet(jnp.ones(num_classes)))
