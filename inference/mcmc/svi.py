"""Stochastic variational inference, numpyro's: a guide is fitted by its evidence lower bound.

The guide q maximises ELBO = E_q[log p(x, y) - log q(x)] <= log p(y). Draws from q are an
approximation of the posterior with no Monte Carlo error bound; compare with NUTS or TemperedSMC.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array
from numpyro import infer as numpyro_infer
from numpyro import optim
from numpyro.infer import autoguide

from jurax.inference.whole import AbstractWholeProgram
from jurax.ppl import Cost, Posterior, random
from jurax.ppl.checks import at_least
from jurax.ppl.population import INVALID, OK
from jurax.ppl.program import Program
from jurax.ppl.unconstrained import Unconstrained


class SVI(AbstractWholeProgram):
    """Fit a guide to the posterior of a program and draw from it.

    Args:
        guide: name of a class of `numpyro.infer.autoguide`, such as "AutoNormal" (independent
            normals on unconstrained values) or "AutoMultivariateNormal", or a function from a model
            to a guide.
        optimizer: an optax transformation; default Adam with a learning rate that falls from .01
            to 0 along a cosine.
        num_steps: gradient steps, each from one draw of the guide.
        num_samples: draws from the fitted guide.

    Returns (through `infer`): draws by site name with axes `(1, num_samples)`, zero log-weights,
    and in `info`: `elbo_path` (the noisy bound at each step), `elbo` (its mean over the last tenth,
    a lower bound of the log evidence), `status`.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
        >>> from jurax.inference import infer
        >>> from jurax.ppl import bind
        >>> def model(y):
        ...     mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        ...     numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        >>> program = bind(model, jnp.array([1.0, 2.0]))  # posterior N(1, 1/3)
        >>> posterior = infer(jax.random.key(0), program, SVI(num_steps=2000))
        >>> bool(abs(posterior.expectation(lambda x: x["mean"]) - 1.0) < 0.1)
        True
        >>> exact = dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2) + 1.0)
        >>> bool(abs(posterior.info["elbo"] - exact.log_prob(jnp.array([1.0, 2.0]))) < 0.1)
        True
    """

    guide: str | Callable = eqx.field(static=True, default="AutoNormal")
    optimizer: optax.GradientTransformation | None = eqx.field(static=True, default=None)
    num_steps: int = eqx.field(static=True, default=5000)
    num_samples: int = eqx.field(static=True, default=1000)

    def __check_init__(self):
        at_least(1, num_steps=self.num_steps, num_samples=self.num_samples)
        if isinstance(self.guide, str) and not hasattr(autoguide, self.guide):
            known = [name for name in autoguide.__all__ if name.startswith("Auto")]
            raise ValueError(f"guide {self.guide!r} is not one of numpyro's: {', '.join(known)}")

    def run(self, key: Array, program: Program, budget: Cost | None = None) -> Posterior:
        """Fit and draw; consumes `key`."""
        del budget
        Unconstrained.of(program)  # refuses discrete and improper sites by name
        key_init, key_draw = random.split(key)
        guide = self._guide()(program)
        svi = numpyro_infer.SVI(program, guide, self._optimizer(), numpyro_infer.Trace_ELBO())
        state = svi.init(key_init)
        state, losses = jax.lax.scan(lambda s, _: svi.update(s), state, None, self.num_steps)
        draws = guide.sample_posterior(
            key_draw, svi.get_params(state), sample_shape=(1, self.num_samples)
        )
        last = -losses[-max(1, self.num_steps // 10) :]
        finite = jnp.all(jnp.isfinite(last))
        return Posterior(
            particles=draws,
            log_weights=jnp.zeros((1, self.num_samples)),
            log_evidence=jnp.asarray(jnp.nan),
            info={
                "elbo_path": -losses,
                "elbo": jnp.mean(last),
                "status": jnp.where(finite, OK, INVALID),
            },
            cost=Cost(),
            target=f"the {self._guide_name()} fit to {program.target}",
        )

    def _guide(self) -> Callable:
        return getattr(autoguide, self.guide) if isinstance(self.guide, str) else self.guide

    def _guide_name(self) -> str:
        return self.guide if isinstance(self.guide, str) else self.guide.__name__

    def _optimizer(self) -> Any:
        falling = optax.adam(optax.cosine_decay_schedule(1e-2, self.num_steps))
        return optim.optax_to_numpyro(self.optimizer or falling)
