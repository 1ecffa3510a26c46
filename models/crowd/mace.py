"""MACE: a worker knows the label, or answers from a habit that has nothing to do with the task.

    P(y_ij = k | z_j) = theta_i 1{k = z_j} + (1 - theta_i) xi_i[k],
    theta_i ~ Beta(1/2, 1/2),    xi_i ~ Dirichlet(10, ..., 10),    z_j uniform

Hovy et al. 2013, variational Bayes. With n and c the expected numbers of known answers and of
habitual answers k,

    theta = e^{psi(n + 1/2) - psi(answers + 1)},     1 - theta: the same with the habitual ones,
    xi[k] = e^{psi(c_k + 10) - psi(sum c + 10 K)}.

Starts have even habits, so that class numbers do not matter; theta is 1/2 in the first, which makes
its first E-step a vote, and uniform draws in the others. The fit of the largest likelihood is kept.

Shape letters: E answers, J tasks, W workers, K classes, R restarts.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
from jax.scipy.special import digamma
from jaxtyping import Array, Float

from jurax.models.crowd import laws
from jurax.models.crowd.aggregator import AbstractAggregator, Estimate
from jurax.models.crowd.em import Edges, iterate
from jurax.models.crowd.one_coin import posterior_of
from jurax.models.crowd.programs import bound

KNOWS = 0.5  # of the Beta prior of theta
HABIT = 10.0  # of the Dirichlet prior of xi


@dataclasses.dataclass
class MACE(AbstractAggregator):
    """Spammers found by their habits.

    Args:
        n_restarts: R; the first one is not random.

    `skills_` is the posterior mean of theta; `thetas_` (worker x label) that of the habits xi, with
    crowd-kit's name. `tol` bounds the rise of the log-likelihood per answer at the variational
    parameters.

    Example:
        >>> table = {
        ...     "task": [1, 2, 3, 4] * 4,
        ...     "worker": np.repeat(list("pqrs"), 4),
        ...     "label": list("abca" "abca" "abca" "bbbb"),
        ... }
        >>> MACE().fit(table).skills_.idxmin()
        's'
    """

    n_restarts: int = 10

    def __post_init__(self):
        super().__post_init__()
        if self.n_restarts < 1:
            raise ValueError(f"n_restarts must be at least 1, got {self.n_restarts}")

    def program(self, answers, gold=None):
        """The model as a NumPyro program, `program` below."""
        return bound(program, answers, gold)

    def estimate(self, answers, gold):
        """The best of the restarts."""
        edges = Edges.of(answers, gold)
        key = jax.random.key(self.seed)
        counts, log_likelihood, numbers = fit(edges, key, self.n_restarts, self.n_iter, self.tol)
        log_likelihood = np.asarray(log_likelihood)
        best = int(np.argmax(log_likelihood >= log_likelihood.max() - self.tol))  # a tie: the first
        known, habitual = (x[best] for x in counts)
        probas, _ = posterior(edges, *parameters(known, habitual))
        probas, skills, habits = (np.asarray(x) for x in (probas, *means(known, habitual)))
        self.thetas_ = pd.DataFrame(
            habits, pd.Index(answers.workers, name="worker"), pd.Index(answers.classes)
        )
        return Estimate(
            probas,
            skills,
            probas.mean(axis=0),
            int(numbers[best]),
            float(log_likelihood[best]),
            answer_law=laws.Shares(probas, skills, habits),
        )


def program(edges: Edges) -> None:
    """Sites `theta` (W) and `habits` (W, K), with the priors above."""
    beta = dist.Beta(KNOWS, KNOWS).expand([edges.num_workers])
    theta = numpyro.sample("theta", beta.to_event(1))
    prior = dist.Dirichlet(jnp.full(edges.num_classes, HABIT)).expand([edges.num_workers])
    habits = numpyro.sample("habits", prior.to_event(1))
    numpyro.factor("answers", posterior(edges, theta, 1 - theta, habits)[1])


@eqx.filter_jit
def fit(edges: Edges, key: Array, num_restarts: int, n_iter: int, tol: float):
    """(expected counts, log-likelihoods per answer, steps), each with a leading axis R."""
    numbers = edges.numbers
    even = jnp.full((edges.num_workers, edges.num_classes), 1 / edges.num_classes)

    def step(counts):
        theta, spams, habit = parameters(*counts)
        probas, log_likelihood = posterior(edges, theta, spams, habit)
        return expected_counts(edges, probas, theta, spams, habit), log_likelihood

    def run(share: Array) -> tuple:
        start = (numbers * share, even * (numbers * (1 - share))[:, None])
        return iterate(step, start, edges.num_answers, n_iter, tol)

    shares = jax.random.uniform(key, (num_restarts, edges.num_workers)).at[0].set(0.5)
    return jax.lax.map(run, shares)


def parameters(
    known: Float[Array, " W"], habitual: Float[Array, "W K"]
) -> tuple[Float[Array, " W"], Float[Array, " W"], Float[Array, "W K"]]:
    """theta, 1 - theta and xi of the variational M-step; they do not sum to one."""
    total = habitual.sum(axis=1)
    scale = digamma(known + total + 2 * KNOWS)
    theta, spams = (jnp.exp(digamma(x + KNOWS) - scale) for x in (known, total))
    size = digamma(total + HABIT * habitual.shape[1])
    return theta, spams, jnp.exp(digamma(habitual + HABIT) - size[:, None])


def means(
    known: Float[Array, " W"], habitual: Float[Array, "W K"]
) -> tuple[Float[Array, " W"], Float[Array, "W K"]]:
    """Posterior means of theta and xi."""
    total = habitual.sum(axis=1)
    habits = (habitual + HABIT) / (total + HABIT * habitual.shape[1])[:, None]
    return (known + KNOWS) / (known + total + 2 * KNOWS), habits


def posterior(
    edges: Edges, theta: Float[Array, " W"], spams: Float[Array, " W"], habit: Float[Array, "W K"]
) -> tuple[Float[Array, "J K"], Float[Array, ""]]:
    """T, and the log-likelihood."""
    spam = spams[:, None] * habit
    right, wrong = jnp.log(theta[:, None] + spam), jnp.log(spam)
    priors = jnp.full(edges.num_classes, 1 / edges.num_classes)
    cell = (edges.worker, edges.label)
    return posterior_of(edges, right[cell], wrong[cell], priors)


def expected_counts(
    edges: Edges,
    probas: Float[Array, "J K"],
    theta: Float[Array, " W"],
    spams: Float[Array, " W"],
    habit: Float[Array, "W K"],
) -> tuple[Float[Array, " W"], Float[Array, "W K"]]:
    """Expected numbers of known answers of each worker, and of habitual answers by class."""
    share = theta[:, None] / (theta[:, None] + spams[:, None] * habit)  # known, if right
    known = probas[edges.task, edges.label] * share[edges.worker, edges.label]
    cells = edges.worker * edges.num_classes + edges.label
    habitual = jax.ops.segment_sum(1 - known, cells, edges.num_workers * edges.num_classes)
    return edges.over_workers(known), habitual.reshape(edges.num_workers, edges.num_classes)
