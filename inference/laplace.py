"""The Laplace approximation of a posterior, weighted: a normal law at the mode on R^D.

    x* = argmax log p(x),    H = -d^2 log p(x*) / dx^2,    q = N(x*, H^{-1}),    w = p / q

(Tierney and Kadane 1986; weights as in importance sampling, so that the mean of w is an unbiased
estimate of the evidence and weighted means are consistent.) In high dimension few draws carry all
weight: `info["ess"]` and Pareto's k of the weights tell; `equal_weights` then gives the plain
approximation. The same normal law serves as a map x = x* + A z, under which a sampler meets a
density near N(0, I): `NUTS(start="laplace")`.

Shape letters: N draws, D dimensions.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from jurax.inference.mcmc.normal_map import laplace_of
from jurax.inference.whole import AbstractWholeProgram
from jurax.ppl import Cost, Posterior, random, weights
from jurax.ppl.checks import at_least
from jurax.ppl.population import NO_START, OK
from jurax.ppl.program import Program
from jurax.ppl.unconstrained import Unconstrained


class Laplace(AbstractWholeProgram):
    """Draws of the Laplace approximation with their importance weights.

    Args:
        num_samples: N >= 1.
        num_starts: points from which a mode is searched; the highest mode is taken.
        equal_weights: leave the weights out. The draws are then those of the approximation, and
            the evidence is Laplace's, log p(x*) + D/2 log(2 pi) + log |det A|.

    Returns (through `infer`): draws by site name `(N, ...)`, `log_weights`, `log_evidence`, and in
    `info`: `ess` of the weights, `status`.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
        >>> from jurax.inference import infer
        >>> from jurax.ppl import bind
        >>> def model(y):
        ...     mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        ...     numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        >>> y = jnp.array([1.0, 2.0])  # a normal posterior: all weights are equal
        >>> posterior = infer(jax.random.key(0), bind(model, y), Laplace(1000))
        >>> exact = dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2) + 1.0).log_prob(y)
        >>> bool(abs(posterior.log_evidence - exact) < 1e-3), round(float(posterior.info["ess"]))
        (True, 1000)
    """

    num_samples: int = eqx.field(static=True, default=1000)
    num_starts: int = eqx.field(static=True, default=4)
    equal_weights: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        at_least(1, num_samples=self.num_samples, num_starts=self.num_starts)

    def run(self, key: Array, program: Program, budget: Cost | None = None) -> Posterior:
        """Climb, draw, weigh; consumes `key`."""
        del budget
        view = Unconstrained.of(program)
        key_start, key_draw = random.split(key)
        normal, found = laplace_of(key_start, view.log_density, view.dim, self.num_starts)
        z = random.normal(key_draw, (self.num_samples, view.dim))
        x = jax.vmap(normal.place)(z)
        log_volume = normal.log_det + 0.5 * view.dim * jnp.log(2 * jnp.pi)
        log_q = -0.5 * jnp.sum(z**2, axis=1) - log_volume
        log_weights = jax.vmap(view.log_density)(x) - log_q
        log_weights = jnp.where(jnp.isnan(log_weights), -jnp.inf, log_weights)
        ess = weights.effective_sample_size(log_weights)
        log_evidence = weights.log_mean(log_weights)
        if self.equal_weights:
            log_evidence = view.log_density(normal.mode) + log_volume
            log_weights = jnp.zeros(self.num_samples)
        return Posterior(
            particles=jax.vmap(view.sites)(x),
            log_weights=log_weights,
            log_evidence=log_evidence,
            info={"ess": ess, "status": jnp.where(found, OK, NO_START)},
            cost=Cost(),
            target=program.target,
        )
