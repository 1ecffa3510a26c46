"""Particle independent Metropolis-Hastings: a fresh filter, accepted by its evidence.

    accept (path', Zhat') with probability min(1, Zhat' / Zhat)

(Andrieu, Doucet and Holenstein 2010, section 2.4.1). The state keeps the estimate that its path
came with. Needs no density of moves. Shape letters: C chains, S draws, B problems.
"""

import equinox as eqx
import jax
from jaxtyping import Array

from jurax.inference.ancestor import accept
from jurax.inference.mcmc.chains import check_counts
from jurax.inference.mcmc.kernel import choose_rows
from jurax.inference.sampler import AbstractSampler
from jurax.inference.trajectory import (
    Trajectory,
    check_traceable,
    posterior_of_draws,
    run_chains,
    run_filter,
)
from jurax.ppl import AbstractProcess, Cost, Posterior, random


class PIMH(eqx.Module):
    """Particle independent Metropolis-Hastings.

    Args:
        filter: such as `ParticleFilter(num_particles=100)`; acceptance falls with the variance of
            its log evidence.
        num_samples: S >= 1 draws of each chain.
        num_warmup: steps that are not kept.
        num_chains: C.

    Returns (through `infer`): draws with axes `(C, S)`, zero log-weights; `info`: `accepted`,
    `log_evidence` of the estimate that each draw came with, `(C, S)`.

    Example:
        >>> import jax
        >>> from jurax.inference import ParticleFilter, infer
        >>> from jurax.models.state_space import LinearGaussian
        >>> model = LinearGaussian.simulate(jax.random.key(0), num_steps=5)
        >>> posterior = infer(jax.random.key(1), model, PIMH(ParticleFilter(100), num_samples=50))
        >>> posterior.log_weights.shape, bool(posterior.info["accepted"].mean() > 0.5)
        ((1, 50), True)
    """

    filter: AbstractSampler
    num_samples: int = eqx.field(static=True)
    num_warmup: int = eqx.field(static=True, default=0)
    num_chains: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        check_counts(self.num_samples, self.num_warmup, self.num_chains)
        check_filter(self.filter)

    def init(self, key: Array, process: AbstractProcess) -> Trajectory:
        """A path from one run of the filter; consumes `key`."""
        return run_filter(key, self.filter.kernel, process, self.filter.num_particles)

    def step(
        self, key: Array, state: Trajectory, process: AbstractProcess
    ) -> tuple[Trajectory, dict[str, Array]]:
        """Run the filter again and accept or not; consumes `key`."""
        key_run, key_accept = random.split(key)
        fresh = self.init(key_run, process)
        accepted = accept(key_accept, fresh.log_evidence - state.log_evidence)
        return choose(accepted, fresh, state), {
            "accepted": accepted,
            "log_evidence": choose(accepted, fresh, state).log_evidence,
        }

    def run(self, key: Array, process: AbstractProcess, budget: Cost | None = None) -> Posterior:
        """Run all chains; consumes `key`."""
        check_traceable(process, self, budget)
        prepared = self.filter.prepare(process)

        def chain(key: Array) -> tuple:
            key_start, key_steps = random.split(key)
            state = self.init(key_start, prepared)

            def step(state: Trajectory, key: Array) -> tuple[Trajectory, tuple]:
                state, info = self.step(key, state, prepared)
                return state, (state, info)

            keys = random.split(key_steps, self.num_warmup + self.num_samples)
            _, draws = jax.lax.scan(step, state, keys)
            return *jax.tree.map(lambda x: x[self.num_warmup :], draws), state.cost

        draws, info, spent = run_chains(key, self.num_chains, chain)
        return posterior_of_draws(draws, {}, info, prepared, spent)


def choose(mask: Array, new: Trajectory, old: Trajectory) -> Trajectory:
    """The new state where `mask` holds; what was spent is that of the new one.

    Leaves have the problems `*B` in front, paths behind their steps.
    """
    return Trajectory(
        path=jax.vmap(lambda a, b: choose_rows(mask, a, b))(new.path, old.path),
        particle=choose_rows(mask, new.particle, old.particle),
        log_evidence=choose_rows(mask, new.log_evidence, old.log_evidence),
        status=choose_rows(mask, new.status, old.status),
        cost=new.cost,
    )


def check_filter(algorithm: object) -> None:
    """Raise for what is no filter."""
    if not isinstance(algorithm, AbstractSampler):
        raise TypeError(
            f"filter must be an algorithm with an unbiased evidence, such as "
            f"ParticleFilter(num_particles=100), got {algorithm!r}"
        )
