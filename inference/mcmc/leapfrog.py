"""One Hamiltonian move: momenta, leapfrog steps, Metropolis (Neal 2011, section 5.3.2).

In the coordinates y = S^{-1} x with momenta p ~ N(0, I) and U(y) = -log density,

    p <- p - (epsilon/2) grad U,   L times: y <- y + epsilon p, p <- p - epsilon grad U
    (half a step of p at the last),

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
    gradient,
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

    def leap(_, moving: tuple) -> tuple:
        x, momentum = moving
        x = x + step * stretch(scale, momentum)
        return x, momentum + step * stretch_back(scale, gradient(log_density, x))

    # Densities are needed at the end of the path only; on the way gradients are enough.
    assert state.grad is not None
    pushed = momentum + 0.5 * step * stretch_back(scale, state.grad)
    x, pushed = jax.lax.fori_loop(0, num_leapfrogs - 1, leap, (state.x, pushed))
    proposed = differentiate(log_density, x + step * stretch(scale, pushed))
    assert proposed.grad is not None
    last = pushed + 0.5 * step * stretch_back(scale, proposed.grad)
    drop = kinetic(momentum) - kinetic(last)
    log_ratio = proposed.log_prob - state.log_prob + drop
    return accept(key_accept, state, proposed, log_ratio, largest_drop=LARGEST_DROP)


def kinetic(momentum: Float[Array, "*N D"]) -> Float[Array, "*N"]:
    """|p|^2 / 2."""
    return 0.5 * jnp.sum(momentum**2, axis=-1)
