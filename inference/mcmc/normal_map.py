"""The normal law at the mode of a density on R^D, and a density seen through it.

    x* = argmax log p(x),    H = -d^2 log p(x*) / dx^2,    N(x*, H^{-1}) = law of x* + A z

Under x = x* + A z a sampler meets a density near N(0, I): steps need neither a tuned covariance nor
a long way to the bulk of the mass.

Shape letters: D dimensions, C starting points.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from jurax.inference.mcmc.start import starting_points

FLATTEST = 0.1  # curvature below this is no information: the law is cut to a sd of 3 there
NUM_STEPS = 2_000
TOLERANCE = 1e-3  # of the gradient's largest entry, relative to sqrt(1 + |log p|) in float32


class Normal(NamedTuple):
    """N(x*, A A'), with A = V diag(lambda)^{-1/2} from H = V diag(lambda) V'.

    Attributes:
        mode: x*.
        root: A.
        log_det: log |det A|.
    """

    mode: Float[Array, " D"]
    root: Float[Array, "D D"]
    log_det: Float[Array, ""]

    def place(self, z: Float[Array, " D"]) -> Float[Array, " D"]:
        """X = x* + A z."""
        return self.mode + self.root @ z

    def seen(self, log_density: Callable) -> Callable:
        """Log p as a function of z, up to the constant log |det A|."""
        return lambda z: log_density(self.place(z))


def laplace_of(
    key: Array, log_density: Callable, dim: int, num_starts: int = 4
) -> tuple[Normal, Bool[Array, ""]]:
    """The approximation at the best mode that is found, and whether a start was found.

    Climbs by L-BFGS from points of finite density; consumes `key`.
    """
    starts, found = starting_points(key, log_density, num_starts, dim)
    modes = jax.vmap(lambda x: climb(log_density, x))(starts)
    heights = jnp.nan_to_num(jax.vmap(log_density)(modes), nan=-jnp.inf)
    mode = modes[jnp.argmax(heights)]
    curvature = -jax.hessian(log_density)(mode)
    values, vectors = jnp.linalg.eigh(jnp.nan_to_num(curvature))
    values = jnp.maximum(values, FLATTEST)
    return Normal(mode, vectors / jnp.sqrt(values)[None, :], -0.5 * jnp.sum(jnp.log(values))), found


def climb(log_density: Callable, x: Float[Array, " D"]) -> Float[Array, " D"]:
    """A mode near x."""

    def loss(x: Float[Array, " D"]) -> Float[Array, ""]:
        return -log_density(x)

    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry: tuple) -> tuple:
        x, state, count, _ = carry
        value, gradient = value_and_grad(x, state=state)
        updates, state = optimizer.update(
            gradient, state, x, value=value, grad=gradient, value_fn=loss
        )
        steep = jnp.max(jnp.abs(gradient)) > TOLERANCE * jnp.sqrt(1 + jnp.abs(value))
        return x + updates, state, count + 1, steep

    def going(carry: tuple) -> Bool[Array, ""]:
        _, _, count, steep = carry
        return steep & (count < NUM_STEPS)

    start = x, optimizer.init(x), jnp.zeros((), int), jnp.array(True)
    return jax.lax.while_loop(going, step, start)[0]
