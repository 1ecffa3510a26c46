"""Populations of real vectors: what SMC samplers on programs share.

A particle is an unconstrained vector x; the process is a path of densities on R^D from the prior to
the posterior. Beside the rows, the population carries what its moves have learnt: a scale and step
sizes. Shape letters: N particles, D dimensions, P parts of a composed Markov kernel.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jurax.inference.mcmc.kernel import AbstractMCMCKernel, ChainState, LogDensity, Scale, lifted
from jurax.inference.mcmc.tuning import shrunk_root
from jurax.ppl import AbstractProcess, Population, leaves
from jurax.ppl.unconstrained import Unconstrained


class FlatParticles(eqx.Module):
    """Rows `x` and `aux` of a population of vectors, and what is common to all rows.

    Attributes:
        x: positions.
        aux: what the log-density keeps of each row, such as its log-likelihood.
        beta: how far the path has come: 0 at the prior, 1 at the posterior.
        scale: of the moves.
        log_steps: logarithms of the step sizes of the moves.
    """

    x: Float[Array, "N D"]
    aux: PyTree
    beta: Float[Array, ""]
    scale: Scale
    log_steps: Float[Array, " P"]

    def rows(self, choose) -> "FlatParticles":
        """The particles with `choose` applied to the arrays that have rows."""
        x, aux = jax.tree.map(choose, (self.x, self.aux))
        return FlatParticles(x, aux, self.beta, self.scale, self.log_steps)


class AbstractFlatProcess(AbstractProcess):
    """A path of densities over vectors; `Move` needs nothing else of a process.

    Attributes:
        view: the program on R^D.
        dense: whether the scale of moves is a full Cholesky factor.
    """

    view: eqx.AbstractVar[Unconstrained]
    dense: eqx.AbstractVar[bool]

    @property
    def target(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the program."""
        return self.view.source.target

    @abc.abstractmethod
    def log_density(self, population: Population) -> LogDensity:
        """The density that the population represents: x -> (log density, aux)."""

    def moved(self, particles: FlatParticles, state: ChainState) -> FlatParticles:
        """The particles at new positions."""
        return FlatParticles(
            state.x, state.aux, particles.beta, particles.scale, particles.log_steps
        )

    def gather(self, particles, ancestors):
        """Rows only."""
        return particles.rows(lambda leaf: leaves.take(leaf, ancestors))

    def where(self, mask, new, old):
        """Rows only; what is common comes from `new`."""
        x, aux = jax.tree.map(
            lambda a, b: leaves.choose(mask, a, b), (new.x, new.aux), (old.x, old.aux)
        )
        return FlatParticles(x, aux, new.beta, new.scale, new.log_steps)

    def output(self, particles):
        """Values by site name."""
        return lifted(self.view.sites, particles.x.ndim - 1)(particles.x)

    def record(self, particles, t):
        """The vectors."""
        del t
        return particles.x


def start_particles(
    x: Float[Array, "N D"], aux: PyTree, kernel: AbstractMCMCKernel, dense: bool
) -> FlatParticles:
    """Particles at the beginning of the path, with the tuning that `kernel` starts from."""
    dim = x.shape[-1]
    return FlatParticles(
        x=x,
        aux=aux,
        beta=jnp.zeros(()),
        scale=jnp.eye(dim) if dense else jnp.ones(dim),
        log_steps=jnp.log(kernel.step_sizes(dim)),
    )


def population_scale(x: Float[Array, "N D"], normalized: Float[Array, " N"], dense: bool) -> Scale:
    """Standard deviations or Cholesky factor of a weighted population, shrunk by its ESS."""
    ess = 1 / jnp.maximum(jnp.sum(normalized**2), 1e-30)
    weight = normalized[:, None]
    x = jnp.where(weight > 0, x, 0.0)
    centred = x - jnp.sum(weight * x, axis=0, keepdims=True)
    if dense:
        return shrunk_root((weight * centred).T @ centred, ess)
    return shrunk_root(jnp.sum(weight * centred**2, axis=0), ess)
