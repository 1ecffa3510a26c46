"""Population: weighted particles, that is a finite measure.

The population (x_i, w_i, Zacc), i = 1..N stands for the measure

    mu = Zacc (1/N) sum_i w_i delta_{x_i},

where Zacc = exp(log_evidence) was accumulated at the resamplings so far. Kernels either preserve
E[mu] or advance it from gamma_t to gamma_{t+1} (Scibior et al., POPL 2018).
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from jurax.ppl import weights

OK, DEAD, INVALID, OUT_OF_BUDGET, NO_START, INVALID_OUT_OF_BUDGET = 0, 1, 2, 3, 4, 5
STATUS = {
    OK: "ok",
    DEAD: "dead: every weight is zero",
    INVALID: "invalid: a log-weight increment was NaN or +inf; its particle was given weight zero",
    OUT_OF_BUDGET: "stopped: the budget does not allow another step",
    NO_START: "no start: the log density was finite at none of the points that were tried",
}
STATUS[INVALID_OUT_OF_BUDGET] = f"{STATUS[INVALID]}; {STATUS[OUT_OF_BUDGET]}"


class Population(eqx.Module):
    """A weighted population; see the module docstring for its meaning.

    Attributes:
        particles: pytree with leading axes `(*B, N)`.
        log_weights: unnormalised log w_i since the last resampling, `(*B, N)`.
        log_evidence: log Zacc, accumulated at resamplings, `(*B,)`.
        time: number of extensions made so far.
        status: a code of `STATUS` for each problem, `(*B,)`.

    Example:
        >>> import jax.numpy as jnp
        >>> population = Population.start(jnp.arange(3.0), jnp.log(jnp.array([1.0, 1.0, 2.0])))
        >>> float(population.ess), float(population.expectation(lambda x: x))
        (2.6666667461395264, 1.25)
    """

    particles: PyTree
    log_weights: Float[Array, "*B N"]
    log_evidence: Float[Array, "*B"]
    time: Int[Array, ""]
    status: Int[Array, "*B"]

    @classmethod
    def start(cls, particles: PyTree, log_weights: Float[Array, "*B N"]) -> "Population":
        """A fresh population at time 0, its invalid weights set to zero and reported."""
        log_weights, status = check_increments(log_weights, jnp.zeros(log_weights.shape[:-1], int))
        return cls(
            particles=particles,
            log_weights=log_weights,
            log_evidence=jnp.zeros(log_weights.shape[:-1], log_weights.dtype),
            time=jnp.zeros((), jnp.int32),
            status=mark_dead(log_weights, status),
        )

    @property
    def num_particles(self) -> int:
        """N."""
        return self.log_weights.shape[-1]

    @property
    def ess(self) -> Float[Array, "*B"]:
        """Effective sample size (sum w)^2 / sum w^2, in particles."""
        return weights.effective_sample_size(self.log_weights)

    @property
    def log_evidence_estimate(self) -> Float[Array, "*B"]:
        """Log Zhat = log_evidence + log mean_i w_i; its exponential is unbiased."""
        return self.log_evidence + weights.log_mean(self.log_weights)

    def normalized(self) -> Float[Array, "*B N"]:
        """W_i = w_i / sum_j w_j."""
        return weights.normalized(self.log_weights)

    def expectation(self, f: Callable[[PyTree], PyTree]) -> PyTree:
        """sum_i W_i f(x_i) for a function of one particle; the ratio has bias O(1/N)."""
        return weighted_mean(f, self.particles, self.normalized())


def weighted_mean(f: Callable, particles: PyTree, normalized: Float[Array, "*B N"]) -> PyTree:
    """sum_i W_i f(x_i); `f` takes one particle and returns a pytree of arrays."""
    lifted = f
    for _ in range(normalized.ndim):
        lifted = jax.vmap(lifted)
    axis = normalized.ndim - 1

    def average(values: Array) -> Array:
        expanded = normalized.reshape(normalized.shape + (1,) * (values.ndim - normalized.ndim))
        return jnp.sum(expanded * values, axis=axis)

    return jax.tree.map(average, lifted(particles))


def check_increments(
    log_increments: Float[Array, "*B N"], status: Int[Array, "*B"]
) -> tuple[Array, Array]:
    """Give weight zero to rows with a NaN or +inf increment and report them in the status."""
    bad = jnp.isnan(log_increments) | jnp.isposinf(log_increments)
    status = jnp.where(jnp.any(bad, axis=-1), INVALID, status).astype(jnp.int32)
    return jnp.where(bad, -jnp.inf, log_increments), status


def mark_dead(log_weights: Float[Array, "*B N"], status: Int[Array, "*B"]) -> Int[Array, "*B"]:
    """Report problems whose weights are all zero; an earlier fault keeps its code."""
    dead = jnp.isneginf(jnp.max(log_weights, axis=-1))  # the maximum that the ESS takes, too
    return jnp.where(dead & (status == OK), DEAD, status)
