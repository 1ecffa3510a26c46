"""Linear-Gaussian state-space model, with the Kalman filter and smoother as its exact answers.

    x_0 ~ N(m, P),   x_t = A x_{t-1} + N(0, Q),   y_t = C x_t + N(0, R),   t = 1..T

Kalman 1960; smoother of Rauch, Tung and Striebel 1965 (Sarkka 2013, Theorems 4.2 and 8.2). A row
of observations that is NaN throughout is missing. Shape letters: D state, P observation, T steps.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, ArrayLike, Float, Int
from numpyro.contrib.control_flow import scan

from jurax.models.state_space.base import AbstractStateSpace
from jurax.models.state_space.checks import check_covariance, check_series, check_shape
from jurax.ppl import lanes
from jurax.ppl.combinators import Proposal
from jurax.ppl.program import Program, bind
from jurax.ppl.state_space import StateSpaceModel


class LinearGaussian(AbstractStateSpace):
    """The model as a process; particles are states `(N, D)`.

    Attributes:
        observations: y_1..y_T.
        transition_matrix: A.
        transition_covariance: Q.
        observation_matrix: C.
        observation_covariance: R.
        initial_mean: m.
        initial_covariance: P.

    Example:
        >>> import jax
        >>> model = LinearGaussian.simulate(jax.random.key(0), num_steps=50, num_states=2)
        >>> model.filtered().means.shape, model.smoothed().cross_covariances.shape
        ((51, 2), (50, 2, 2))
    """

    observations: Float[Array, "T P"]
    transition_matrix: Float[Array, "D D"]
    transition_covariance: Float[Array, "D D"]
    observation_matrix: Float[Array, "P D"]
    observation_covariance: Float[Array, "P P"]
    initial_mean: Float[Array, " D"]
    initial_covariance: Float[Array, "D D"]

    def __init__(
        self,
        observations: Float[ArrayLike, "T P"],
        transition_matrix: Float[ArrayLike, "D D"],
        transition_covariance: Float[ArrayLike, "D D"],
        observation_matrix: Float[ArrayLike, "P D"],
        observation_covariance: Float[ArrayLike, "P P"],
        initial_mean: Float[ArrayLike, " D"],
        initial_covariance: Float[ArrayLike, "D D"],
    ):
        self.observations = jnp.asarray(observations, float)
        self.transition_matrix = jnp.asarray(transition_matrix, float)
        self.transition_covariance = jnp.asarray(transition_covariance, float)
        self.observation_matrix = jnp.asarray(observation_matrix, float)
        self.observation_covariance = jnp.asarray(observation_covariance, float)
        self.initial_mean = jnp.asarray(initial_mean, float)
        self.initial_covariance = jnp.asarray(initial_covariance, float)
        self._check()

    def _check(self) -> None:
        """Refuse shapes that do not fit C, noises without a density, rows NaN in part."""
        observed, states = self.observation_matrix.shape
        reason = f"observation_matrix is {observed} x {states}"
        check_shape("observations", self.observations, (self.num_steps, observed), reason)
        check_series(self.observations)
        check_shape("transition_matrix", self.transition_matrix, (states, states), reason)
        check_shape("initial_mean", self.initial_mean, (states,), reason)
        for name, size in (("transition", states), ("observation", observed), ("initial", states)):
            covariance = getattr(self, f"{name}_covariance")
            check_shape(f"{name}_covariance", covariance, (size, size), reason)
            check_covariance(f"{name}_covariance", covariance)

    @classmethod
    def simulate(cls, key: Array, num_steps: int = 100, num_states: int = 1) -> "LinearGaussian":
        """A series of the default model: A tridiagonal with radius <= .9, unit noises, C = I.

        Args:
            key: consumed.
            num_steps: T >= 1.
            num_states: D = P >= 1. For D = 1, A = .9; else .6 on the diagonal and .15 beside it.
        """
        identity = jnp.eye(num_states)
        beside = jnp.eye(num_states, k=1) + jnp.eye(num_states, k=-1)
        matrix = 0.9 * identity if num_states == 1 else 0.6 * identity + 0.15 * beside
        key_states, key_noise = jax.random.split(key)
        moves = jax.random.normal(key_states, (num_steps + 1, num_states))

        def step(state: Array, move: Array) -> tuple[Array, Array]:
            state = matrix @ state + move
            return state, state

        _, states = jax.lax.scan(step, moves[0], moves[1:])
        observations = states + jax.random.normal(key_noise, states.shape)
        mean = jnp.zeros(num_states)
        return cls(observations, matrix, identity, identity, identity, mean, identity)

    @property
    def num_steps(self) -> int:  # type: ignore[override]
        """T."""
        return self.observations.shape[0]

    @property
    def target(self) -> str:  # type: ignore[override]
        """The density of the states given the series."""
        return f"p(x[0:{self.num_steps}] | y) of a linear-Gaussian model"

    def state_space(self) -> StateSpaceModel:
        """The description of one particle."""
        return StateSpaceModel(
            initial=dist.MultivariateNormal(self.initial_mean, self.initial_covariance),
            transition=self.transition,
            potential=self.potential,
            num_steps=self.num_steps,
        )

    def transition(self, state: Float[Array, " D"], t: Int[Array, ""]) -> dist.Distribution:
        """Law of x_t given x_{t-1}."""
        del t
        return dist.MultivariateNormal(self.transition_matrix @ state, self.transition_covariance)

    def potential(self, state: Float[Array, " D"], t: Int[Array, ""]) -> Float[Array, ""]:
        """Log-density of y_t; 0 at t = 0 and where y_t is missing."""
        if self.num_steps == 0:
            return jnp.zeros(())
        observation = self.observations[jnp.maximum(t, 1) - 1]
        law = dist.MultivariateNormal(self.observation_matrix @ state, self.observation_covariance)
        is_observed = (t > 0) & ~jnp.all(jnp.isnan(observation))
        log_prob = lanes.log_prob(law, jnp.where(is_observed, observation, 0.0))
        return jnp.where(is_observed, log_prob, 0.0)

    def optimal_proposal(self) -> Proposal:
        """The laws of x_t given x_{t-1} and y_t, for `jurax.ppl.propose`.

        q_t = N(A x + K (y_t - C A x), (I - K C) Q) with K = Q C' (C Q C' + R)^{-1}; the weight is
        then p(y_t | x_{t-1}), whatever x_t is drawn.
        """
        return Proposal(transition=_OptimalTransition(self))

    def program(self) -> Program:
        """The same model as a NumPyro program, with this data."""
        return bind(
            linear_gaussian_program,
            self.observations,
            self.transition_matrix,
            self.transition_covariance,
            self.observation_matrix,
            self.observation_covariance,
            self.initial_mean,
            self.initial_covariance,
        )

    def filtered(self) -> "Filtered":
        """Exact filtering moments and evidence, by the Kalman filter."""
        return kalman_filter(self)

    def smoothed(self) -> "Smoothed":
        """Exact smoothing moments, by the Rauch-Tung-Striebel recursion."""
        return smoother(self, kalman_filter(self))

    def log_evidence(self) -> Float[Array, ""]:
        """Exact log p(y_{1:T})."""
        return kalman_filter(self).log_evidence


class _OptimalTransition(eqx.Module):
    model: LinearGaussian

    def __call__(self, state: Float[Array, " D"], t: Int[Array, ""]) -> dist.Distribution:
        model = self.model
        mean, covariance = model.transition_matrix @ state, model.transition_covariance
        observation = model.observations[jnp.maximum(t, 1) - 1]
        (mean, covariance), _ = _condition(model, mean, covariance, observation)
        return dist.MultivariateNormal(mean, covariance)


def linear_gaussian_program(
    observations,
    transition_matrix,
    transition_covariance,
    observation_matrix,
    observation_covariance,
    initial_mean,
    initial_covariance,
):
    """A plain NumPyro program; it knows nothing of Jurax."""
    x_0 = numpyro.sample("x_0", dist.MultivariateNormal(initial_mean, initial_covariance))

    def step(x, y):
        law = dist.MultivariateNormal(transition_matrix @ x, transition_covariance)
        x = numpyro.sample("x", law)
        law = dist.MultivariateNormal(observation_matrix @ x, observation_covariance)
        numpyro.sample("y", law, obs=y)
        return x, None

    scan(step, x_0, observations)


class Filtered(eqx.Module):
    """Moments of x_t given y_{1:t}, t = 0..T, and log p(y_{1:T})."""

    means: Float[Array, "T1 D"]
    covariances: Float[Array, "T1 D D"]
    log_evidence: Float[Array, ""]


class Smoothed(eqx.Module):
    """Moments of x_t given y_{1:T}, t = 0..T; `cross_covariances[t]` = Cov(x_{t+1}, x_t | y)."""

    means: Float[Array, "T1 D"]
    covariances: Float[Array, "T1 D D"]
    cross_covariances: Float[Array, "T D D"]


def kalman_filter(model: LinearGaussian) -> Filtered:
    """Filter forwards: predict, then condition on y_t.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> one = jnp.ones((1, 1))
        >>> model = LinearGaussian(jnp.zeros((1, 1)), one, one, one, one, jnp.zeros(1), one)
        >>> result = kalman_filter(model)  # y_1 ~ N(0, 1 + 1 + 1), and x_1 | y_1 has variance 2/3
        >>> round(float(result.covariances[1, 0, 0]), 4), round(float(result.log_evidence), 4)
        (0.6667, -1.4682)
    """
    first = (model.initial_mean, model.initial_covariance)

    def step(moments: tuple[Array, Array], observation: Array):
        moments, log_prob = _condition(model, *_predict(model, *moments), observation)
        return moments, (*moments, log_prob)

    _, (means, covariances, log_probs) = jax.lax.scan(step, first, model.observations)
    return Filtered(
        means=jnp.concatenate([first[0][None], means]),
        covariances=jnp.concatenate([first[1][None], covariances]),
        log_evidence=jnp.sum(log_probs),
    )


def smoother(model: LinearGaussian, filtered: Filtered) -> Smoothed:
    """Smooth backwards with gains J_t = P_t A' (A P_t A' + Q)^{-1}.

    m_t + J_t (s_{t+1} - A m_t);   P_t + J_t (S_{t+1} - A P_t A' - Q) J_t';
    Cov(x_{t+1}, x_t | y) = S_{t+1} J_t'.
    """

    def step(later: tuple[Array, Array], moments: tuple[Array, Array]):
        mean, covariance = moments
        predicted_mean, predicted = _predict(model, mean, covariance)
        gain = jnp.linalg.solve(predicted, model.transition_matrix @ covariance).T
        smoothed = (
            mean + gain @ (later[0] - predicted_mean),
            covariance + gain @ (later[1] - predicted) @ gain.T,
        )
        return smoothed, (*smoothed, later[1] @ gain.T)

    last = (filtered.means[-1], filtered.covariances[-1])
    earlier = (filtered.means[:-1], filtered.covariances[:-1])
    _, (means, covariances, cross) = jax.lax.scan(step, last, earlier, reverse=True)
    return Smoothed(
        means=jnp.concatenate([means, last[0][None]]),
        covariances=jnp.concatenate([covariances, last[1][None]]),
        cross_covariances=cross,
    )


def _predict(model: LinearGaussian, mean: Array, covariance: Array) -> tuple[Array, Array]:
    matrix = model.transition_matrix
    return matrix @ mean, matrix @ covariance @ matrix.T + model.transition_covariance


def _condition(model: LinearGaussian, mean: Array, covariance: Array, observation: Array):
    """Moments given one more observation, and its predictive log-density; none if it is missing."""
    matrix = model.observation_matrix
    predicted = matrix @ covariance @ matrix.T + model.observation_covariance
    gain = jnp.linalg.solve(predicted, matrix @ covariance).T
    is_missing = jnp.all(jnp.isnan(observation))
    observation = jnp.where(is_missing, matrix @ mean, observation)
    log_prob = dist.MultivariateNormal(matrix @ mean, predicted).log_prob(observation)
    gain = jnp.where(is_missing, 0.0, gain)
    moments = (mean + gain @ (observation - matrix @ mean), covariance - gain @ matrix @ covariance)
    return moments, jnp.where(is_missing, 0.0, log_prob)
