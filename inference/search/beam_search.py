"""Beam search by reward: extend every beam in several ways, keep the best. A heuristic.

Each step keeps the `num_beams` best prefixes by the reward of their last step, copies each `width`
times and extends the copies (Snell et al. 2024, section 3.2). Finished texts stay in the contest
with their last reward.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jurax.inference.extend import Extend
from jurax.inference.kernel import AbstractKernel
from jurax.inference.sampler import AbstractSampler, as_heuristic, posterior_of
from jurax.inference.search.best_of_n import aggregate, best
from jurax.ppl import Population
from jurax.ppl.checks import at_least
from jurax.ppl.process import missing


class KeepBest(AbstractKernel):
    """Keep the rows with the highest last reward, each copied `width` times.

    Not a preserving kernel: the population stops representing the target.

    Info: `ancestors` `(*B, N)`.
    """

    width: int = eqx.field(static=True)

    def step(self, key, population, process):
        """Select and copy; no randomness."""
        del key
        scores = last_reward(population.particles, process)
        ancestors = select(scores, self.width)
        kept = Population(
            particles=process.gather(population.particles, ancestors),
            log_weights=jnp.zeros_like(population.log_weights),
            log_evidence=population.log_evidence,
            time=population.time,
            status=population.status,
        )
        return kept, {"ancestors": ancestors}

    def idle_info(self, population):
        """Every row stays."""
        shape = population.log_weights.shape
        return {"ancestors": jnp.broadcast_to(jnp.arange(shape[-1], dtype=jnp.int32), shape)}


class BeamSearch(AbstractSampler):
    """Reward-guided beam search; all weight on the best finished text.

    Args:
        num_beams: beams that are kept at each step.
        width: extensions of each beam; N = num_beams * width rows are decoded at each step.
        history: as in `ParticleFilter`.

    The process must define `step_scores`. The log evidence is NaN: nothing is estimated.
    """

    num_beams: int = eqx.field(static=True)
    width: int = eqx.field(static=True, default=4)
    history: bool | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        at_least(1, num_beams=self.num_beams, width=self.width)

    @property
    def num_particles(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Rows that are decoded at each step."""
        return self.num_beams * self.width

    @property
    def kernel(self) -> AbstractKernel:
        """Keep the best, extend all."""
        return KeepBest(self.width) >> Extend()

    def prepare(self, process):
        """Refuse a process without rewards before any work."""
        if not hasattr(process, "step_scores"):
            raise missing(process, "step_scores", "the rewards of the steps")
        return process

    def report(self, run, process):
        """All weight on the best finished row."""
        posterior = posterior_of(
            run, process, f"heuristic: {self.num_beams} beams, width {self.width}"
        )
        scores = last_reward(run.population.particles, process)
        complete = process.finished(run.population.particles)
        return as_heuristic(posterior, best(scores, complete))


def last_reward(particles, process) -> Float[Array, "*B N"]:
    """Log r of the last step of each row; 0 before the first."""
    return aggregate("last", *process.step_scores(process.output(particles)))


def select(scores: Float[Array, "*B N"], width: int) -> Int[Array, "*B N"]:
    """Indices of the best N / width rows, each repeated `width` times.

    Example:
        >>> import jax.numpy as jnp
        >>> select(jnp.array([0.1, 0.4, 0.2, 0.3]), 2).tolist()
        [1, 1, 3, 3]
    """
    _, index = jax.lax.top_k(scores, scores.shape[-1] // width)
    return jnp.repeat(index, width, axis=-1).astype(jnp.int32)
