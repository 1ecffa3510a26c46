"""Parallel tempering: replicas at several temperatures that exchange their states.

One step moves every replica by a kernel that leaves p(x) L(x)^beta invariant and then swaps
neighbours (`jurax.inference.swap`). In the warm-up the kernels are tuned and the ladder is adapted
to equal swap rates, in rounds of doubling length; then both are fixed, and the draws of the replica
at beta = 1 are those of a Markov chain that leaves the posterior invariant.

Shape letters: C chains, S draws, R replicas, P parts of a composed Markov kernel.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jurax.inference.mcmc.chains import check_counts
from jurax.inference.mcmc.kernel import AbstractMCMCKernel
from jurax.inference.mcmc.tuning import schedule
from jurax.inference.replicas import (
    AbstractReplicaKernel,
    ChainReplicas,
    Independence,
    IndependenceReplicas,
    Replicas,
)
from jurax.inference.swap import spread_ladder, swap
from jurax.inference.whole import AbstractWholeProgram
from jurax.ppl import AbstractProcess, Cost, Posterior, random, weights
from jurax.ppl.checks import at_least
from jurax.ppl.population import DEAD, OK
from jurax.ppl.program import Program
from jurax.ppl.unconstrained import Unconstrained


class ParallelTempering(AbstractWholeProgram):
    """Parallel tempering of programs and processes.

    Args:
        kernel: a Markov kernel such as `HMC()` for a program; `Independence()` for a process.
        num_samples: S >= 1 draws at beta = 1.
        num_warmup: steps of the warm-up, not kept. With 0 nothing is tuned or adapted.
        betas: increasing inverse temperatures that end in 1, fixed; None: `num_replicas` of them
            from 0 to 1, adapted in the warm-up.
        num_replicas: R >= 2; twice the barrier `info["barrier"]` plus one is about best.
        num_chains: independent copies of the whole ladder.

    Returns (through `infer`): draws at beta = 1 with axes `(C, S)`, zero log-weights;
    `log_evidence` by stepping stones, log Z = sum_r log mean L_r^(beta_{r+1} - beta_r), if
    betas[0] = 0 (consistent, not unbiased); in `info`: `swap_rates` `(C, R - 1)`, `betas` `(C, R)`,
    `barrier` `(C,)` (sum of the rejection rates), `acceptance` `(C, R, P)`, `log_likelihood`
    `(C, S)`, `status`.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
        >>> from jurax.inference import RWMH, infer
        >>> from jurax.ppl import bind
        >>> def two_modes():
        ...     x = numpyro.sample("x", dist.Normal(0.0, 5.0))
        ...     numpyro.factor("modes", jnp.logaddexp(-8 * (x - 5) ** 2, -8 * (x + 5) ** 2))
        >>> algorithm = ParallelTempering(RWMH(), num_samples=2000, num_warmup=1000)
        >>> posterior = infer(jax.random.key(0), bind(two_modes), algorithm)
        >>> bool(abs(posterior.expectation(lambda v: jnp.sign(v["x"]))) < 0.3)
        True
    """

    kernel: AbstractMCMCKernel | Independence
    num_samples: int = eqx.field(static=True)
    num_warmup: int = eqx.field(static=True, default=0)
    betas: Sequence[float] | None = eqx.field(
        static=True, default=None, converter=lambda b: None if b is None else tuple(map(float, b))
    )
    num_replicas: int = eqx.field(static=True, default=8)
    num_chains: int = eqx.field(static=True, default=1)
    takes_processes: ClassVar[bool] = True

    def __check_init__(self):
        check_counts(self.num_samples, self.num_warmup, self.num_chains)
        betas = (0.0, 1.0) if self.betas is None else self.betas
        rises = all(a < b for a, b in zip(betas, betas[1:], strict=False))
        if len(betas) < 2 or betas[0] < 0 or betas[-1] != 1 or not rises:
            raise ValueError(f"betas must increase from at least 0 to 1, got {self.betas}")
        at_least(2, num_replicas=self.num_replicas)

    def run(self, key: Array, program: Any, budget: Cost | None = None) -> Posterior:  # type: ignore[override]
        """Warm up, draw; consumes `key`."""
        del budget
        kernel = self._replica_kernel(program)
        keys = random.split(key, self.num_chains)
        draws, info = jax.vmap(lambda key: self._chain(key, kernel))(keys)
        source = kernel.view.source if isinstance(kernel, ChainReplicas) else kernel.process
        is_known = self.betas is None or self.betas[0] == 0
        log_evidence = weights.log_mean(info.pop("log_evidence")) if is_known else jnp.nan
        return Posterior(
            particles=kernel.output(draws),
            log_weights=jnp.zeros(info["log_likelihood"].shape),
            log_evidence=jnp.asarray(log_evidence, float),
            info={**info, "status": jnp.max(info["status"])},
            cost=Cost(),
            target=source.target,
        )

    def _replica_kernel(self, target: Any) -> AbstractReplicaKernel:
        if isinstance(self.kernel, AbstractMCMCKernel):
            if not isinstance(target, Program):
                raise TypeError(
                    f"{type(self.kernel).__name__} moves the sites of a program; for a process use "
                    "ParallelTempering(Independence(), ...)"
                )
            return ChainReplicas(Unconstrained.of(target), self.kernel, self.num_warmup)
        process = target.process() if isinstance(target, Program) else target
        check_single(process)
        return IndependenceReplicas(process)

    def _chain(self, key: Array, kernel: AbstractReplicaKernel) -> tuple[Any, dict[str, Array]]:
        """One ladder from start to end: stored states `(S, ...)` and info."""
        key_init, key_warmup, key_draw = random.split(key, 3)
        betas = self._first_betas()
        replicas = kernel.init(key_init, len(betas))
        replicas, betas = self._warm_up(key_warmup, replicas, betas, kernel)

        def step(replicas: Replicas, inputs: tuple) -> tuple[Replicas, tuple]:
            index, key = inputs
            replicas, rates, acceptance = move_and_swap(key, replicas, betas, index, kernel)
            coldest = jax.tree.map(lambda x: x[-1], replicas.states)
            return replicas, (coldest, replicas.log_likelihood, rates, acceptance)

        inputs = jnp.arange(self.num_samples), random.split(key_draw, self.num_samples)
        replicas, (states, log_likelihood, rates, acceptance) = jax.lax.scan(step, replicas, inputs)
        swap_rates = jnp.mean(rates, axis=0)
        has_no_mass = jnp.all(jnp.isneginf(log_likelihood[:, -1]))
        return states, {
            "swap_rates": swap_rates,
            "barrier": jnp.sum(1 - swap_rates),
            "betas": betas,
            "acceptance": jnp.mean(acceptance, axis=0),
            "log_likelihood": log_likelihood[:, -1],
            "log_evidence": stepping_stones(log_likelihood, betas),
            "status": jnp.where(has_no_mass & (replicas.status == OK), DEAD, replicas.status),
        }

    def _warm_up(
        self, key: Array, replicas: Replicas, betas: Array, kernel: AbstractReplicaKernel
    ) -> tuple[Replicas, Array]:
        if not self.num_warmup:
            return replicas, betas

        def step(carry: tuple, inputs: tuple) -> tuple[tuple, None]:
            replicas, betas, total, count = carry
            index, key, counts, ends, adapts = inputs
            replicas, rates, acceptance = move_and_swap(key, replicas, betas, index, kernel)
            replicas = kernel.learn(replicas, acceptance, counts, ends)
            total, count = total + rates, count + 1
            if self.betas is None:
                betas = jnp.where(adapts, spread_ladder(betas, total / count), betas)
            kept = jnp.where(adapts, 0, 1)
            return (replicas, betas, total * kept, count * kept), None

        counts, ends = schedule(self.num_warmup)
        adapts = rounds(self.num_warmup)
        steps = (jnp.arange(self.num_warmup), random.split(key, self.num_warmup))
        inputs = (*steps, jnp.asarray(counts), jnp.asarray(ends), jnp.asarray(adapts))
        start = replicas, betas, jnp.zeros(len(betas) - 1), jnp.zeros((), int)
        (replicas, betas, _, _), _ = jax.lax.scan(step, start, inputs)
        return kernel.freeze(replicas), betas

    def _first_betas(self) -> Float[Array, " R"]:
        if self.betas is not None:
            return jnp.asarray(self.betas)
        # Likelihoods matter at small beta already: start with most rungs there.
        return jnp.linspace(0.0, 1.0, self.num_replicas) ** 3


def move_and_swap(
    key: Array,
    replicas: Replicas,
    betas: Float[Array, " R"],
    index: Array | int,
    kernel: AbstractReplicaKernel,
) -> tuple[Replicas, Float[Array, " E"], Float[Array, "R P"]]:
    """One step: replicas, swap probabilities, acceptance probabilities; consumes `key`."""
    key_move, key_swap = random.split(key)
    replicas, acceptance = kernel.step(key_move, replicas, betas)
    order, rates = swap(key_swap, replicas.log_likelihood, betas, index)
    return replicas.reordered(order), rates, acceptance


def stepping_stones(
    log_likelihood: Float[Array, "S R"], betas: Float[Array, " R"]
) -> Float[Array, ""]:
    """sum_r log mean_s L_{sr}^(beta_{r+1} - beta_r) (Xie et al. 2011, equation 4)."""
    powers = jnp.diff(betas)[None] * log_likelihood[:, :-1]
    return jnp.sum(weights.log_mean(powers.T))


def rounds(num_warmup: int) -> np.ndarray:
    """Steps after which the ladder is adapted: rounds of doubling length, the last one unused."""
    ends = np.zeros(num_warmup, bool)
    for length in (num_warmup // 2**k for k in range(1, 7)):
        if length >= 4:
            ends[length - 1] = True
    return ends


def check_single(process: AbstractProcess) -> None:
    """Raise for processes whose paths cannot be run in parallel ladders."""
    if process.hosted or process.batch_shape:
        kind = "a hosted process" if process.hosted else "several packed problems"
        raise NotImplementedError(
            f"ParallelTempering runs one traceable problem, got {kind}: use ParticleFilter, or map "
            "over the problems one by one"
        )
