"""blackjax: the general SMC step of `blackjax.smc.base` in a scan.

Its step resamples first and always; there is no adaptive mode. The weight function sees the
observation through a closure. The first step starts from equal weights, so the initial law is
that of x_0 carried one stationary step back; for lg10 the first move is skipped by hand.
"""

import blackjax.smc.resampling as resampling
import jax
import jax.numpy as jnp
from blackjax.smc import base

from contenders import jax_parts as parts
from contenders.cases import Case


def prepare(case: Case, num_particles: int, threshold: float):
    """See the docstring of the package."""
    if threshold < 1:
        return None

    @jax.jit
    def compiled(key, observations):
        def move(key, state):
            noise = jax.random.normal(key, parts.state_shape(case))
            return parts.mean(case, state) + parts.scale(case) * noise

        def update(keys, states, parameters):
            del parameters
            return jax.vmap(move)(keys, states), None

        def step(state, row):
            key, observation = row
            state, info = base.step(
                key,
                state,
                update,
                jax.vmap(lambda x: parts.log_potential(case, x, observation)),
                resampling.systematic,
            )
            return state, info.log_likelihood_increment

        key_init, key_steps = jax.random.split(key)
        shape = (num_particles, *parts.state_shape(case))
        noise = jax.random.normal(key_init, shape)
        particles = parts.initial_mean(case) + parts.initial_scale(case) * noise
        log_weights = parts.log_potential(case, particles, observations[0])
        first = jax.nn.logsumexp(log_weights) - jnp.log(num_particles)
        start = base.SMCState(particles, jax.nn.softmax(log_weights), ())
        keys = jax.random.split(key_steps, case.num_times - 1)
        _, increments = jax.lax.scan(step, start, (keys, observations[1:]))
        return first + jnp.sum(increments)

    return parts.run_compiled(compiled, jnp.asarray(case.observations))
