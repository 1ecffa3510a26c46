"""Markov chain Monte Carlo on a program: warm-up, then draws by a frozen kernel.

Chains start from points of finite density, run a warm-up in which step sizes and scale are tuned
(`jurax.inference.mcmc.tuning`), and then draw with the kernel fixed, so that the draws are those of
a Markov chain that leaves the posterior invariant. Chains are independent, each with its own
tuning, and mapped together: one compiled loop.

Shape letters: C chains, S draws, D dimensions, P parts of a composed kernel.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jurax.inference.mcmc.kernel import AbstractMCMCKernel, ChainState, lifted
from jurax.inference.mcmc.start import starting_points
from jurax.inference.mcmc.tuning import Tuner, schedule
from jurax.inference.whole import AbstractWholeProgram
from jurax.ppl import Cost, Posterior, random
from jurax.ppl.checks import at_least
from jurax.ppl.population import NO_START, OK
from jurax.ppl.program import Program
from jurax.ppl.unconstrained import Unconstrained


class MCMC(AbstractWholeProgram):
    """Chains of a Markov kernel on the posterior of a program.

    Args:
        kernel: such as `RWMH()`, `MALA()`, `HMC()`, `RWMH() >> HMC()` or a `mixture` of them.
        num_samples: S >= 1 draws of each chain.
        num_warmup: steps of the warm-up, not kept. With 0 nothing is tuned.
        num_chains: C.
        dense: tune a full covariance, not only its diagonal.

    Returns (through `infer`): draws by site name with axes `(C, S)`, zero log-weights, and in
    `info`: `acceptance` `(C, S)` (with a last axis P for compositions), `diverging` likewise,
    `divergences` (their number), `step_size` `(C,)`, `status`.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
        >>> from jurax.inference import HMC, infer
        >>> from jurax.ppl import bind
        >>> def model(y):
        ...     mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        ...     numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        >>> program = bind(model, jnp.array([1.0, 2.0]))  # posterior N(1, 1/3)
        >>> chains = MCMC(HMC(num_leapfrogs=3), num_samples=500, num_warmup=200, num_chains=4)
        >>> posterior = infer(jax.random.key(0), program, chains)
        >>> posterior.particles["mean"].shape
        (4, 500)
        >>> bool(abs(posterior.expectation(lambda x: x["mean"]) - 1.0) < 0.1)
        True
    """

    kernel: AbstractMCMCKernel
    num_samples: int = eqx.field(static=True, default=1000)
    num_warmup: int = eqx.field(static=True, default=1000)
    num_chains: int = eqx.field(static=True, default=4)
    dense: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        check_counts(self.num_samples, self.num_warmup, self.num_chains)
        if not isinstance(self.kernel, AbstractMCMCKernel):
            raise TypeError(
                f"kernel must be a Markov kernel such as HMC() or RWMH(), got {self.kernel!r}"
            )

    def run(self, key: Array, program: Program, budget: Cost | None = None) -> Posterior:
        """Start, tune, draw; consumes `key`."""
        del budget
        view = Unconstrained.of(program)
        draws, found = run_chains(key, self._chain, view, self.num_chains)
        return posterior_of_chains(view, draws.pop("x"), self._summary(draws, found))

    def _chain(self, key: Array, x: Float[Array, " D"], view: Unconstrained) -> dict[str, Array]:
        """Warm-up and draws of one chain, `(S, ...)`."""
        key_warmup, key_draw = random.split(key)
        state = self.kernel.init(view.log_density, x)
        state, kernel = self._warm_up(key_warmup, state, view)

        def step(state: ChainState, key: Array) -> tuple[ChainState, dict[str, Array]]:
            state, info = kernel.step(key, state, view.log_density)
            return state, {"x": state.x, **info}

        _, draws = jax.lax.scan(step, state, random.split(key_draw, self.num_samples))
        return {**draws, "step_size": kernel.step_sizes(view.dim)}

    def _warm_up(
        self, key: Array, state: ChainState, view: Unconstrained
    ) -> tuple[ChainState, AbstractMCMCKernel]:
        tuner = Tuner(self.kernel, self.num_warmup, self.dense)
        tuning = tuner.init(view.dim)

        def step(carry: tuple, inputs: tuple) -> tuple[tuple, None]:
            state, tuning = carry
            key, counts, ends = inputs
            state, info = tuner.running(tuning).step(key, state, view.log_density)
            return (state, tuner.update(tuning, state.x, info["acceptance"], counts, ends)), None

        if self.num_warmup:
            inputs = (
                random.split(key, self.num_warmup),
                *map(jnp.asarray, schedule(self.num_warmup)),
            )
            (state, tuning), _ = jax.lax.scan(step, (state, tuning), inputs)
        return state, tuner.freeze(tuning)

    def _summary(self, info: dict[str, Array], found: Array) -> dict[str, Any]:
        if len(self.kernel.target_acceptance) == 1:
            info = {name: x[..., 0] for name, x in info.items()}
        return {
            **info,
            "divergences": jnp.sum(info["diverging"]),
            "status": jnp.where(found, OK, NO_START),
        }


def run_chains(
    key: Array, chain: Callable, view: Unconstrained, num_chains: int
) -> tuple[dict[str, Array], Bool[Array, ""]]:
    """Start `chain(key, x, view)` at points of finite density; consumes `key`.

    Returns what the chains return, `(C, ...)`, and whether all starting points were found.
    """
    key_start, key_chains = random.split(key)
    x, found = starting_points(key_start, view.log_density, num_chains, view.dim)
    keys = random.split(key_chains, num_chains)
    return jax.vmap(lambda key, x: chain(key, x, view))(keys, x), found


def posterior_of_chains(
    view: Unconstrained, x: Float[Array, "C S D"], info: dict[str, Any]
) -> Posterior:
    """Draws as values of the sites; every draw has weight 1, no evidence is estimated."""
    return Posterior(
        particles=lifted(view.sites, 2)(x),
        log_weights=jnp.zeros(x.shape[:2]),
        log_evidence=jnp.asarray(jnp.nan),
        info=info,
        cost=Cost(),
        target=view.source.target,
    )


def check_counts(num_samples: int, num_warmup: int, num_chains: int) -> None:
    """Raise ValueError for numbers that make no sense."""
    at_least(1, num_samples=num_samples, num_chains=num_chains)
    at_least(0, num_warmup=num_warmup)
