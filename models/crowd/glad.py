"""GLAD: the probability of a right answer depends on the worker and on how easy the task is.

    P(y_ij = z_j) = sigmoid(alpha_i beta_j),    the other K - 1 classes share the rest evenly,
    alpha_i ~ N(1, 1),    log beta_j ~ N(1, 1)

Whitehill et al. 2009. Generalised EM: T_jc as in the one-coin model, then one ascent in alpha and
one in b = log beta of

    Q = sum_e T_e log sigmoid(x_e) + (1 - T_e) log sigmoid(-x_e) + log priors,    x = alpha e^b,

where T_e is the posterior probability that answer e is right. Alpha: the maximum of the quadratic
bound log sigmoid(x) >= x/2 - w x^2 / 2 + const with w = tanh(x/2) / (2x) at the present x (Jaakkola
and Jordan 2000), which never lowers Q. b: a Newton step of each task, taken only where it does not
lower the task's part of Q.

Shape letters: E answers, J tasks, W workers, K classes.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
from jaxtyping import Array, Float

from jurax.models.crowd import laws
from jurax.models.crowd.aggregator import AbstractAggregator, Estimate
from jurax.models.crowd.em import Edges, check_options, iterate, shares_of
from jurax.models.crowd.one_coin import posterior_of
from jurax.models.crowd.programs import bound, class_shares


@dataclasses.dataclass
class GLAD(AbstractAggregator):
    """Ability of workers and easiness of tasks.

    Args:
        priors: as in `OneCoinDawidSkene`.

    After `fit` also `alphas_` (ability by worker) and `betas_` (log-easiness by task, as in
    crowd-kit). `skills_` is P(right) on a task of the mean log-easiness, sigmoid(alpha e^{mean b}).
    `tol` bounds the rise of the log-likelihood plus log-priors, per answer.

    Example:
        >>> table = {"task": [1, 1, 1, 2, 2], "worker": [1, 2, 3, 1, 2], "label": list("aabbb")}
        >>> model = GLAD().fit(table)
        >>> model.labels_.tolist(), bool(model.alphas_[3] < 0)
        (['a', 'b'], True)
    """

    priors: str = "uniform"

    def __post_init__(self):
        super().__post_init__()
        check_options(self.priors)

    def program(self, answers, gold=None):
        """The model as a NumPyro program, `program` below."""
        return bound(program, answers, gold, self.priors)

    def estimate(self, answers, gold):
        """Generalised EM from alpha = 1, b = 1."""
        edges = Edges.of(answers, gold)
        (probas, ability, easiness, priors), log_posterior, number = fit(
            edges, self.priors, self.n_iter, self.tol
        )
        probas, ability, easiness = (np.asarray(x) for x in (probas, ability, easiness))
        self.alphas_ = pd.Series(ability, pd.Index(answers.workers, name="worker"), name="alpha")
        self.betas_ = pd.Series(easiness, pd.Index(answers.tasks, name="task"), name="beta")
        return Estimate(
            probas,
            sigmoid(ability * np.exp(easiness.mean())),
            np.asarray(priors),
            int(number),
            float(log_posterior),
            answer_law=laws.Accuracies(probas, Product(ability, easiness)),
        )


@dataclasses.dataclass(frozen=True)
class Product:
    """sigmoid(alpha_i e^{b_j})."""

    ability: Float[np.ndarray, " W"]
    easiness: Float[np.ndarray, " J"]

    def __call__(self, task, worker):
        """P(right) of each question."""
        return sigmoid(self.ability[worker] * np.exp(self.easiness[task]))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-x)."""
    return np.asarray(jax.nn.sigmoid(x))


