"""The No-U-Turn sampler (Hoffman and Gelman 2014), numpyro's, through its functional door.

`numpyro.infer.MCMC.run` traces its set-up again at every call. Here the start, the warm-up and the
draws of all chains are one function that is compiled once for each shape: new data of the same
shapes, or another key, run at once. Shape letters: C chains, S draws, D dimensions.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array
from numpyro.infer.hmc import hmc

from jurax.inference.mcmc.chains import check_counts, posterior_of_chains, run_chains
from jurax.inference.mcmc.normal_map import laplace_of
from jurax.inference.whole import AbstractWholeProgram
from jurax.ppl import Cost, Posterior, random
from jurax.ppl.leaves import store
from jurax.ppl.population import NO_START, OK
from jurax.ppl.program import Program
from jurax.ppl.unconstrained import Unconstrained


class NUTS(AbstractWholeProgram):
    """Draws from the posterior of a program by the No-U-Turn sampler.

    Args:
        num_samples: S >= 1 draws of each chain.
        num_warmup: steps in which step size and mass matrix are tuned, not kept.
        num_chains: C, mapped together on one device.
        target_acceptance: mean acceptance statistic that the step size is tuned to; nearer to 1
            helps against divergences.
        dense: tune a full mass matrix, not only its diagonal.
        max_tree_depth: at most 2^depth leapfrog steps a draw.
        start: "box", points uniform on (-2, 2)^D; or "laplace", draws of the normal law at the
            mode, and steps in its coordinates. The second costs a search of the mode and a D x D
            product a step; it suits posteriors of one mode whose scales differ.

    Returns (through `infer`): draws by site name with axes `(C, S)`, zero log-weights, and in
    `info`: `acceptance`, `diverging`, `num_leapfrogs`, `energy` `(C, S)`, `divergences` (their
    number), `step_size` `(C,)`, `status`.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
        >>> from jurax.inference import infer
        >>> from jurax.ppl import bind
        >>> def model(y):
        ...     mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        ...     numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        >>> program = bind(model, jnp.array([1.0, 2.0]))  # posterior N(1, 1/3)
        >>> posterior = infer(jax.random.key(0), program, NUTS(500, 300, num_chains=2))
        >>> posterior.particles["mean"].shape, int(posterior.info["divergences"])
        ((2, 500), 0)
        >>> bool(abs(posterior.expectation(lambda x: x["mean"]) - 1.0) < 0.15)
        True
    """

    num_samples: int = eqx.field(static=True, default=1000)
    num_warmup: int = eqx.field(static=True, default=1000)
    num_chains: int = eqx.field(static=True, default=4)
    target_acceptance: float = eqx.field(static=True, default=0.8)
    dense: bool = eqx.field(static=True, default=False)
    max_tree_depth: int = eqx.field(static=True, default=10)
    start: str = eqx.field(static=True, default="box")

    def __check_init__(self):
        if self.start not in ("box", "laplace"):
            raise ValueError(f"start must be 'box' or 'laplace', got {self.start!r}")
        check_counts(self.num_samples, self.num_warmup, self.num_chains)
        if not 0 < self.target_acceptance < 1:
            raise ValueError(f"target_acceptance must lie in (0, 1), got {self.target_acceptance}")

    def run(self, key: Array, program: Program, budget: Cost | None = None) -> Posterior:
        """Start, tune, draw; consumes `key`."""
        del budget
        view = Unconstrained.of(program)
        draws, found = self._draws(key, view)
        info = {
            **{name: draws[name] for name in _KEPT},
            "divergences": jnp.sum(draws["diverging"]),
            "step_size": draws["step_size"][:, -1],
            "status": jnp.where(found, OK, NO_START),
        }
        return posterior_of_chains(view, draws["x"], info)

    def _draws(self, key: Array, view: Unconstrained) -> tuple[dict[str, Array], Array]:
        """What all chains return, `(C, S, ...)`, and whether starting points were found."""
        if self.start == "box":

            def chain(key: Array, x: Array, view: Unconstrained) -> dict[str, Array]:
                return self._chain(key, x, view.log_density)

            return run_chains(key, chain, view, self.num_chains)
        key_mode, key_start, key_chains = random.split(key, 3)
        normal, found = laplace_of(key_mode, view.log_density, view.dim)
        z = NEAR * random.normal(key_start, (self.num_chains, view.dim))
        keys = random.split(key_chains, self.num_chains)
        draws = jax.vmap(lambda key, z: self._chain(key, z, normal.seen(view.log_density)))(keys, z)
        return {**draws, "x": jax.vmap(jax.vmap(normal.place))(draws["x"])}, found

    def _chain(self, key: Array, x: Array, log_density: Callable) -> dict[str, Array]:
        """One chain, `(S, ...)`; draws of the warm-up are written to slot 0 and overwritten."""
        init, sample = hmc(lambda x: -log_density(x), algo="NUTS")
        state = init(
            x,
            num_warmup=self.num_warmup,
            target_accept_prob=self.target_acceptance,
            dense_mass=self.dense,
            max_tree_depth=self.max_tree_depth,
            rng_key=key,
        )

        def move(i: Array, carry: tuple) -> tuple:
            state, storage = carry
            state = sample(state)
            slot = jnp.maximum(i - self.num_warmup, 0)
            kept = _read(state)
            return state, {name: store(storage[name], kept[name], slot) for name in kept}

        empty = {
            name: jnp.zeros((self.num_samples, *value.shape), value.dtype)
            for name, value in _read(state).items()
        }
        steps = self.num_warmup + self.num_samples
        return jax.lax.fori_loop(0, steps, move, (state, empty))[1]


NEAR = 0.3  # sd of starting points around the mode, in units of the normal law
_KEPT = ("acceptance", "diverging", "num_leapfrogs", "energy")


def _read(state: Any) -> dict[str, Array]:
    """What is kept of a step."""
    return {
        "x": state.z,
        "acceptance": state.accept_prob,
        "diverging": state.diverging,
        "num_leapfrogs": state.num_steps,
        "energy": state.energy,
        "step_size": state.adapt_state.step_size,
    }
