"""Starting points of chains: uniform on (-2, 2)^D, drawn again where the density is not finite."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jurax.inference.mcmc.kernel import differentiate
from jurax.ppl import random

RADIUS = 2.0  # of the unconstrained box, as in Stan and numpyro
MAX_TRIES = 100


def starting_points(
    key: Array, log_density: Callable, num_chains: int, dim: int
) -> tuple[Float[Array, "C D"], Bool[Array, ""]]:
    """Points `(C, D)` where density and gradient are finite, and whether all were found."""

    def draw(key: Array) -> Array:
        return random.uniform(key, (num_chains, dim), minval=-RADIUS, maxval=RADIUS)

    def is_good(x: Array) -> Array:
        state = differentiate(log_density, x)
        return jnp.isfinite(state.log_prob) & jnp.all(jnp.isfinite(state.grad), axis=-1)

    def retry(carry: tuple) -> tuple:
        tries, x, good = carry
        fresh = draw(random.fold_in(key, tries))
        x = jnp.where(good[:, None], x, fresh)
        return tries + 1, x, good | is_good(fresh)

    def is_searching(carry: tuple) -> Array:
        tries, _, good = carry
        return (tries < MAX_TRIES) & ~jnp.all(good)

    # The loop alone evaluates the density, so that it is compiled once.
    nothing = jnp.zeros((num_chains, dim)), jnp.zeros(num_chains, bool)
    _, x, good = jax.lax.while_loop(is_searching, retry, (0, *nothing))
    return x, jnp.all(good)
