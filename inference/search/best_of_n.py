"""Best-of-N: the sample with the highest reward. A heuristic: it targets no posterior."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jurax.inference.extend import Extend
from jurax.inference.kernel import AbstractKernel
from jurax.inference.sampler import AbstractSampler, as_heuristic, posterior_of
from jurax.ppl.process import missing


class BestOfN(AbstractSampler):
    """Draw N independent samples and put all weight on the best-scored finished one.

    Args:
        num_particles: N >= 1.
        score: how the rewards r_t of the steps become one score: the last, the smallest, their
            product or their mean.
        history: as in `ParticleFilter`.

    The process must define `step_scores(output) -> (log-odds, exists)`. Equal scores share the
    weight. The log evidence is NaN: nothing is estimated.
    """

    num_particles: int = eqx.field(static=True)
    score: str = eqx.field(static=True, default="last")
    history: bool | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if self.score not in AGGREGATES:
            raise ValueError(f"score must be one of {sorted(AGGREGATES)}, got {self.score!r}")

    @property
    def kernel(self) -> AbstractKernel:
        """One extension."""
        return Extend()

    def prepare(self, process):
        """The process as it is; one without scores is refused before the first step."""
        if not hasattr(process, "step_scores"):
            raise missing(process, "step_scores", "the rewards of the steps")
        return process

    def report(self, run, process):
        """All weight on the best sample."""
        posterior = posterior_of(
            run, process, f"heuristic: best of {self.num_particles} by {self.score} reward"
        )
        scores = aggregate(self.score, *process.step_scores(posterior.particles))
        complete = process.finished(run.population.particles)
        return as_heuristic(posterior, best(scores, complete))


def aggregate(
    score: str, log_odds: Float[Array, "*B N T"], exists: Bool[Array, "*B N T"]
) -> Float[Array, "*B N"]:
    """One score for each sample from the log-odds of its steps.

    Example:
        >>> import jax.numpy as jnp
        >>> log_odds = jnp.log(jnp.array([[3.0, 1.0, jnp.nan]]))
        >>> aggregate("last", log_odds, ~jnp.isnan(log_odds)).tolist()
        [-0.6931471824645996]
    """
    log_rewards = jax.nn.log_sigmoid(jnp.where(exists, log_odds, 0.0))
    return AGGREGATES[score](log_rewards, exists)


def _last(log_rewards, exists):
    index = jnp.maximum(jnp.sum(exists, axis=-1) - 1, 0)
    return jnp.take_along_axis(log_rewards, index[..., None], axis=-1)[..., 0]


def _min(log_rewards, exists):
    return jnp.min(jnp.where(exists, log_rewards, jnp.inf), axis=-1)


def _product(log_rewards, exists):
    return jnp.sum(jnp.where(exists, log_rewards, 0.0), axis=-1)


def _mean(log_rewards, exists):
    total = jnp.sum(jnp.where(exists, jnp.exp(log_rewards), 0.0), axis=-1)
    return total / jnp.maximum(jnp.sum(exists, axis=-1), 1)


AGGREGATES = {"last": _last, "min": _min, "product": _product, "mean": _mean}


def best(scores: Float[Array, "*B N"], complete: Bool[Array, "*B N"]) -> Float[Array, "*B N"]:
    """Log-weights: 0 on the best of the complete samples (of all if none is), -inf elsewhere."""
    none = ~jnp.any(complete, axis=-1, keepdims=True)
    scores = jnp.where(complete | none, scores, -jnp.inf)
    return jnp.where(scores == jnp.max(scores, axis=-1, keepdims=True), 0.0, -jnp.inf)
