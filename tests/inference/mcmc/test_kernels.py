"""Markov kernels: one step from exact draws, on skewed targets, and their compositions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from jurax.inference import HMC, MALA, RWMH, mixture
from jurax.inference.mcmc.kernel import AbstractMCMCKernel
from jurax.inference.mcmc.leapfrog import hamiltonian_move
from tests.statistics import assert_mean

NUM_ROWS = 40_000
DENSE = jnp.array([[1.3, 0.0], [0.4, 0.7]])
KERNELS: dict[str, AbstractMCMCKernel] = {
    "rwmh": RWMH(step_size=1.2),
    "rwmh, dense": RWMH(step_size=1.2).tuned(jnp.array([1.2]), DENSE),
    "mala": MALA(step_size=1.1),
    "mala, dense": MALA().tuned(jnp.array([1.1]), DENSE),
    "hmc": HMC(step_size=0.6, num_leapfrogs=3),
    "hmc, dense": HMC(num_leapfrogs=3).tuned(jnp.array([0.6]), DENSE),
    "cycle": RWMH(step_size=1.2) >> HMC(step_size=0.6, num_leapfrogs=2),
    "mixture": mixture([RWMH(step_size=1.2), MALA(step_size=1.1)], [0.3, 0.7]),
}
QUICK = ("rwmh, dense", "mala, dense", "hmc, dense", "cycle")
each_kernel = pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in KERNELS]
)


def log_density(x: Array) -> Array:
    """Logarithms of an Exponential and of a product: skewed, and its coordinates depend."""
    first, second = x
    return (first - jnp.exp(first)) - 0.5 * (second - first) ** 2


def exact_draws(key: Array) -> Array:
    keys = jax.random.split(key)
    first = jnp.log(jax.random.exponential(keys[0], (NUM_ROWS,)))
    return jnp.stack([first, first + jax.random.normal(keys[1], (NUM_ROWS,))], axis=-1)


@each_kernel
def test_one_step_from_exact_draws_stays_exact(name: str, key: Array) -> None:
    """Moments of the target, and no drift: E[f(x) g(x')] = E[g(x) f(x')] for reversible kernels.

    E[log Exponential] = -0.5772, variance pi^2 / 6; the second coordinate adds variance 1.
    """
    key_start, key_step = jax.random.split(key)
    kernel, x = KERNELS[name], exact_draws(key_start)
    state = kernel.init(log_density, x)
    moved, info = jax.jit(lambda k, s: kernel.step(k, s, log_density))(key_step, state)
    y = np.asarray(moved.x, np.float64)
    acceptance = np.asarray(info["acceptance"])
    assert 0.2 < np.nanmean(acceptance) < 0.99  # both branches taken
    assert_mean(y, [-0.5772157, -0.5772157], resolution=0.02)
    assert_mean((y + 0.5772157) ** 2, [np.pi**2 / 6, np.pi**2 / 6 + 1], resolution=0.05)
    assert_mean((y[:, 0] + 0.5772157) * (y[:, 1] - y[:, 0]), 0.0)
    assert_mean(np.exp(y[:, 0]), 1.0)
    if name != "cycle":  # the parts of a cycle are reversible, the cycle is not
        x = np.asarray(x, np.float64)
        assert_mean(np.exp(x[:, 0]) * y[:, 1] - np.exp(y[:, 0]) * x[:, 1], 0.0)


@pytest.mark.slow
@each_kernel
def test_keys_rows_and_aux(name: str, key: Array, key_reuse) -> None:
    """Keys are consumed once; a single vector works as a population does; aux follows x."""
    kernel = KERNELS[name]

    def with_sum(x: Array) -> tuple[Array, Array]:
        return log_density(x), jnp.sum(x)

    for shape in ((2,), (3, 2)):
        state = kernel.init(with_sum, jnp.full(shape, 0.3))
        state, info = kernel.step(jax.random.fold_in(key, len(shape)), state, with_sum)
        assert state.x.shape == shape and state.log_prob.shape == shape[:-1]
        assert info["acceptance"].shape == (*shape[:-1], len(kernel.target_acceptance))
        np.testing.assert_allclose(state.aux, jnp.sum(state.x, axis=-1), rtol=1e-5)
        again = kernel.init(with_sum, state.x)
        np.testing.assert_allclose(state.log_prob, again.log_prob, rtol=1e-5, atol=1e-6)
        if state.grad is not None:
            np.testing.assert_allclose(state.grad, again.grad, rtol=1e-4, atol=1e-5)


def test_a_leapfrog_step_by_hand(monkeypatch) -> None:
    """Target N(0, 1), x = 1, momentum 1/2, epsilon = .2, two steps."""
    from jurax.inference.mcmc import leapfrog

    monkeypatch.setattr(leapfrog, "noise", lambda key, shape: jnp.full(shape, 0.5))
    x, p = 1.0, 0.5
    for _ in range(2):
        p -= 0.1 * x
        x += 0.2 * p
        p -= 0.1 * x
    state = HMC().init(lambda x: -0.5 * jnp.sum(x**2), jnp.ones((1, 1)))
    moved, info = hamiltonian_move(
        jax.random.key(0), state, lambda x: -0.5 * jnp.sum(x**2), jnp.array([0.2]), None, 2
    )
    expected = min(1.0, np.exp((1 + 0.25 - x**2 - p**2) / 2))
    np.testing.assert_allclose(info["acceptance"][0, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(moved.x[0, 0], x, rtol=1e-5)


def test_a_ratio_without_the_momenta_is_caught(monkeypatch, key: Array) -> None:
    from jurax.inference.mcmc import leapfrog

    monkeypatch.setattr(leapfrog, "kinetic", lambda momentum: jnp.zeros(momentum.shape[:-1]))
    with pytest.raises(AssertionError, match="differs"):
        test_one_step_from_exact_draws_stays_exact("hmc, dense", key)


def test_impossible_places_are_left_and_never_entered(key: Array) -> None:
    def half_line(x: Array) -> Array:
        return jnp.where(x[0] > 0, -x[0], -jnp.inf)

    kernel = RWMH(step_size=3.0)
    state = kernel.init(half_line, jnp.array([[1.0]] * 100 + [[-1.0]] * 100))
    for step_key in jax.random.split(key, 10):
        state, info = kernel.step(step_key, state, half_line)
        assert not bool(jnp.any(jnp.isnan(info["acceptance"])))
        assert bool(jnp.all(state.x[:100] > 0))
    assert bool(jnp.all(state.x > 0))  # from outside the support every way in is taken


def test_repr_and_bad_arguments() -> None:
    assert "num_leapfrogs=3" in repr(HMC(num_leapfrogs=3))
    with pytest.raises(ValueError, match="num_leapfrogs must be at least 1"):
        HMC(num_leapfrogs=0)
