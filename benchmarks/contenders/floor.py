"""The floor: noise, propagation, weights and their log-sum in one scan; nobody resamples.

It estimates nothing useful (its weights degenerate); it is the work that no bootstrap filter in
JAX can avoid. The noise is drawn flat, by one call of `jax.random.normal` a step. The second floor
adds one systematic resampling (jurax's) and the gather of the states to every step.
"""

import math

import jax
import jax.numpy as jnp

from contenders import jax_parts as parts
from contenders.cases import Case
from jurax.inference import Systematic


def prepare(case: Case, num_particles: int, threshold: float):
    """See the docstring of the package; the floor has no threshold."""
    del threshold
    return _prepare(case, num_particles, resampled=False)


def prepare_resampled(case: Case, num_particles: int, threshold: float):
    """The floor of filters that resample at every step."""
    return _prepare(case, num_particles, resampled=True) if threshold >= 1 else None


def _prepare(case: Case, num_particles: int, *, resampled: bool):
    shape = (num_particles, *parts.state_shape(case))

    @jax.jit
    def compiled(key, observations):
        def step(carry, row):
            states, log_weights, total = carry
            key, observation = row
            if resampled:
                key, key_ancestors = jax.random.split(key)
                states = states[Systematic()(key_ancestors, log_weights, num_particles)]
                log_weights = jnp.zeros_like(log_weights)
            noise = jax.random.normal(key, (math.prod(shape),)).reshape(shape)
            states = parts.mean(case, states) + parts.scale(case) * noise
            log_weights = log_weights + parts.log_potential(case, states, observation)
            return (states, log_weights, total + jax.nn.logsumexp(log_weights)), None

        start = jnp.full(shape, parts.initial_mean(case)), jnp.zeros(num_particles), 0.0
        keys = jax.random.split(key, case.num_times)
        return jax.lax.scan(step, start, (keys, observations))[0][2]

    return parts.run_compiled(compiled, jnp.asarray(case.observations))
