"""One coin: each worker is right with one probability, and wrong answers are spread evenly.

    T_jc ~ rho_c prod_i a_i^{1{y_ij = c}} ((1 - a_i) / (K - 1))^{1{y_ij != c}},
    a_i = (pseudo-hits + sum_j T_j,y_ij) / (pseudo-answers + answers of i)

Dawid-Skene with one number for a matrix, by smoothed EM.

Shape letters: E answers, J tasks, W workers, K classes.
"""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float

from jurax.models.crowd import laws
from jurax.models.crowd.aggregator import AbstractAggregator, Estimate
from jurax.models.crowd.em import Edges, check_options, iterate, shares_of
from jurax.models.crowd.programs import bound, class_shares


@dataclasses.dataclass
class OneCoinDawidSkene(AbstractAggregator):
    """One accuracy for each worker: `skills_`.

    Args:
        smoothing: pseudo-answers of each worker, of accuracy 1/2 + 1/(2K): halfway between guessing
            and certainty.
        priors: shares of the classes, "uniform" or "learned". Learned, EM can slide to where one
            class takes most tasks, and the likelihood does not show it: one number for a worker
            cannot tell a common class from a preferred answer.
    """

    smoothing: float = 2.0
    priors: str = "uniform"

    def __post_init__(self):
        super().__post_init__()
        check_options(self.priors, smoothing=self.smoothing)

    def program(self, answers, gold=None):
        """The model as a NumPyro program, `program` below."""
        return bound(program, answers, gold, self.smoothing, self.priors)

    def estimate(self, answers, gold):
        """EM from the shares of votes."""
        edges = Edges.of(answers, gold)
        (probas, accuracies, priors), log_likelihood, number = fit_accuracies(
            edges, self.smoothing, self.priors, self.n_iter, self.tol
        )
        probas, skills = np.asarray(probas), np.asarray(accuracies)
        return Estimate(
            probas,
            skills,
            np.asarray(priors),
            int(number),
            float(log_likelihood),
            answer_law=laws.Accuracies(probas, laws.OfWorker(skills)),
        )


def program(edges: Edges, smoothing: float, kind: str) -> None:
    """a_i ~ Beta(1 + s h, 1 + s (1 - h)), h = 1/2 + 1/(2K): sites `accuracy` (W), `priors`."""
    halfway = 0.5 + 0.5 / edges.num_classes
    prior = dist.Beta(1 + smoothing * halfway, 1 + smoothing * (1 - halfway))
    accuracy = numpyro.sample("accuracy", prior.expand([edges.num_workers]).to_event(1))
    shares = class_shares(edges.num_classes, kind)
    numpyro.factor("answers", by_accuracies(edges, accuracy, shares)[1])


@eqx.filter_jit
def fit_accuracies(edges: Edges, smoothing: float, kind: str, n_iter: int, tol: float):
    """EM with one accuracy for each worker: ((T, a, rho), log-likelihood per answer, steps)."""
    num = edges.num_classes
    numbers = edges.numbers
    halfway = 0.5 + 0.5 / num

    def step(state):
        probas, _, _ = state
        hits = edges.over_workers(probas[edges.task, edges.label])
        accuracies = (hits + smoothing * halfway) / (numbers + smoothing)
        accuracies = jnp.clip(accuracies, 1e-6, 1 - 1e-6)
        priors = shares_of(probas, kind)
        probas, log_likelihood = by_accuracies(edges, accuracies, priors)
        return (probas, accuracies, priors), log_likelihood

    shares = edges.shares()
    start = (shares, jnp.full(edges.num_workers, 0.5), shares.mean(axis=0))
    return iterate(step, start, edges.num_answers, n_iter, tol)


def posterior_of(
    edges: Edges,
    right: Float[Array, " E"],
    wrong: Float[Array, " E"],
    priors: Float[Array, " K"],
) -> tuple[Float[Array, "J K"], Float[Array, ""]]:
    """Posterior of the labels and log-likelihood.

    `right` is the log-probability of each answer if its class is the label, `wrong` if not.
    """
    log_joint = jnp.log(priors)[None] + edges.votes(right - wrong)
    return edges.posterior(log_joint + edges.over_tasks(wrong)[:, None])


def by_accuracies(
    edges: Edges, accuracies: Float[Array, " W"], priors: Float[Array, " K"]
) -> tuple[Float[Array, "J K"], Float[Array, ""]]:
    """The same, given P(right) of each worker."""
    right, wrong = jnp.log(accuracies), jnp.log((1 - accuracies) / (edges.num_classes - 1))
    return posterior_of(edges, right[edges.worker], wrong[edges.worker], priors)
