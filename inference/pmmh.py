"""Particle marginal Metropolis-Hastings: a chain on parameters with estimated likelihoods.

    theta' ~ q(theta, .),   Zhat' from a filter at theta',
    accept with probability min(1, p(theta') Zhat' / (p(theta) Zhat))       (q symmetric)

on the unconstrained parameters (Andrieu, Doucet and Holenstein 2010, section 2.4.2). The draws have
the exact posterior, however noisy Zhat is, because the estimate of the present state is kept, not
drawn again. Best mixing: sd of log Zhat about 1.2 (Doucet et al. 2015).

Shape letters: C chains, S draws, D dimensions.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jurax.inference.ancestor import accept
from jurax.inference.mcmc.chains import check_counts
from jurax.inference.mcmc.kernel import AbstractMCMCKernel
from jurax.inference.mcmc.rwmh import RWMH
from jurax.inference.mcmc.tuning import Tuner, schedule
from jurax.inference.particle_gibbs import add
from jurax.inference.pimh import check_filter, choose
from jurax.inference.sampler import AbstractSampler
from jurax.inference.trajectory import (
    Trajectory,
    check_traceable,
    posterior_of_draws,
    run_chains,
    run_filter,
)
from jurax.ppl import AbstractProcess, Cost, Posterior, random
from jurax.ppl.family import parameter_view
from jurax.ppl.unconstrained import Unconstrained


class ParameterDraw(eqx.Module):
    """Parameters, their log prior density on R^D, and a trajectory with its estimate."""

    x: Float[Array, " D"]
    log_prior: Float[Array, ""]
    trajectory: Trajectory


class PMMH(eqx.Module):
    """Particle marginal Metropolis-Hastings.

    Args:
        filter: such as `ParticleFilter(num_particles=100)`.
        num_samples: S >= 1 draws of each chain.
        num_warmup: steps in which the proposal is tuned, not kept.
        num_chains: C.
        proposal: has a symmetric `propose(key, x) -> x`; `RWMH()` is tuned in the warm-up where it
            has no step size.
        dense: tune a full covariance, not only its diagonal.

    Returns (through `infer`): parameters, and a path drawn at them, with axes `(C, S)`, zero
    log-weights; `info`: `acceptance` (probabilities), `log_evidence` (estimates), `(C, S)`.

    Example:
        >>> import jax, numpyro.distributions as dist
        >>> from jurax.inference import ParticleFilter, infer
        >>> from jurax.models.state_space import StochasticVolatility
        >>> from jurax.ppl.family import family
        >>> y = StochasticVolatility.simulate(jax.random.key(0), num_steps=10).observations
        >>> models = family(lambda v: StochasticVolatility(y, v["mean"]), {"mean": dist.Normal()})
        >>> pmmh = PMMH(ParticleFilter(20), num_samples=50, num_warmup=20)
        >>> posterior = infer(jax.random.key(1), models, pmmh)
        >>> posterior.particles["mean"].shape
        (1, 50)
    """

    filter: AbstractSampler
    num_samples: int = eqx.field(static=True)
    num_warmup: int = eqx.field(static=True, default=0)
    num_chains: int = eqx.field(static=True, default=1)
    proposal: Any = RWMH()
    dense: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        check_counts(self.num_samples, self.num_warmup, self.num_chains)
        check_filter(self.filter)
        if not hasattr(self.proposal, "propose"):
            raise TypeError(
                "proposal must have a symmetric `propose(key, x) -> x`, such as RWMH(), got "
                f"{self.proposal!r}"
            )

    def draw_at(
        self, key: Array, x: Float[Array, " D"], process: AbstractProcess, view: Unconstrained
    ) -> ParameterDraw:
        """The state at `x`, with a fresh estimate; consumes `key`."""
        fixed = self.filter.prepare(process.at(view.constrain(x)))  # type: ignore[attr-defined]
        trajectory = run_filter(key, self.filter.kernel, fixed, self.filter.num_particles)
        return ParameterDraw(x, view.log_density(x), trajectory)

    def step(
        self,
        key: Array,
        state: ParameterDraw,
        process: AbstractProcess,
        view: Unconstrained,
        proposal: Any,
    ) -> tuple[ParameterDraw, dict[str, Array]]:
        """Propose, estimate, accept or not; consumes `key`."""
        key_propose, key_filter, key_accept = random.split(key, 3)
        proposed = self.draw_at(key_filter, proposal.propose(key_propose, state.x), process, view)
        log_ratio = log_posterior(proposed) - log_posterior(state)
        accepted = accept(key_accept, log_ratio)
        moved = ParameterDraw(
            x=jnp.where(accepted, proposed.x, state.x),
            log_prior=jnp.where(accepted, proposed.log_prior, state.log_prior),
            trajectory=choose(accepted, proposed.trajectory, state.trajectory),
        )
        acceptance = jnp.exp(jnp.minimum(jnp.nan_to_num(log_ratio, nan=-jnp.inf), 0.0))
        return moved, {"acceptance": acceptance, "log_evidence": moved.trajectory.log_evidence}

    def run(self, key: Array, process: AbstractProcess, budget: Cost | None = None) -> Posterior:
        """Run all chains; consumes `key`."""
        check_traceable(process, self, budget)
        view = parameter_view(process)
        chains = run_chains(key, self.num_chains, lambda key: self._chain(key, process, view))
        draws, values, info, spent = chains
        return posterior_of_draws(draws, values, info, process, spent)

    def _chain(self, key: Array, process: AbstractProcess, view: Unconstrained) -> tuple:
        key_x, key_filter, key_warmup, key_draw = random.split(key, 4)
        state = self.draw_at(key_filter, view.draw(key_x), process, view)
        state, proposal, spent = self._warm_up(key_warmup, state, process, view)

        def step(state: ParameterDraw, key: Array) -> tuple[ParameterDraw, tuple]:
            state, info = self.step(key, state, process, view, proposal)
            return state, (state.trajectory, view.constrain(state.x), info)

        _, draws = jax.lax.scan(step, state, random.split(key_draw, self.num_samples))
        return *draws, spent

    def _warm_up(
        self, key: Array, state: ParameterDraw, process: AbstractProcess, view: Unconstrained
    ) -> tuple[ParameterDraw, Any, Cost]:
        """Tune the proposal: the state after the warm-up, the tuned proposal, what was spent."""
        spent = state.trajectory.cost
        is_tuned = isinstance(self.proposal, AbstractMCMCKernel)
        if not self.num_warmup:
            return state, self.proposal, spent
        tuner = Tuner(self.proposal, self.num_warmup, self.dense)

        def warm(carry: tuple, inputs: tuple) -> tuple[tuple, None]:
            state, tuning, spent = carry
            key, counts, ends = inputs
            proposal = tuner.running(tuning) if is_tuned else self.proposal
            state, info = self.step(key, state, process, view, proposal)
            if is_tuned:
                tuning = tuner.update(tuning, state.x, info["acceptance"][None], counts, ends)
            return (state, tuning, add(spent, state.trajectory.cost)), None

        tuning = tuner.init(view.dim) if is_tuned else None
        inputs = random.split(key, self.num_warmup), *map(jnp.asarray, schedule(self.num_warmup))
        (state, tuning, spent), _ = jax.lax.scan(warm, (state, tuning, spent), inputs)
        return state, tuner.freeze(tuning) if is_tuned else self.proposal, spent


def log_posterior(state: ParameterDraw) -> Float[Array, ""]:
    """Log p(theta) + log Zhat."""
    return state.log_prior + state.trajectory.log_evidence
