"""Tempered SMC: from the prior to the posterior of a program along powers of the likelihood.

    pi_beta(x) = p(x) L(x)^beta / Z_beta,    0 = beta_0 < beta_1 < ... < beta_K = 1,

one stage is `Temper() >> Rescale() >> Resample() >> Move(kernel, num_moves)` (Del Moral, Doucet
and Jasra 2006; adaptive ladder: Jasra et al. 2011), with waste-free moves `Temper() >> Rescale() >>
WasteFree(kernel)` (Dau and Chopin 2022). The evidence estimate is unbiased for a fixed `ladder` and
fixed moves; with both tuned on the same particles it is consistent (Beskos et al. 2016).

Shape letters: N particles, D dimensions, K stages.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jurax.inference.kernel import AbstractKernel
from jurax.inference.mcmc.hmc import HMC
from jurax.inference.mcmc.kernel import AbstractMCMCKernel
from jurax.inference.move import Move, Rescale, WasteFree
from jurax.inference.resample import Resample
from jurax.inference.resampling import Systematic
from jurax.inference.sampler import AbstractSampler
from jurax.inference.temper import MAX_STAGES, AbstractTemperedPath, Temper
from jurax.ppl import random
from jurax.ppl.checks import at_least
from jurax.ppl.program import Program
from jurax.ppl.unconstrained import Unconstrained


class TemperingPath(AbstractTemperedPath):
    """The path of tempered densities of a program: base prior, ratio likelihood.

    Attributes:
        view: the program on R^D.
        kernel, ladder, num_steps: as in `AbstractTemperedPath`.
        dense: whether moves use a full covariance.
    """

    view: Unconstrained
    kernel: AbstractMCMCKernel
    ladder: Float[Array, " K"] | None
    num_steps: int = eqx.field(static=True)
    dense: bool = eqx.field(static=True)

    def init(self, key, num_particles):
        """Draws from the prior; consumes `key`."""
        return self.begin(jax.vmap(self.view.draw)(random.split(key, num_particles)))

    def parts(self, x):
        """Prior and likelihood."""
        parts = self.view.evaluate(x)
        return parts.log_prior + parts.log_jacobian, parts.log_likelihood


class TemperedSMC(AbstractSampler):
    """Tempered SMC on any program without discrete latent sites.

    Args:
        num_particles: N.
        move: Markov kernel that moves the particles; its open step sizes are tuned to the
            acceptance of the population, its scale is the population's.
        num_moves: moves at each stage, at least 1; for `waste_free` states of each chain, at
            least 2.
        ess_target: conditional ESS at each stage, as a share of N, in (0, 1).
        waste_free: keep all states of the chains.
        resampler: scheme.
        ladder: increasing betas that end in 1; None: chosen by `ess_target`.
        dense: scale moves by the full covariance, not only its diagonal.
        max_stages: bound on the number of stages; the last one goes to beta = 1.

    Info: `beta` `(K,)`, `acceptance`, `step_size` `(K, P)`, `ancestors`; `num_steps` is the number
    of stages made.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
        >>> from jurax.inference import infer
        >>> from jurax.ppl import bind
        >>> def model(y):
        ...     mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        ...     numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        >>> program = bind(model, jnp.array([1.0, 2.0]))
        >>> posterior = infer(jax.random.key(0), program, TemperedSMC(num_particles=2000))
        >>> exact = dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2) + 1.0)
        >>> bool(abs(posterior.log_evidence - exact.log_prob(jnp.array([1.0, 2.0]))) < 0.2)
        True
    """

    num_particles: int = eqx.field(static=True)
    move: AbstractMCMCKernel = HMC()
    num_moves: int = eqx.field(static=True, default=5)
    ess_target: float = eqx.field(static=True, default=0.5)
    waste_free: bool = eqx.field(static=True, default=False)
    resampler: Callable = Systematic()
    ladder: Sequence[float] | None = eqx.field(static=True, default=None)
    dense: bool = eqx.field(static=True, default=True)
    max_stages: int = eqx.field(static=True, default=MAX_STAGES)
    takes_programs: ClassVar[bool] = True
    history: ClassVar[bool | None] = False  # type: ignore[misc]

    def __check_init__(self):
        at_least(1, max_stages=self.max_stages)
        if self.ladder is not None:
            steps = [b - a for a, b in zip((0.0, *self.ladder), self.ladder, strict=False)]
            if not self.ladder or self.ladder[-1] != 1 or min(steps) <= 0:
                raise ValueError(f"ladder must increase from above 0 to 1, got {self.ladder}")
        _ = self.kernel

    @property
    def kernel(self) -> AbstractKernel:
        """One stage."""
        temper = Temper(self.ess_target) >> Rescale()
        if self.waste_free:
            return temper >> WasteFree(self.move, self.num_moves, self.resampler)
        return temper >> Resample(self.resampler) >> Move(self.move, self.num_moves)

    def prepare(self, process: Program) -> TemperingPath:  # type: ignore[override]
        """The path of the program."""
        if isinstance(process, TemperingPath):
            return process
        ladder = None if self.ladder is None else jnp.asarray(self.ladder, float)
        return TemperingPath(
            view=Unconstrained.of(process),
            kernel=self.move,
            ladder=ladder,
            num_steps=self.max_stages if ladder is None else len(ladder),
            dense=self.dense,
        )
