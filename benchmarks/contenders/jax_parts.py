"""The densities of the cases in JAX, shared by the JAX contenders so that all do the same work.

Functions of one particle where a library takes those, of a whole population where it takes those;
the formulas are written so that both read alike.
"""

import jax
import jax.numpy as jnp
import numpy as np

from contenders.cases import AR, MU, RHO, SIGMA, Case, transition_matrix

HALF_LOG_2PI = 0.5 * float(np.log(2 * np.pi))


def state_shape(case: Case) -> tuple[int, ...]:
    """Shape of the state of one particle."""
    return (10,) if case.name == "lg10" else ()


def initial_scale(case: Case) -> float:
    """Standard deviation of the law of the first state."""
    scales = {"sv": SIGMA / np.sqrt(1 - RHO**2), "lg1": 1 / np.sqrt(1 - AR**2), "lg10": 1.0}
    return float(scales[case.name])


def initial_mean(case: Case) -> float:
    """Mean of the law of the first state."""
    return MU if case.name == "sv" else 0.0


def mean(case: Case, state):
    """E[x_t | x_{t-1} = state]; rows of a population or one particle."""
    if case.name == "sv":
        return MU + RHO * (state - MU)
    if case.name == "lg1":
        return AR * state
    return state @ jnp.asarray(transition_matrix(10).T, jnp.float32)


def scale(case: Case) -> float:
    """Standard deviation of the noise of the transition."""
    return SIGMA if case.name == "sv" else 1.0


def log_potential(case: Case, state, observation):
    """Log-density of y_t given x_t; rows of a population or one particle."""
    if case.name == "sv":
        return -HALF_LOG_2PI - 0.5 * state - 0.5 * observation**2 * jnp.exp(-state)
    if case.name == "lg1":
        return -HALF_LOG_2PI - 0.5 * (observation - state) ** 2
    return -10 * HALF_LOG_2PI - 0.5 * jnp.sum((observation - state) ** 2, axis=-1)


def run_compiled(compiled, observations):
    """`run(seed)` of a compiled function of (key, observations) that returns log-evidence."""

    def run(seed: int) -> float:
        return float(compiled(jax.random.key(seed), observations))

    return run
