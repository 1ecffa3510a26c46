"""From the posterior of one program to that of another on the same sites: new data, or a new model.

    pi_beta(x) = p(x) L_0(x) (L_1(x) / L_0(x))^beta,    0 = beta_0 < beta_1 < ... < beta_K = 1

starts from draws of the first posterior and is composed as tempered SMC is: one stage is `Temper()
>> Rescale() >> Resample() >> Move(kernel, num_moves)`. A small change is one stage, a large one is
bridged by several (Neal 2001 for the path; Chopin 2002 for new data). The evidence is the ratio
Z_1 / Z_0: for new data their probability given the old.

Shape letters: N particles, D dimensions.
"""

from collections.abc import Callable, Mapping
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jurax.inference.kernel import AbstractKernel
from jurax.inference.mcmc.hmc import HMC
from jurax.inference.mcmc.kernel import AbstractMCMCKernel
from jurax.inference.move import Move, Rescale
from jurax.inference.resample import Resample
from jurax.inference.resampling import Systematic
from jurax.inference.sampler import AbstractSampler
from jurax.inference.temper import MAX_STAGES, AbstractTemperedPath, Temper
from jurax.ppl.checks import at_least
from jurax.ppl.program import Program
from jurax.ppl.unconstrained import Unconstrained


class BridgePath(AbstractTemperedPath):
    """The path between two posteriors: base the first of them, ratio L_1 / L_0.

    Attributes:
        view: the second program on R^D.
        first: the first one.
        start: draws of the first posterior, on R^D.
        kernel, num_steps: as in `AbstractTemperedPath`.
        dense: whether moves use a full covariance.
    """

    view: Unconstrained
    first: Unconstrained
    start: Float[Array, "N D"]
    kernel: AbstractMCMCKernel
    num_steps: int = eqx.field(static=True)
    dense: bool = eqx.field(static=True)
    ladder: None = None

    def init(self, key, num_particles):
        """The draws; there are `num_particles` of them."""
        del key, num_particles
        return self.begin(self.start)

    def parts(self, x):
        """The first posterior, and what the second likelihood adds."""
        parts = self.first.evaluate(x)
        log_base = parts.log_prior + parts.log_jacobian + parts.log_likelihood
        return log_base, self.view.log_likelihood(x) - parts.log_likelihood


class Bridge(AbstractSampler):
    """Carry draws of one posterior over to another.

    Args:
        draws: of the posterior of `before`, values by site name with a leading axis N.
        before: the program that they were drawn from; the program given to `infer` has the same
            latent sites with the same prior and another likelihood.
        move: Markov kernel that moves the particles.
        num_moves: moves at each stage.
        ess_target: conditional ESS at each stage, as a share of N, in (0, 1).
        resampler: scheme.
        dense: scale moves by the full covariance, not only its diagonal.
        max_stages: bound on the number of stages.

    Info: as of `TemperedSMC`; `log_evidence` is log Z_1 - log Z_0.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
        >>> from jurax.inference import infer
        >>> from jurax.ppl import bind
        >>> def model(y):
        ...     mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        ...     numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        >>> y = jnp.array([1.0, 2.0])
        >>> before = bind(model, y[:1])  # posterior N(1/2, 1/2)
        >>> draws = {"mean": 0.5 + jax.random.normal(jax.random.key(0), (2000,)) / 2**0.5}
        >>> found = infer(jax.random.key(1), bind(model, y), Bridge(draws, before))
        >>> exact = dist.Normal(0.5, 1.5**0.5).log_prob(y[1])
        >>> bool(abs(found.log_evidence - exact) < 0.1)
        True
    """

    draws: Mapping[str, PyTree]
    before: Program
    move: AbstractMCMCKernel = HMC()
    num_moves: int = eqx.field(static=True, default=5)
    ess_target: float = eqx.field(static=True, default=0.5)
    resampler: Callable = Systematic()
    dense: bool = eqx.field(static=True, default=True)
    max_stages: int = eqx.field(static=True, default=MAX_STAGES)
    takes_programs: ClassVar[bool] = True
    history: ClassVar[bool | None] = False  # type: ignore[misc]

    def __check_init__(self):
        at_least(1, max_stages=self.max_stages)
        _ = self.kernel

    @property
    def num_particles(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """N."""
        return len(next(iter(self.draws.values())))

    @property
    def kernel(self) -> AbstractKernel:
        """One stage."""
        renew = Rescale() >> Resample(self.resampler) >> Move(self.move, self.num_moves)
        return Temper(self.ess_target) >> renew

    def prepare(self, process: Program) -> BridgePath:  # type: ignore[override]
        """The path between the programs.

        Raises:
            ValueError: if their latent sites differ, or `draws` lacks one.
        """
        if isinstance(process, BridgePath):
            return process
        view, first = Unconstrained.of(process), Unconstrained.of(self.before)
        if view.coordinates != first.coordinates:
            raise ValueError(
                "Bridge needs programs with the same latent sites, got "
                f"{describe(first)} and {describe(view)}"
            )
        lacking = [name for name in view.names if name not in self.draws]
        if lacking:
            raise ValueError(f"draws lack the site(s) {', '.join(lacking)}")
        values = {name: jnp.asarray(self.draws[name]) for name in view.names}
        start = jax.vmap(view.flatten)(values)
        return BridgePath(view, first, start, self.move, self.max_stages, self.dense)


def describe(view: Unconstrained) -> str:
    """Sites and their sizes."""
    return ", ".join(f"{site.name} ({site.size})" for site in view.coordinates)
