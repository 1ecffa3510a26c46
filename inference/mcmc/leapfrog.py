"""One Hamiltonian move: momenta, leapfrog steps, Metropolis (Neal 2011, section 5.3.2).

In the coordinates y = S^{-1} x with momenta p ~ N(0, I) and U(y) = -log density,

    p <- p - (epsilon/2) grad U,   L times: y <- y + epsilon p, p <- p - epsilon grad U,
    p <- p + (epsilon/2) grad U    (the last full step of p was half a step too long),

accepted with probability min(1, exp(H - H')), H = U + |p|^2 / 2. One step L = 1 is MALA.
Shape letters: N chains, D dimensions.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jurax.inference.mcmc.kernel import (
    ChainState,
    LogDensity,
    Scale,
    accept,
    differentiate,
    noise,
    stretch,
    stretch_back,
)
from jurax.ppl import random

LARGEST_DROP = 1000.0  # in nats of energy; beyond it the integrator has diverged (as in Stan)


def hamiltonian_move(
    key: Array,
    state: ChainState,
    log_density: LogDensity,
    step_size: Float[Array, "*N"],
    scale: Scale | None,
    num_leapfrogs: int,
) -> tuple[ChainState, dict[str, Array]]:
    """Draw momenta, follow the flow, accept or reject; consumes `key`."""
    key_momentum, key_accept = random.split(key)
    step = step_size[..., None]
    momentum = noise(key_momentum, state.x.shape)

    def force(at: ChainState) -> Array:
        assert at.grad is not None
        return stretch_back(scale, at.grad)

    def leap(_, moving: tuple) -> tuple:
        at, momentum = moving
        at = differentiate(log_density, at.x + step * stretch(scale, momentum))
        return at, momentum + step * force(at)

    pushed = momentum + 0.5 * step * force(state)
    proposed, last = jax.lax.fori_loop(0, num_leapfrogs, leap, (state, pushed))
    last = last - 0.5 * step * force(proposed)
    drop = kinetic(momentum) - kinetic(last)
    log_ratio = proposed.log_prob - state.log_prob + drop
    return accept(key_accept, state, proposed, log_ratio, largest_drop=LARGEST_DROP)


def kinetic(momentum: Float[Array, "*N D"]) -> Float[Array, "*N"]:
    """|p|^2 / 2."""
    return 0.5 * jnp.sum(momentum**2, axis=-1)