def program(edges: Edges, kind: str) -> None:
    """Sites `ability` (W) and `easiness` (J), alpha and b, both N(1, 1); `priors`."""
    normal = dist.Normal(1.0, 1.0)
    ability = numpyro.sample("ability", normal.expand([edges.num_workers]).to_event(1))
    easiness = numpyro.sample("easiness", normal.expand([edges.num_tasks]).to_event(1))
    shares = class_shares(edges.num_classes, kind)
    numpyro.factor("answers", by_logits(edges, logits(edges, ability, easiness), shares)[1])


@eqx.filter_jit
def fit(edges: Edges, kind: str, n_iter: int, tol: float):
    """((T, alpha, b, rho), log-posterior per answer, steps)."""

    def step(state):
        probas, ability, easiness, priors = state
        probas, log_likelihood = by_logits(edges, logits(edges, ability, easiness), priors)
        target = probas[edges.task, edges.label]
        new_ability = better_ability(edges, target, ability, easiness)
        new_easiness = better_easiness(edges, target, new_ability, easiness)
        log_priors = -0.5 * (jnp.sum((ability - 1) ** 2) + jnp.sum((easiness - 1) ** 2))
        return (probas, new_ability, new_easiness, shares_of(probas, kind)), (
            log_likelihood + log_priors
        )

    start = (
        edges.shares(),
        jnp.ones(edges.num_workers),
        jnp.ones(edges.num_tasks),
        jnp.full(edges.num_classes, 1 / edges.num_classes),
    )
    return iterate(step, start, edges.num_answers, n_iter, tol)


def logits(
    edges: Edges, ability: Float[Array, " W"], easiness: Float[Array, " J"]
) -> Float[Array, " E"]:
    """alpha_i e^{b_j} of each answer."""
    return ability[edges.worker] * jnp.exp(easiness)[edges.task]


def by_logits(
    edges: Edges, x: Float[Array, " E"], priors: Float[Array, " K"]
) -> tuple[Float[Array, "J K"], Float[Array, ""]]:
    """Posterior of the labels and log-likelihood, given the logit of P(right) of each answer."""
    wrong = jax.nn.log_sigmoid(-x) - jnp.log(edges.num_classes - 1.0)
    return posterior_of(edges, jax.nn.log_sigmoid(x), wrong, priors)


def better_ability(
    edges: Edges,
    target: Float[Array, " E"],
    ability: Float[Array, " W"],
    easiness: Float[Array, " J"],
) -> Float[Array, " W"]:
    """The maximum of the quadratic bound over alpha."""
    scale = jnp.exp(easiness)[edges.task]
    x = ability[edges.worker] * scale
    small = jnp.abs(x) < 1e-3  # tanh(x/2) / (2x) tends to 1/4
    curvature = jnp.where(small, 0.25, jnp.tanh(x / 2) / (2 * jnp.where(small, 1.0, x)))
    sums = edges.over_workers(jnp.stack([(target - 0.5) * scale, curvature * scale**2], axis=1))
    return (sums[:, 0] + 1) / (sums[:, 1] + 1)


def better_easiness(
    edges: Edges,
    target: Float[Array, " E"],
    ability: Float[Array, " W"],
    easiness: Float[Array, " J"],
) -> Float[Array, " J"]:
    """A Newton step in b of each task, of at most 1, where it does not lower Q."""

    def objective(x: Array, b: Array) -> Array:
        terms = target * x - jax.nn.softplus(x)  # = T log s(x) + (1 - T) log s(-x)
        return edges.over_tasks(terms) - 0.5 * (b - 1) ** 2

    x = logits(edges, ability, easiness)
    chance = jax.nn.sigmoid(x)
    slope = (target - chance) * x
    curvature = chance * (1 - chance) * x**2 + jnp.maximum(-slope, 0)
    sums = edges.over_tasks(jnp.stack([slope, curvature], axis=1))
    step = jnp.clip((sums[:, 0] - (easiness - 1)) / (sums[:, 1] + 1), -1, 1)
    moved = easiness + step
    rises = objective(logits(edges, ability, moved), moved) >= objective(x, easiness)
    return jnp.where(rises, moved, easiness)
