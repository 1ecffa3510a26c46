"""A path of tempered laws on a few states, and a Metropolis kernel on it, for enumeration."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jurax.inference.flat import AbstractFlatProcess, start_particles
from jurax.inference.mcmc.kernel import AbstractMetropolis, accept, evaluate
from jurax.ppl import Population, random


class FiniteMetropolis(AbstractMetropolis):
    """On states 0, ..., K - 1: propose any state with probability 1/K, accept by Metropolis."""

    num_states: int = eqx.field(static=True)
    step_size: float | Float[Array, ""] | None = 1.0
    scale: Float[Array, "..."] | None = None
    target_acceptance: ClassVar[tuple[float, ...]] = (0.5,)  # type: ignore[misc]

    def default_step_size(self, dim):
        return 1.0

    def init(self, log_density, x):
        return evaluate(log_density, x)

    def step(self, key, state, log_density):
        keys = random.split(key)
        logits = jnp.zeros((*state.x.shape[:-1], self.num_states))
        x = random.categorical(keys[0], logits)[..., None].astype(state.x.dtype)
        proposed = evaluate(log_density, x)
        return accept(keys[1], state, proposed, proposed.log_prob - state.log_prob)


class FinitePath(AbstractFlatProcess):
    """p(x) L(x)^beta on the states 0, ..., K - 1, along a fixed ladder."""

    log_prior: Float[Array, " K"]
    log_likelihood: Float[Array, " K"]
    ladder: Float[Array, " S"]
    num_steps: int = eqx.field(static=True)
    view: None = None  # type: ignore[assignment]
    dense: bool = eqx.field(static=True, default=False)
    target: str = eqx.field(static=True, default="p(x) L(x)")

    def init(self, key, num_particles):
        logits = jnp.broadcast_to(self.log_prior, (num_particles, len(self.log_prior)))
        x = random.categorical(key, logits)[:, None].astype(self.log_prior.dtype)
        kernel = FiniteMetropolis(len(self.log_prior))
        particles = start_particles(x, self.log_likelihood[self._states(x)], kernel, False)
        return particles, jnp.zeros(num_particles, self.log_prior.dtype)

    def extend(self, key, particles, t):
        raise NotImplementedError

    def finished(self, particles):
        return jnp.broadcast_to(particles.beta >= 1, particles.x.shape[:-1])

    def log_density(self, population):
        beta = population.particles.beta

        def tempered(x):
            state = x[0].astype(int)
            return self.log_prior[state] + beta * self.log_likelihood[state], (
                self.log_likelihood[state]
            )

        return tempered

    def output(self, particles):
        return particles.x[..., 0]

    @staticmethod
    def _states(x):
        return x[..., 0].astype(jnp.int32)


def finite_path(ladder: tuple[float, ...] = (0.4, 1.0), num_states: int = 2) -> FinitePath:
    """Two or three states with uneven prior and likelihood."""
    prior = jnp.array([0.3, 0.7, 0.5])[:num_states]
    likelihood = jnp.array([2.0, 0.4, 1.1])[:num_states]
    return FinitePath(
        jnp.log(prior / prior.sum()), jnp.log(likelihood), jnp.asarray(ladder), len(ladder)
    )


def population_at(process: FinitePath, beta: float) -> Population:
    """Every state once, weighted by its mass at beta."""
    states = jnp.arange(len(process.log_prior))
    particles = start_particles(
        states[:, None].astype(float),
        process.log_likelihood,
        FiniteMetropolis(len(states)),
        False,
    )
    particles = eqx.tree_at(lambda p: p.beta, particles, jnp.asarray(beta, float))
    log_weights = process.log_prior + beta * process.log_likelihood
    return Population.start(particles, jax.nn.log_softmax(log_weights) + 0.3)
