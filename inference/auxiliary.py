"""Auxiliary particle filter: resample by weights that look one step ahead, and correct for it.

    repeat(when(ess_below(c), Resample(scheme, lookahead)) >> Extend())

Parents are drawn in proportion to w eta, where eta guesses the weight of their next step; children
keep 1 / eta, and the evidence gains mean(w eta) (Pitt and Shephard 1999, with the single resampling
of Johansen and Doucet 2008). The evidence is unbiased for every eta > 0; a good eta lowers its
variance. The threshold looks at the weights w eta, by which the resampling would be made.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool

from jurax.inference.compose import ess_below, when
from jurax.inference.extend import Extend
from jurax.inference.kernel import AbstractKernel
from jurax.inference.resample import Resample, look_ahead
from jurax.inference.resampling import Systematic
from jurax.inference.sampler import AbstractSampler
from jurax.ppl import AbstractProcess, Population, weights


class AuxiliaryFilter(AbstractSampler):
    """Particle filter with a lookahead.

    Args:
        num_particles: N >= 1.
        lookahead: `(particles, t) -> log eta_t`, float[N], of a whole population *before* its step
            t = 1..num_steps: a guess of log E[G_t | x_{t-1}], finite wherever the target has mass.
            Rows that have finished count as eta = 1.
        resampler: scheme with E[counts] = N W; default systematic.
        ess_threshold: resample when the ESS of w eta is below ess_threshold * N; 1 = whenever these
            weights differ, 0 = never.
        history: as in `ParticleFilter`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jurax.inference import infer
        >>> from jurax.models.state_space import StochasticVolatility
        >>> model = StochasticVolatility.simulate(jax.random.key(0), num_steps=20)
        >>> def lookahead(states, t):  # the weight at the mean of the next state
        ...     mean = model.mean + model.persistence * (states - model.mean)
        ...     return jax.vmap(model.potential, (0, None))(mean, t)
        >>> algorithm = AuxiliaryFilter(num_particles=2000, lookahead=lookahead)
        >>> posterior = infer(jax.random.key(1), model, algorithm)
        >>> bool(abs(posterior.log_evidence - model.log_evidence()) < 0.2)
        True
    """

    num_particles: int = eqx.field(static=True)
    lookahead: Any
    resampler: Callable = Systematic()
    ess_threshold: float = eqx.field(static=True, default=0.5)
    history: bool | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        ess_below(self.ess_threshold)
        if not callable(self.lookahead):
            raise TypeError(
                "lookahead must be a function (particles, t) -> log eta, got "
                f"{type(self.lookahead).__name__}"
            )

    @property
    def kernel(self) -> AbstractKernel:
        """One step of the filter."""
        if self.ess_threshold == 0:
            return Extend()
        condition = FirstStageBelow(self.ess_threshold, self.lookahead)
        return when(condition, Resample(self.resampler, lookahead=self.lookahead)) >> Extend()


class FirstStageBelow(eqx.Module):
    """The condition ESS < fraction * N for the weights w eta; never true of a dead population."""

    fraction: float = eqx.field(static=True)
    lookahead: Callable
    takes_process: ClassVar[bool] = True

    def __call__(self, population: Population, process: AbstractProcess) -> Bool[Array, "*B"]:
        """Evaluate the condition for each problem."""
        first_stage, _ = look_ahead(self.lookahead, population, process)
        ess = weights.effective_sample_size(first_stage)
        return jnp.asarray((ess < self.fraction * population.num_particles) & (ess > 0))
