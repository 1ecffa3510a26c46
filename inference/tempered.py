"""Tempered SMC: from the prior to the posterior of a program along powers of the likelihood.

    pi_beta(x) = p(x) L(x)^beta / Z_beta,    0 = beta_0 < beta_1 < ... < beta_K = 1,

one stage is `Temper() >> Rescale() >> Resample() >> Move(kernel, num_moves)` (Del Moral, Doucet
and Jasra 2006; adaptive ladder: Jasra et al. 2011), with waste-free moves `Temper() >> Rescale() >>
WasteFree(kernel)` (Dau and Chopin 2022). The evidence estimate is unbiased for a fixed `ladder` and
fixed moves; with both tuned on the same particles it is consistent (Beskos et al. 2016).

Shape letters: N particles, D dimensions, K stages.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jurax.inference.flat import AbstractFlatProcess, start_particles
from jurax.inference.kernel import AbstractKernel
from jurax.inference.mcmc.hmc import HMC
from jurax.inference.mcmc.kernel import AbstractMCMCKernel
from jurax.inference.move import Move, Rescale, WasteFree
from jurax.inference.resample import Resample
from jurax.inference.resampling import Systematic
from jurax.inference.sampler import AbstractSampler
from jurax.ppl import Population, random
from jurax.ppl.checks import at_least
from jurax.ppl.population import check_increments, mark_dead
from jurax.ppl.program import Program
from jurax.ppl.unconstrained import Unconstrained

HALVINGS = 30  # exhaust float32
MAX_STAGES = 300


class TemperingPath(AbstractFlatProcess):
    """The path of tempered densities of a program as a process; a step is a stage.

    Attributes:
        view: the program on R^D.
        kernel: of the moves; its step sizes are where tuning starts.
        ladder: betas of the stages, or None: chosen by `Temper`.
        num_steps: bound on the number of stages; the last one goes to beta = 1.
        dense: whether moves use a full covariance.
    """

    view: Unconstrained
    kernel: AbstractMCMCKernel
    ladder: Float[Array, " K"] | None
    num_steps: int = eqx.field(static=True)
    dense: bool = eqx.field(static=True)

    def init(self, key, num_particles):
        """Draws from the prior, beta = 0; consumes `key`."""
        x = jax.vmap(self.view.draw)(random.split(key, num_particles))
        log_likelihood = jax.vmap(self.view.log_likelihood)(x)
        particles = start_particles(x, log_likelihood, self.kernel, self.dense)
        return particles, jnp.zeros(num_particles)

    def extend(self, key, particles, t):
        """Refused: the next beta depends on the whole population."""
        raise NotImplementedError("a stage of tempering is made by `Temper`, not by `Extend`")

    def finished(self, particles):
        """Every row, once beta = 1."""
        return jnp.broadcast_to(particles.beta >= 1, particles.x.shape[:-1])

    def log_density(self, population):
        """Log p(x) + beta log L(x), and log L(x)."""
        beta = population.particles.beta

        def tempered(x: Array) -> tuple[Array, Array]:
            parts = self.view.evaluate(x)
            log_prior = parts.log_prior + parts.log_jacobian
            # A likelihood of 0 stays 0, and counts as 1 at beta = 0.
            power = jnp.where(beta > 0, beta * parts.log_likelihood, 0.0)
            return log_prior + power, parts.log_likelihood

        return tempered


class Temper(AbstractKernel):
    """Advance beta and weight by L^(beta' - beta).

    Without a ladder beta' is the largest at which the conditional effective sample size
    N (sum W v)^2 / sum W v^2, v = L^(beta' - beta), is `ess_target` times the number of rows
    that are alive (Zhou, Johansen and Aston 2016). Info: `beta`.
    """

    ess_target: float = eqx.field(static=True, default=0.5)

    def __check_init__(self):
        if not 0 < self.ess_target < 1:
            raise ValueError(f"ess_target must lie in (0, 1), got {self.ess_target}")

    def step(self, key, population, process):
        """Choose beta' and weight; draws nothing."""
        del key
        particles, time = population.particles, population.time + 1
        beta = self._next_beta(population, process, time)
        delta = beta - particles.beta
        increments = jnp.where(delta > 0, delta * particles.aux, 0.0)
        increments, status = check_increments(increments, population.status)
        log_weights = population.log_weights + increments
        advanced = Population(
            particles=particles,
            log_weights=log_weights,
            log_evidence=population.log_evidence,
            time=time,
            status=mark_dead(log_weights, status),
        )
        return eqx.tree_at(lambda p: p.particles.beta, advanced, beta), {"beta": beta}

    def idle_info(self, population):
        """Beta as it is."""
        return {"beta": population.particles.beta}

    def _next_beta(self, population: Population, process: Any, time: Array) -> Array:
        beta = population.particles.beta
        if process.ladder is not None:
            return process.ladder[time - 1].astype(beta.dtype)
        log_likelihood = jnp.where(
            jnp.isnan(population.particles.aux), -jnp.inf, population.particles.aux
        )
        delta = largest_step(population.normalized(), log_likelihood, 1 - beta, self.ess_target)
        is_last = time == process.num_steps
        return jnp.where((delta >= 1 - beta) | is_last, 1.0, beta + delta)


def largest_step(
    normalized: Float[Array, " N"],
    log_likelihood: Float[Array, " N"],
    limit: Float[Array, ""],
    ess_target: float,
) -> Float[Array, ""]:
    """The largest delta <= limit with conditional ESS >= ess_target, by bisection.

    Rows of likelihood 0 have no say: no delta > 0 saves them.
    """
    alive = (normalized > 0) & ~jnp.isneginf(log_likelihood)
    weights = jnp.where(alive, normalized, 0.0)
    top = jnp.max(jnp.where(alive, log_likelihood, -jnp.inf))
    centred = jnp.where(alive, log_likelihood - top, 0.0)
    total = jnp.sum(weights)

    def is_allowed(delta: Array) -> Array:
        v = jnp.exp(delta * centred)
        return jnp.sum(weights * v) ** 2 >= ess_target * total * jnp.sum(weights * v**2)

    def halve(_, bracket: tuple) -> tuple:
        low, high = bracket
        middle = 0.5 * (low + high)
        allowed = is_allowed(middle)
        return jnp.where(allowed, middle, low), jnp.where(allowed, high, middle)

    low, _ = jax.lax.fori_loop(0, HALVINGS, halve, (jnp.zeros_like(limit), limit))
    return jnp.where(is_allowed(limit), limit, low)


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
