"""How healthy a run was: effective sample size, distinct ancestors and genealogy of a posterior.

All functions read a `Posterior` and return NumPy arrays, for one problem or packed ones. Steps that
were not made are left out. Where nothing was resampled every particle is its own ancestor.

Shape letters: B packed problems (absent for one), N particles, T steps made, T1 = T + 1 times.
"""

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from jurax.ppl import Posterior, genealogy


def ess_path(posterior: Posterior) -> Float[np.ndarray, "*B T"]:
    """Effective sample size after each step, in particles, between 1 and N (0: dead).

    Example:
        >>> import jax
        >>> from jurax.inference import ParticleFilter, infer
        >>> from jurax.models.state_space import LinearGaussian
        >>> model = LinearGaussian.simulate(jax.random.key(0), num_steps=5)
        >>> posterior = infer(jax.random.key(1), model, ParticleFilter(num_particles=100))
        >>> path = ess_path(posterior)
        >>> path.shape, bool((path > 1).all())
        ((5,), True)
    """
    return np.asarray(posterior.info["ess"])[..., : num_steps(posterior)]


def resampling_times(posterior: Posterior) -> Bool[np.ndarray, "*B T"]:
    """Whether the population was resampled before each step."""
    if "resampled" not in posterior.info:
        return np.zeros(ess_path(posterior).shape, bool)
    return np.asarray(posterior.info["resampled"])[..., : num_steps(posterior)]


def lineages(posterior: Posterior) -> Int[np.ndarray, "*B T1 N"]:
    """Slot at each time 0..T of the ancestor of each final particle.

    Example:
        >>> import jax
        >>> from jurax.inference import ImportanceSampling, infer
        >>> from jurax.models.state_space import LinearGaussian
        >>> model = LinearGaussian.simulate(jax.random.key(0), num_steps=2)
        >>> lineages(infer(jax.random.key(1), model, ImportanceSampling(num_particles=3))).tolist()
        [[0, 1, 2], [0, 1, 2], [0, 1, 2]]
    """
    steps, (*batch, num_particles) = num_steps(posterior), posterior.log_weights.shape
    if "ancestors" not in posterior.info:
        if np.any(resampling_times(posterior)):
            raise ValueError(
                "this run was too large to keep its ancestors without being asked; run the "
                "algorithm again with history=True"
            )
        own = np.arange(num_particles, dtype=np.int32)
        return np.broadcast_to(own, (*batch, steps + 1, num_particles))
    trace = genealogy.lineages
    for _ in batch:
        trace = jax.vmap(trace)
    return np.asarray(trace(jax.numpy.asarray(posterior.info["ancestors"])[..., :steps, :]))


def unique_ancestors(posterior: Posterior) -> Int[np.ndarray, "*B T1"]:
    """Number of distinct ancestors of the final population at each time 0..T.

    Where it falls to 1, all particles share their text or path up to that time, and the posterior
    says nothing about it.
    """
    ordered = np.sort(lineages(posterior), axis=-1)
    return 1 + (np.diff(ordered, axis=-1) != 0).sum(axis=-1)


def num_steps(posterior: Posterior) -> int:
    """Extensions that were made, at most over packed problems."""
    return int(np.max(np.asarray(posterior.info["num_steps"])))
