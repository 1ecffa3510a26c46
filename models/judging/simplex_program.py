"""The simplex model as a NumPyro program.

    pi_c           ~ Dirichlet(1, ..., 1)                   prevalence of true levels, candidate c
    gaps of location[j, .] ~ LogNormal(quality, 0.5)        how well judge j tells levels apart
    offset_j       ~ Normal(0, 1)                           harsh or lenient
    gaps of cut[j, .]      ~ LogNormal(0.7, 0.5)
    shift[j, c]    = s_j b[j, c],  b ~ Normal(0, 1)         drift: leniency towards a candidate
    s_j            ~ LogNormal(log 0.3, 0.8), or given

The likelihood is that of whole items (`joint`: judges err independently given the true level) or of
score counts (`marginal`: all that the theorems on identifiability are about). After Vossler et al.
2026 (arXiv 2505.21972), whose priors are not public: these are ours.

Shape letters: J judges, C candidates, M levels.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float

from jurax.models.judging.judge_law import (
    Rows,
    confusion,
    joint_log_likelihood,
    marginal_log_likelihood,
    ordered,
)

GAP_SPREAD = 0.5
CUT_GAP = 0.7
DRIFT_MEDIAN, DRIFT_SPREAD = 0.3, 0.8


class Knobs(NamedTuple):
    """The assumptions as numbers, so that another value needs no other compilation.

    Attributes:
        drift: s, the same for all judges; where it is learned, the median of its prior.
        quality: median log gap between locations of neighbouring levels.
        dependence: correlation of judges' mistakes, see `judge_law.worth`.
    """

    drift: Float[Array, ""]
    quality: Float[Array, ""]
    dependence: Float[Array, ""]


def simplex_program(
    data: Rows | Float[Array, "J C M"], knobs: Knobs, num_levels: int, learn_drift: bool
) -> None:
    """A plain NumPyro program; `data` are rows (joint) or counts (marginal)."""
    joint = isinstance(data, Rows)
    num_candidates = data.count.shape[0] if joint else data.shape[1]
    num_judges = data.hot.shape[-1] // num_levels if joint else data.shape[0]
    ones = jnp.ones((num_candidates, num_levels))
    prevalence = numpyro.sample("prevalence", dist.Dirichlet(ones).to_event(1))
    location = ordered(gaps("location_gap", num_judges, num_levels - 1, knobs.quality))
    zeros = jnp.zeros(num_judges)
    offset = numpyro.sample("offset", dist.Normal(zeros, 1.0).to_event(1))
    cut = jnp.zeros((num_judges, 1))
    if num_levels > 2:
        cut = ordered(gaps("cut_gap", num_judges, num_levels - 2, jnp.array(CUT_GAP)))
    scale = jnp.full(num_judges, knobs.drift)
    if learn_drift:
        prior = dist.LogNormal(jnp.log(scale), DRIFT_SPREAD)
        scale = numpyro.sample("drift_scale", prior.to_event(1))
    noise = dist.Normal(jnp.zeros((num_judges, num_candidates)), 1.0)
    shift = scale[:, None] * numpyro.sample("drift", noise.to_event(2))
    theta = confusion(location + offset[:, None], cut, shift)
    log_likelihood = joint_log_likelihood if joint else marginal_log_likelihood
    value = log_likelihood(data, theta, prevalence, knobs.dependence)
    numpyro.factor("scores", value)


def gaps(name: str, num_judges: int, num_gaps: int, middle: Array) -> Float[Array, "J G"]:
    """Positive distances between neighbours."""
    medians = jnp.broadcast_to(middle, (num_judges, num_gaps))
    return numpyro.sample(name, dist.LogNormal(medians, GAP_SPREAD).to_event(2))
