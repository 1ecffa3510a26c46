"""jurax, in the two forms that a user writes: parts of one particle, and a NumPyro program.

Both go through `infer`, the entry point of the library, with its default diagnostics (the path of
the effective sample size); no history is kept, as nobody else keeps one.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan

from contenders import jax_parts as parts
from contenders.cases import Case
from jurax.inference import ParticleFilter, infer
from jurax.ppl import StateSpaceModel, sequential


def law(case: Case, mean, scale):
    """Normal with independent components."""
    normal = dist.Normal(mean, scale)
    return normal.to_event(1) if case.name == "lg10" else normal


def observation_law(case: Case, state):
    """Law of y_t given x_t."""
    if case.name == "sv":
        return dist.Normal(0.0, jnp.exp(0.5 * state))
    return law(case, state, 1.0)


class Potential(eqx.Module):
    """log p(y_t | x_t), holding the data."""

    case: Case = eqx.field(static=True)
    observations: jax.Array

    def __call__(self, state, t):
        """Weigh one particle."""
        return observation_law(self.case, state).log_prob(self.observations[t])


def state_space_model(case: Case):
    """The process by parts of one particle."""
    start = jnp.full(parts.state_shape(case), parts.initial_mean(case))
    return StateSpaceModel(
        initial=law(case, start, parts.initial_scale(case)),
        transition=lambda state, t: law(case, parts.mean(case, state), parts.scale(case)),
        potential=Potential(case, jnp.asarray(case.observations)),
        num_steps=case.num_times - 1,
    )


def program(case: Case):
    """The process captured from a NumPyro program."""
    observations = jnp.asarray(case.observations)

    def model(observations):
        start = jnp.full(parts.state_shape(case), parts.initial_mean(case))
        first = numpyro.sample("x0", law(case, start, parts.initial_scale(case)))
        numpyro.sample("y0", observation_law(case, first), obs=observations[0])

        def step(state, observation):
            state = numpyro.sample("x", law(case, parts.mean(case, state), parts.scale(case)))
            numpyro.sample("y", observation_law(case, state), obs=observation)
            return state, None

        scan(step, first, observations[1:])

    return sequential(model, observations)


def _prepare(process, num_particles: int, threshold: float):
    algorithm = ParticleFilter(num_particles=num_particles, ess_threshold=threshold, history=False)

    def run(seed: int) -> float:
        return float(infer(jax.random.key(seed), process, algorithm).log_evidence)

    return run


def prepare(case: Case, num_particles: int, threshold: float):
    """See the docstring of the package."""
    return _prepare(state_space_model(case), num_particles, threshold)


def prepare_program(case: Case, num_particles: int, threshold: float):
    """See the docstring of the package."""
    return _prepare(program(case), num_particles, threshold)
