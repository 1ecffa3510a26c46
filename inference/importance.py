"""Importance sampling: independent weighted paths, `repeat(Extend())`."""

import equinox as eqx

from jurax.inference.extend import Extend
from jurax.inference.kernel import AbstractKernel
from jurax.inference.sampler import AbstractSampler


class ImportanceSampling(AbstractSampler):
    """Draw N paths from the moves and weight each by the product of its potentials.

    Args:
        num_particles: N >= 1.
        history: as in `ParticleFilter`.

    Example:
        >>> import jax
        >>> from jurax.inference import infer
        >>> from jurax.models.state_space import LinearGaussian
        >>> model = LinearGaussian.simulate(jax.random.key(0), num_steps=3)
        >>> posterior = infer(jax.random.key(1), model, ImportanceSampling(num_particles=20_000))
        >>> bool(abs(posterior.log_evidence - model.log_evidence()) < 0.2)
        True
    """

    num_particles: int = eqx.field(static=True)
    history: bool | None = eqx.field(static=True, default=None)

    @property
    def kernel(self) -> AbstractKernel:
        """One extension."""
        return Extend()
