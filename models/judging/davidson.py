"""The Bradley-Terry law with ties (Davidson 1970), fitted by Newton's method on counts.

    P(i beats j) = a / D,  P(j beats i) = b / D,  P(tie) = nu / D,
    a = exp(eta / 2),  b = exp(-eta / 2),  D = a + b + nu,  eta = s_i - s_j + gamma

for i shown first; gamma is the advantage of the first place, nu = exp(tau) the propensity to tie.
Without ties nu = 0 and P(i beats j) = sigmoid(eta). All battles enter through counts n[i, j, o],
so that a fit costs the same for a thousand battles and for a million, and bootstrap rounds are
fits of other counts, mapped. A normal prior on s (and on gamma, tau) keeps undefeated candidates
finite; it is weak unless it is asked for.

Shape letters: C candidates, O = 3 outcomes (first wins, tie, second wins), P = C + 2 parameters.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

NUM_STEPS = 50
NO_TIES = -30.0  # tau where ties do not occur


class Fit(NamedTuple):
    """A mode and the curvature there.

    Attributes:
        parameters: s, gamma, tau.
        information: minus the second derivatives of the log posterior.
        gradient: of the log posterior; near 0 at a mode.
    """

    parameters: Float[Array, " P"]
    information: Float[Array, "P P"]
    gradient: Float[Array, " P"]


def log_laws(parameters: Float[Array, " P"]) -> Float[Array, "C C O"]:
    """Log P(outcome) of i shown first against j."""
    eta, tau = differences(parameters), parameters[-1]
    weights = jnp.stack([eta / 2, jnp.full_like(eta, tau), -eta / 2], axis=-1)
    return jax.nn.log_softmax(weights, axis=-1)


def differences(parameters: Float[Array, " P"]) -> Float[Array, "C C"]:
    """eta[i, j] = s_i - s_j + gamma."""
    s = parameters[:-2]
    return s[:, None] - s[None, :] + parameters[-2]


def derivatives(
    parameters: Float[Array, " P"],
    counts: Float[Array, "C C O"],
    precision: Float[Array, " P"],
    center: Float[Array, " P"],
) -> tuple[Float[Array, " P"], Float[Array, "P P"]]:
    """Gradient of the log posterior and the information, in closed form.

    With n the battles of a cell: d/d eta = (w - l - n (p_w - p_l)) / 2, d/d tau = t - n p_t; the
    information of s is the Laplacian of the graph of battles, weighted by that of eta.
    """
    law = jnp.exp(log_laws(parameters))
    number = jnp.sum(counts, axis=-1)
    lead, tie = law[..., 0] - law[..., 2], law[..., 1]
    by_eta = (counts[..., 0] - counts[..., 2] - number * lead) / 2
    by_tau = counts[..., 1] - number * tie
    eta_eta = number * (1 - tie - lead**2) / 4
    eta_tau = -number * tie * lead / 2
    tau_tau = number * tie * (1 - tie)
    gradient = jnp.concatenate(
        [by_eta.sum(1) - by_eta.sum(0), jnp.stack([by_eta.sum(), by_tau.sum()])]
    )
    information = assembled(eta_eta, eta_tau, tau_tau)
    gradient = gradient - precision * (parameters - center)
    return gradient, information + jnp.diag(precision)


def assembled(
    eta_eta: Float[Array, "C C"], eta_tau: Float[Array, "C C"], tau_tau: Float[Array, "C C"]
) -> Float[Array, "P P"]:
    """The quadratic form of s, gamma and tau, from those of eta and tau in every cell."""
    both = eta_eta + eta_eta.T
    laplacian = jnp.diag(both.sum(1)) - both
    cross = jnp.stack([eta_eta.sum(1) - eta_eta.sum(0), eta_tau.sum(1) - eta_tau.sum(0)], axis=1)
    corner = jnp.array([[eta_eta.sum(), eta_tau.sum()], [eta_tau.sum(), tau_tau.sum()]])
    return jnp.block([[laplacian, cross], [cross.T, corner]])


def fit(
    counts: Float[Array, "C C O"],
    precision: Float[Array, " P"],
    center: Float[Array, " P"],
    tolerance: float = 1e-6,
) -> Fit:
    """The mode by damped Newton steps: at most 2 logits a step, so that none overshoots.

    Args:
        counts: battles by candidate shown first, candidate shown second and outcome.
        precision: of the normal prior of each parameter; a very large one fixes it at `center`.
        center: mean of the prior, and the start.
        tolerance: of the largest step.
    """

    def step(carry: tuple) -> tuple:
        parameters, _, number = carry
        gradient, information = derivatives(parameters, counts, precision, center)
        move = jnp.linalg.solve(information, gradient)
        size = jnp.max(jnp.abs(move))
        return parameters + move * jnp.minimum(1.0, 2.0 / size), size, number + 1

    def going(carry: tuple) -> Bool[Array, ""]:
        _, size, number = carry
        return (size > tolerance) & (number < NUM_STEPS)

    start = center, jnp.array(jnp.inf), jnp.zeros((), int)
    parameters = jax.lax.while_loop(going, step, start)[0]
    gradient, information = derivatives(parameters, counts, precision, center)
    return Fit(parameters, information, gradient)


def sandwich(found: Fit, counts: Float[Array, "C C O"]) -> Float[Array, "P P"]:
    """I^{-1} (sum_battles score score') I^{-1}: right for battles of any law (Huber 1967)."""
    law = jnp.exp(log_laws(found.parameters))
    lead, tie = law[..., 0] - law[..., 2], law[..., 1]
    # Scores of one battle with outcome o, in eta and in tau.
    eta = jnp.stack([1 - lead, -lead, -1 - lead], axis=-1) / 2
    tau = jnp.stack([-tie, 1 - tie, -tie], axis=-1)
    eta_eta, eta_tau = jnp.sum(counts * eta**2, -1), jnp.sum(counts * eta * tau, -1)
    meat = assembled(eta_eta, eta_tau, jnp.sum(counts * tau**2, -1))
    inverse = jnp.linalg.inv(found.information)
    return inverse @ meat @ inverse
