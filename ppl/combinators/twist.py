"""A twist: the same target, other weights on the way to it.

A twist psi_t(x_t) > 0 anticipates the potentials to come. The weights along the way become

    G_0 psi_0,   then   G_t psi_t / psi_{t-1},

and psi counts as 1 once a row has finished or t = num_steps, so that the twists of a whole path
cancel: evidence and posterior are those of the process for every psi, while resampling sees what
psi knows (Whiteley and Lee 2014; Guarniero, Johansen and Lee 2017). With the exact psi_t(x) = E[
prod_{s > t} G_s | x_t = x] and a proposal in proportion to m_t G_t psi_t no variance is left.

Shape letters: N particles, B packed problems.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jurax.ppl.combinators.wrapper import AbstractWeighing
from jurax.ppl.process import AbstractProcess


class Twisted(AbstractWeighing):
    """See `twist`; remembers the last log twist."""

    process: AbstractProcess
    log_twist: Callable

    def weigh(self, inner, extra, t):
        """The ratio of twists of step t."""
        log_twist = self.log_twist(self.process.innermost(inner), t)
        log_twist = jnp.where(self.ended(inner, t), 0.0, log_twist)
        before = 0.0 if extra is None else extra
        # A twist of 0 gave the row weight 0 already.
        return log_twist, log_twist - jnp.where(jnp.isneginf(before), 0.0, before)


def twist(
    process: AbstractProcess,
    log_twist: Callable[[PyTree, Array | int], Float[Array, "*B N"]],
) -> AbstractProcess:
    """Steer a process by a guess of what is to come, without changing its target.

    Args:
        process: any process.
        log_twist: `(particles, t) -> log psi_t` for a whole population, t = 0..num_steps; finite
            wherever the target has mass. At the end of a row it is not used.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jurax.models.state_space import HiddenMarkovModel
        >>> model = HiddenMarkovModel.simulate(jax.random.key(0), num_steps=3)
        >>> twisted = twist(model, lambda states, t: 0.5 * states)
        >>> particles, log_weights = twisted.init(jax.random.key(1), 4)
        >>> bool(jnp.all(log_weights == 0.5 * particles.inner))
        True
    """
    return Twisted(process=process, log_twist=log_twist)  # pyright: ignore[reportCallIssue]
