"""How replicas at several temperatures move: Markov kernels on programs, independence on processes.

A replica kernel moves R states at once, each at its own inverse temperature beta, and keeps log L
of every state: `p(x) L(x)^beta` stays invariant.

Shape letters: R replicas, D dimensions, P parts of a composed Markov kernel.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jurax.inference.extend import Extend
from jurax.inference.loop import run_steps
from jurax.inference.mcmc.kernel import AbstractMCMCKernel, choose_rows, lifted
from jurax.inference.mcmc.start import starting_points
from jurax.inference.mcmc.tuning import Tuner, Tuning
from jurax.ppl import AbstractProcess, Population, random
from jurax.ppl.population import DEAD, NO_START, OK
from jurax.ppl.process import gather_rows
from jurax.ppl.unconstrained import Unconstrained


class Replicas(eqx.Module):
    """States of all replicas.

    Attributes:
        states: pytree with leading axis R.
        log_likelihood: log L of each.
        tuning: of the kernel, for each replica; stays when states are swapped.
        status: a code of `STATUS`.
    """

    states: PyTree
    log_likelihood: Float[Array, " R"]
    tuning: PyTree
    status: Array

    def reordered(self, order: Array) -> "Replicas":
        """States exchanged, tuning left where it is."""
        states = gather_rows(self.states, order)
        return Replicas(states, self.log_likelihood[order], self.tuning, self.status)


class AbstractReplicaKernel(eqx.Module):
    """Moves replicas; see the module docstring."""

    @abc.abstractmethod
    def init(self, key: Array, num_replicas: int) -> Replicas:
        """Start every replica; consumes `key`."""

    @abc.abstractmethod
    def step(
        self, key: Array, replicas: Replicas, betas: Float[Array, " R"]
    ) -> tuple[Replicas, Float[Array, "R P"]]:
        """Move every replica; returns also the acceptance probabilities. Consumes `key`."""

    def learn(
        self, replicas: Replicas, acceptance: Float[Array, "R P"], counts: Array, ends: Array
    ) -> Replicas:
        """Tune from one step of the warm-up; by default nothing."""
        del acceptance, counts, ends
        return replicas

    def freeze(self, replicas: Replicas) -> Replicas:
        """End the warm-up; by default nothing."""
        return replicas

    @abc.abstractmethod
    def output(self, states: PyTree) -> PyTree:
        """What is kept of stored states, with any leading axes."""


class ChainReplicas(AbstractReplicaKernel):
    """A Markov kernel on a program, tuned for each replica.

    Attributes:
        view: the program on R^D.
        kernel: the Markov kernel.
        num_warmup: steps of the warm-up.
    """

    view: Unconstrained
    kernel: AbstractMCMCKernel
    num_warmup: int = eqx.field(static=True)

    @property
    def tuner(self) -> Tuner:
        """Of one replica."""
        return Tuner(self.kernel, self.num_warmup)

    def init(self, key, num_replicas):
        """Points of finite density."""
        x, found = starting_points(key, self.view.log_density, num_replicas, self.view.dim)
        one = self.tuner.init(self.view.dim)
        tuning = jax.tree.map(lambda t: jnp.broadcast_to(t, (num_replicas, *t.shape)), one)
        log_likelihood = jax.vmap(self.view.log_likelihood)(x)
        return Replicas(x, log_likelihood, tuning, jnp.where(found, OK, NO_START))

    def step(self, key, replicas, betas):
        """One step of each chain at its temperature."""

        def one(key: Array, x: Array, beta: Array, tuning: Tuning) -> tuple:
            def tempered(x: Array) -> tuple[Array, Array]:
                parts = self.view.evaluate(x)
                power = jnp.where(beta > 0, beta * parts.log_likelihood, 0.0)
                return parts.log_prior + parts.log_jacobian + power, parts.log_likelihood

            kernel = self.tuner.running(tuning)
            state, info = kernel.step(key, kernel.init(tempered, x), tempered)
            return state.x, state.aux, info["acceptance"]

        keys = random.split(key, len(betas))
        x, log_likelihood, acceptance = jax.vmap(one)(keys, replicas.states, betas, replicas.tuning)
        return Replicas(x, log_likelihood, replicas.tuning, replicas.status), acceptance

    def learn(self, replicas, acceptance, counts, ends):
        """Step sizes and scales of each replica."""
        update = lambda t, x, a: self.tuner.update(t, x, a, counts, ends)  # noqa: E731
        tuning = jax.vmap(update)(replicas.tuning, replicas.states, acceptance)
        return eqx.tree_at(lambda r: r.tuning, replicas, tuning)

    def freeze(self, replicas):
        """Averaged step sizes."""
        tuning = jax.vmap(self.tuner.settled)(replicas.tuning)
        return eqx.tree_at(lambda r: r.tuning, replicas, tuning)

    def output(self, states):
        """Values by site name."""
        return lifted(self.view.sites, states.ndim - 1)(states)


class IndependenceReplicas(AbstractReplicaKernel):
    """Whole paths proposed from the moves of a process, accepted by (G(x') / G(x))^beta.

    Attributes:
        process: one problem.
    """

    process: AbstractProcess

    def init(self, key, num_replicas):
        """Paths drawn from the moves."""
        return self._propose(key, num_replicas)

    def step(self, key, replicas, betas):
        """Propose a path for each replica, accept or keep."""
        key_propose, key_accept = random.split(key)
        proposed = self._propose(key_propose, len(betas))
        gain = proposed.log_likelihood - replicas.log_likelihood
        # At beta = 0 every proposal is taken; two impossible paths are alike.
        log_ratio = jnp.where((betas == 0) | jnp.isnan(gain), 0.0, betas * gain)
        acceptance = jnp.exp(jnp.minimum(log_ratio, 0.0))
        accepted = random.bernoulli(key_accept, acceptance)
        states = choose_rows(accepted, proposed.states, replicas.states)
        log_likelihood = choose_rows(accepted, proposed.log_likelihood, replicas.log_likelihood)
        return Replicas(
            states, log_likelihood, None, jnp.maximum(proposed.status, replicas.status)
        ), acceptance[:, None]

    def output(self, states):
        """Stored states are outputs already: no proposal continues an old path."""
        return states

    def _propose(self, key: Array, num: int) -> Replicas:
        """Paths from the moves, with their total log potentials."""
        key_init, key_steps = random.split(key)
        population = Population.start(*self.process.init(key_init, num))
        if self.process.num_steps:
            population = run_steps(Extend(), key_steps, population, self.process).population
        # A proposal of weight zero is rejected like any other.
        status = jnp.where(population.status == DEAD, OK, population.status)
        states = self.process.output(population.particles)
        return Replicas(states, population.log_weights, None, status)


class Independence(eqx.Module):
    """Independence Metropolis on a process: propose whole paths from its moves.

    Needs no density of the moves. Simple and exact; its acceptance falls with the spread of the
    potentials, so it is meant for `ParallelTempering`, whose hot replicas accept often.

    Example:
        >>> Independence()
        Independence()
    """
