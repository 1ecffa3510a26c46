"""A process whose moves are drawn by a proposal.

Moves come from q_t, which may look at the data, in place of m_t, and the weight corrects for it:

    G_t m_t / q_t,

so evidence and posterior are those of the process (guided filter; Chopin and Papaspiliopoulos
2020, section 10.3.2). The density m_t comes from the `replay` of the process. Needed: q > 0 where
m G > 0.

Shape letters: N particles.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, PyTree

from jurax.ppl import lanes, random
from jurax.ppl.combinators.wrapper import AbstractWrapper
from jurax.ppl.process import AbstractProcess, missing


class Proposal(eqx.Module):
    """The laws q_t that `propose` draws from, described for one particle.

    Attributes:
        transition: `(particle, t) -> law of the record of step t`, t = 1..num_steps.
        initial: law of the record of step 0, or a function `() -> law`; None: x_0 is drawn by the
            process itself.

    A law is a NumPyro distribution or, for processes whose records are dicts (programs), a dict of
    distributions by site name. A callable `eqx.Module` may hold the data. The particle of a program
    has `carry` and `parameters`.
    """

    transition: Callable
    initial: Any = None


class Proposed(AbstractWrapper):
    """See `propose`."""

    process: AbstractProcess
    proposal: Proposal

    def init(self, key, num_particles):
        """Draw x_0 by the proposal and weigh it by G_0 m_0 / q_0."""
        if self.proposal.initial is None:
            return self.process.init(key, num_particles)
        record, log_proposed = self._draw(key, jnp.arange(num_particles), self._initial())
        return self._corrected(None, record, 0, log_proposed)

    def extend(self, key, particles, t):
        """Draw x_t by the proposal and weigh it by G_t m_t / q_t."""
        rows = jnp.arange(self.row_shape(particles)[0])
        states = self.process.innermost(particles)
        record, log_proposed = self._draw(key, rows, self.proposal.transition, states, t)
        return self._corrected(particles, record, t, log_proposed)

    def replay(self, particles, record, t):
        """The given move with the density of the proposal; the product with G is that of m G."""
        if particles is None:
            if self.proposal.initial is None:
                return self.process.replay(None, record, t)
            log_proposed = jax.vmap(lambda x: log_prob_of(self._initial()(), x))(record)
        else:
            states = self.process.innermost(particles)
            law = _over_rows(lambda state, t, x: log_prob_of(self.proposal.transition(state, t), x))
            log_proposed = law(states, jnp.asarray(t), record)
        moved, log_increments = self._corrected(particles, record, t, log_proposed)
        # A move that is never proposed has no mass; its ratio would be -inf + inf.
        log_increments = jnp.where(jnp.isneginf(log_proposed), -jnp.inf, log_increments)
        return moved, log_increments, log_proposed

    def _initial(self) -> Callable:
        initial = self.proposal.initial
        return initial if callable(initial) and not _is_law(initial) else lambda: initial

    def _draw(self, key: Array, rows: Array, law: Callable, *arguments: Any):
        """One record for each row, with its log density."""

        def draw(lane: Array, *arguments: Any) -> tuple[PyTree, Array]:
            laws = law(*arguments)
            leaves, treedef = jax.tree.flatten(laws, is_leaf=_is_law)
            keys = random.split(key, len(leaves)) if len(leaves) > 1 else (key,)
            drawn = [lanes.sample(d, k, lane) for d, k in zip(leaves, keys, strict=True)]
            record = jax.tree.unflatten(treedef, drawn)
            return record, log_prob_of(laws, record)

        if not arguments:
            return jax.vmap(draw)(rows)
        states, t = arguments
        lifted = _over_rows(lambda state, t, lane: draw(lane, state, t))
        return lifted(states, jnp.asarray(t), rows)

    def _corrected(
        self, particles: PyTree, record: PyTree, t: Any, log_proposed: Float[Array, " N"]
    ) -> tuple[PyTree, Float[Array, " N"]]:
        moved, log_increments, log_probs = self.process.replay(particles, record, t)
        return moved, log_increments + log_probs - log_proposed


def propose(process: AbstractProcess, proposal: Proposal) -> AbstractProcess:
    """Draw the moves of a process by a proposal and correct the weights; the target is unchanged.

    Other combinators go inside: `propose(temper(process, beta), proposal)`.

    Args:
        process: must define `replay`; one problem.
        proposal: see `Proposal`.

    Raises:
        NotImplementedError: if the process has no `replay`, or packs problems.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
        >>> from jurax.inference import ParticleFilter, infer
        >>> from jurax.models.state_space import LinearGaussian
        >>> model = LinearGaussian.simulate(jax.random.key(0), num_steps=20)
        >>> guided = propose(model, model.optimal_proposal())
        >>> posterior = infer(jax.random.key(1), guided, ParticleFilter(num_particles=2000))
        >>> bool(abs(posterior.log_evidence - model.log_evidence()) < 0.2)
        True
    """
    if type(process).replay is AbstractProcess.replay:
        raise missing(process, "replay", "the density of its moves")
    if process.batch_shape or process.hosted:
        raise NotImplementedError(
            "propose works on one traceable problem: map over problems, or call it for each"
        )
    return Proposed(process=process, proposal=proposal)  # pyright: ignore[reportCallIssue]


def log_prob_of(laws: PyTree, record: PyTree) -> Float[Array, ""]:
    """Log density of one record under a distribution, or under a dict of them."""
    laws, treedef = jax.tree.flatten(laws, is_leaf=_is_law)
    values = treedef.flatten_up_to(record)
    terms = [jnp.sum(lanes.log_prob(d, x)) for d, x in zip(laws, values, strict=True)]
    return sum(terms, start=jnp.zeros(()))


def _is_law(x: Any) -> bool:
    return isinstance(x, dist.Distribution)


def _over_rows(function: Callable) -> Callable:
    """Lift a function of (particle, t, row); `t` is common or one for each row."""

    def lifted(states: PyTree, t: Array, rows: PyTree) -> Any:
        return jax.vmap(function, in_axes=(0, 0 if t.ndim else None, 0))(states, t, rows)

    return lifted
