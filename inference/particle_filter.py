"""Particle filter: extend, and resample when the effective sample size is low.

    repeat(when(ess_below(c), Resample(scheme)) >> Extend())

Bootstrap filter of Gordon, Salmond and Smith 1993 in the generic form of Chopin and
Papaspiliopoulos 2020, Algorithm 10.3. The final population is weighted, not resampled. The
evidence estimate is unbiased for every N >= 1, with and without the threshold (Del Moral 2004,
Theorem 7.4.2; Whiteley, Lee and Heine 2016).
"""

from collections.abc import Callable

import equinox as eqx

from jurax.inference.compose import ess_below, when
from jurax.inference.extend import Extend
from jurax.inference.kernel import AbstractKernel
from jurax.inference.resample import Resample
from jurax.inference.resampling import Systematic
from jurax.inference.sampler import AbstractSampler


class ParticleFilter(AbstractSampler):
    """Sequential Monte Carlo with adaptive resampling.

    Args:
        num_particles: N >= 1.
        resampler: scheme with E[counts] = N W; default systematic.
        ess_threshold: resample when ESS < ess_threshold * N, in [0, 1]; 0 = never, 1 = whenever
            weights differ.
        history: keep records and ancestors of every step for `Posterior.trajectories`; None keeps
            them when they take at most 64 MiB.

    Example:
        >>> import jax
        >>> from jurax.inference import infer
        >>> from jurax.models.state_space import LinearGaussian
        >>> model = LinearGaussian.simulate(jax.random.key(0), num_steps=20)
        >>> posterior = infer(jax.random.key(1), model, ParticleFilter(num_particles=2000))
        >>> bool(abs(posterior.log_evidence - model.log_evidence()) < 1)
        True
    """

    num_particles: int = eqx.field(static=True)
    resampler: Callable = Systematic()
    ess_threshold: float = eqx.field(static=True, default=0.5)
    history: bool | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        ess_below(self.ess_threshold)

    @property
    def kernel(self) -> AbstractKernel:
        """One step of the filter."""
        resample = when(ess_below(self.ess_threshold), Resample(self.resampler))
        return resample >> Extend() if self.ess_threshold > 0 else Extend()
