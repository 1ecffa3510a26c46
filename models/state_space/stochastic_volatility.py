"""Stochastic volatility, with a recursion on a one-dimensional grid as its (near) exact answer.

    x_0 ~ N(m, s^2 / (1 - r^2)),   x_t = m + r (x_{t-1} - m) + N(0, s^2),   y_t ~ N(0, exp(x_t))

Taylor 1982; Kim, Shephard and Chib 1998. Defaults: m = -1.02, r = .9702, s = .178. Shape letters: T
steps, G grid points.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, ArrayLike, Float, Int
from numpyro.contrib.control_flow import scan

from jurax.models.state_space.base import AbstractStateSpace
from jurax.models.state_space.checks import check_range, check_series
from jurax.ppl.program import Program, bind
from jurax.ppl.state_space import StateSpaceModel


class StochasticVolatility(AbstractStateSpace):
    """The model as a process; particles are log-variances `(N,)`.

    Attributes:
        observations: y_1..y_T; NaN is missing.
        mean: m.
        persistence: r, in (-1, 1).
        scale: s > 0.

    Example:
        >>> import jax
        >>> model = StochasticVolatility.simulate(jax.random.key(0), num_steps=20)
        >>> exact = model.filtered()
        >>> coarse = grid_filter(model, num_points=200)
        >>> bool(abs(exact.log_evidence - coarse.log_evidence) < 1e-3)
        True
    """

    observations: Float[Array, " T"]
    mean: Float[Array, ""]
    persistence: Float[Array, ""]
    scale: Float[Array, ""]

    def __init__(
        self,
        observations: Float[ArrayLike, " T"],
        mean: Float[ArrayLike, ""] = -1.02,
        persistence: Float[ArrayLike, ""] = 0.9702,
        scale: Float[ArrayLike, ""] = 0.178,
    ):
        self.observations = jnp.asarray(observations, float)
        self.mean = jnp.asarray(mean, float)
        self.persistence = jnp.asarray(persistence, float)
        self.scale = jnp.asarray(scale, float)
        check_series(self.observations)
        check_range("mean", self.mean, -jnp.inf, jnp.inf)
        check_range("persistence", self.persistence, -1, 1)
        check_range("scale", self.scale, 0, jnp.inf)

    @classmethod
    def simulate(
        cls,
        key: Array,
        num_steps: int = 200,
        mean: float = -1.02,
        persistence: float = 0.9702,
        scale: float = 0.178,
    ) -> "StochasticVolatility":
        """A series of the model; consumes `key`."""
        key_states, key_noise = jax.random.split(key)
        moves = jax.random.normal(key_states, (num_steps + 1,))

        def step(state: Array, move: Array) -> tuple[Array, Array]:
            state = mean + persistence * (state - mean) + scale * move
            return state, state

        first = mean + scale / jnp.sqrt((1 - persistence) * (1 + persistence)) * moves[0]
        _, states = jax.lax.scan(step, first, moves[1:])
        observations = jnp.exp(states / 2) * jax.random.normal(key_noise, states.shape)
        return cls(observations, mean, persistence, scale)

    @property
    def num_steps(self) -> int:  # type: ignore[override]
        """T."""
        return self.observations.shape[0]

    @property
    def target(self) -> str:  # type: ignore[override]
        """The density of the log-variances given the series."""
        return f"p(x[0:{self.num_steps}] | y) of a stochastic-volatility model"

    @property
    def stationary_scale(self) -> Float[Array, ""]:
        """Standard deviation of x_0."""
        return self.scale / jnp.sqrt((1 - self.persistence) * (1 + self.persistence))

    def state_space(self) -> StateSpaceModel:
        """The description of one particle."""
        return StateSpaceModel(
            initial=dist.Normal(self.mean, self.stationary_scale),
            transition=self.transition,
            potential=self.potential,
            num_steps=self.num_steps,
        )

    def transition(self, state: Float[Array, ""], t: Int[Array, ""]) -> dist.Distribution:
        """Law of x_t given x_{t-1}."""
        del t
        return dist.Normal(self.mean + self.persistence * (state - self.mean), self.scale)

    def potential(self, state: Float[Array, ""], t: Int[Array, ""]) -> Float[Array, ""]:
        """Log-density of y_t; 0 at t = 0 and where y_t is missing."""
        if self.num_steps == 0:
            return jnp.zeros(())
        observation = self.observations[jnp.maximum(t, 1) - 1]
        is_observed = (t > 0) & ~jnp.isnan(observation)
        law = dist.Normal(0.0, jnp.exp(state / 2))
        return jnp.where(is_observed, law.log_prob(jnp.where(is_observed, observation, 0.0)), 0.0)

    def program(self) -> Program:
        """The same model as a NumPyro program, with this data."""
        return bind(
            stochastic_volatility_program,
            self.observations,
            self.mean,
            self.persistence,
            self.scale,
        )

    def filtered(self) -> "GridFiltered":
        """Filtering moments and evidence on the default grid."""
        return grid_filter(self)

    def log_evidence(self) -> Float[Array, ""]:
        """Log p(y_{1:T}) on the default grid."""
        return grid_filter(self).log_evidence


def stochastic_volatility_program(observations, mean, persistence, scale):
    """A plain NumPyro program; it knows nothing of Jurax."""
    stationary_scale = scale / jnp.sqrt((1 - persistence) * (1 + persistence))
    x_0 = numpyro.sample("x_0", dist.Normal(mean, stationary_scale))

    def step(x, y):
        x = numpyro.sample("x", dist.Normal(mean + persistence * (x - mean), scale))
        numpyro.sample("y", dist.Normal(0.0, jnp.exp(x / 2)), obs=y)
        return x, None

    scan(step, x_0, observations)


class GridFiltered(eqx.Module):
    """Moments of x_t given y_{1:t}, t = 0..T, and log p(y_{1:T})."""

    means: Float[Array, " T1"]
    variances: Float[Array, " T1"]
    log_evidence: Float[Array, ""]


def grid_filter(
    model: StochasticVolatility, num_points: int = 800, width: float = 8.0
) -> GridFiltered:
    """Filter on equally spaced points: p_t(x_j) ~ G_t(x_j) sum_i p_{t-1}(x_i) M(x_i, x_j) dx.

    The rectangle rule is accurate far beyond float32 as soon as the spacing is below s / 2.

    Args:
        model: with static numbers of steps.
        num_points: G.
        width: half-width of the grid in standard deviations of x_0.
    """
    half = width * model.stationary_scale
    points = model.mean + jnp.linspace(-half, half, num_points)
    spacing = points[1] - points[0]
    centres = model.mean + model.persistence * (points - model.mean)
    moves = jnp.exp(dist.Normal(centres[:, None], model.scale).log_prob(points[None, :])) * spacing

    def step(density: Array, t: Array):
        log_potentials = jax.vmap(lambda x: model.potential(x, t))(points)
        top = jnp.max(log_potentials)
        joint = (density @ moves) * jnp.exp(log_potentials - top)
        total = jnp.sum(joint)
        return joint / total, (joint / total, top + jnp.log(total))

    first = jax.nn.softmax(dist.Normal(model.mean, model.stationary_scale).log_prob(points))
    steps = jnp.arange(1, model.num_steps + 1)
    _, (densities, log_probs) = jax.lax.scan(step, first, steps)
    densities = jnp.concatenate([first[None], densities])
    means = densities @ points
    variances = densities @ (points - model.mean) ** 2 - (means - model.mean) ** 2
    return GridFiltered(means=means, variances=variances, log_evidence=jnp.sum(log_probs))
