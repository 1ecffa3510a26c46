"""The family as NumPyro programs: the labels are summed out, the workers are sampled.

    one coin       a_i ~ Beta(1 + s h, 1 + s (1 - h)),    h = 1/2 + 1/(2K)
    Dawid-Skene    pi^i[c] ~ Dirichlet(1 + a + b 1{. = c})
    GLAD           alpha_i ~ N(1, 1),    log beta_j ~ N(1, 1)
    MACE           theta_i ~ Beta(1/2, 1/2),    xi_i ~ Dirichlet(10, ..., 10)

with the pseudo-answers of the aggregators, whose EM finds the mode of these posteriors (of MACE a
variational one). Class shares are uniform, or Dirichlet(1, ..., 1) where they are learned.

Shape letters: J tasks, W workers, K classes.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float

from jurax.models.crowd.em import Edges
from jurax.models.crowd.one_coin import posterior_of


def class_shares(num_classes: int, kind: str) -> Float[Array, " K"]:
    """Rho: fixed or sampled."""
    if kind == "uniform":
        return jnp.full(num_classes, 1 / num_classes)
    return numpyro.sample("priors", dist.Dirichlet(jnp.ones(num_classes)))


def one_coin(edges: Edges, smoothing: float, kind: str) -> None:
    """Sites `accuracy` (W) and, if learned, `priors`."""
    num, halfway = edges.num_classes, 0.5 + 0.5 / edges.num_classes
    prior = dist.Beta(1 + smoothing * halfway, 1 + smoothing * (1 - halfway))
    accuracy = numpyro.sample("accuracy", prior.expand([edges.num_workers]).to_event(1))
    right, wrong = jnp.log(accuracy), jnp.log((1 - accuracy) / (num - 1))
    shares = class_shares(num, kind)
    worker = edges.worker
    numpyro.factor("answers", posterior_of(edges, right[worker], wrong[worker], shares)[1])


def dawid_skene(edges: Edges, pseudo: Float[Array, "K K"], kind: str) -> None:
    """Sites `matrices` (W, K, K), rows by right label, and, if learned, `priors`."""
    prior = dist.Dirichlet(1 + pseudo).expand([edges.num_workers, edges.num_classes]).to_event(2)
    matrices = numpyro.sample("matrices", prior)
    shares = class_shares(edges.num_classes, kind)
    by_answer = jnp.log(matrices)[edges.worker, :, edges.label]
    log_joint = jnp.log(shares)[None] + edges.over_tasks(by_answer)
    numpyro.factor("answers", edges.posterior(log_joint)[1])


def glad(edges: Edges, kind: str) -> None:
    """Sites `ability` (W), `easiness` (J, logarithms) and, if learned, `priors`."""
    normal = dist.Normal(1.0, 1.0)
    ability = numpyro.sample("ability", normal.expand([edges.num_workers]).to_event(1))
    easiness = numpyro.sample("easiness", normal.expand([edges.num_tasks]).to_event(1))
    x = ability[edges.worker] * jnp.exp(easiness)[edges.task]
    wrong = jax.nn.log_sigmoid(-x) - jnp.log(edges.num_classes - 1.0)
    shares = class_shares(edges.num_classes, kind)
    numpyro.factor("answers", posterior_of(edges, jax.nn.log_sigmoid(x), wrong, shares)[1])


def mace(edges: Edges, knows: float, habit: float) -> None:
    """Sites `theta` (W) and `habits` (W, K)."""
    num = edges.num_classes
    theta = numpyro.sample("theta", dist.Beta(knows, knows).expand([edges.num_workers]).to_event(1))
    prior = dist.Dirichlet(jnp.full(num, habit)).expand([edges.num_workers]).to_event(1)
    spam = (1 - theta)[:, None] * numpyro.sample("habits", prior)
    cell = (edges.worker, edges.label)
    right, wrong = jnp.log(theta[:, None] + spam)[cell], jnp.log(spam)[cell]
    numpyro.factor("answers", posterior_of(edges, right, wrong, jnp.full(num, 1 / num))[1])
