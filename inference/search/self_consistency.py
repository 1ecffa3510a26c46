"""Self-consistency: N samples of the model, one vote each (Wang et al. 2023)."""

import equinox as eqx

from jurax.inference.extend import Extend
from jurax.inference.kernel import AbstractKernel
from jurax.inference.sampler import AbstractSampler, as_heuristic, posterior_of


class SelfConsistency(AbstractSampler):
    """Draw N independent samples of the process without its potentials and weight them equally.

    `posterior.distribution(process.answer)` is then the share of votes; its mode is the majority.
    The reward is not evaluated.

    Args:
        num_particles: N >= 1.
        history: as in `ParticleFilter`.
    """

    num_particles: int = eqx.field(static=True)
    history: bool | None = eqx.field(static=True, default=None)

    @property
    def kernel(self) -> AbstractKernel:
        """One extension."""
        return Extend()

    def prepare(self, process):
        """The process without its potentials."""
        return process.prior()

    def report(self, run, process):
        """Equal weights."""
        posterior = posterior_of(run, process, f"{process.target}; one vote each")
        return as_heuristic(posterior, posterior.log_weights)
