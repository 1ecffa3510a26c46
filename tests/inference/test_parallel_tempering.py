"""Parallel tempering: swaps by enumeration, exact swap rates, a reward valley crossed."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import Array

from jurax.inference import HMC, RWMH, Independence, ParallelTempering, infer
from jurax.inference import swap as swap_module
from jurax.inference.swap import spread_ladder, swap
from jurax.ppl import bind, laws
from jurax.ppl.walk import Walk
from tests.exact import Language
from tests.statistics import assert_mean

LOG_PRIOR = np.log([0.3, 0.7])
LOG_LIKELIHOOD = np.log([2.0, 0.4])


def error_of_swaps(betas: tuple[float, ...], step: int) -> float:
    """Largest error of sum_x pi(x) P(x, x') = pi(x') over states of all replicas."""
    starts = list(itertools.product(range(2), repeat=len(betas)))
    mass = {
        x: np.exp(sum(LOG_PRIOR[s] + b * LOG_LIKELIHOOD[s] for s, b in zip(x, betas, strict=True)))
        for x in starts
    }
    moved = dict.fromkeys(starts, 0.0)

    def run(key: Array, states: Array) -> Array:
        order, _ = swap(key, jnp.asarray(LOG_LIKELIHOOD)[states], jnp.asarray(betas), step)
        return states[order]

    with jax.enable_x64(True):
        walk = Walk(run, jnp.asarray(starts[0]))
        for start in starts:

            def visit(probability: float, end: Array, weight: float = mass[start]) -> None:
                moved[tuple(np.asarray(end).tolist())] += probability * weight

            walk.run(visit, jnp.asarray(start))
    return max(abs(moved[x] - mass[x]) for x in starts) / sum(mass.values())


@pytest.mark.parametrize("betas", [(0.0, 1.0), (0.2, 0.5, 1.0), (0.0, 0.3, 0.6, 1.0)])
@pytest.mark.parametrize("step", [0, 1])
def test_swaps_leave_the_product_of_the_targets_invariant(betas, step: int) -> None:
    assert error_of_swaps(betas, step) < 1e-10


def test_a_swap_ratio_of_the_wrong_sign_is_caught(monkeypatch) -> None:
    honest = swap_module.swap_probabilities
    monkeypatch.setattr(swap_module, "swap_probabilities", lambda logs, b: honest(-logs, b))
    assert error_of_swaps((0.2, 0.5, 1.0), 0) > 1e-2


def test_impossible_states_are_only_handed_down() -> None:
    """log L = -inf: the hot replica may take it, the cold one never."""
    betas = jnp.array([0.0, 1.0])
    rates = swap_module.swap_probabilities(jnp.array([0.0, -jnp.inf]), betas)
    assert rates.tolist() == [1.0]
    rates = swap_module.swap_probabilities(jnp.array([-jnp.inf, 0.0]), betas)
    assert rates.tolist() == [0.0]
    rates = swap_module.swap_probabilities(jnp.full(2, -jnp.inf), betas)
    assert rates.tolist() == [0.0]


def test_an_even_ladder_is_left_alone() -> None:
    betas = jnp.array([0.0, 0.2, 0.5, 1.0])
    np.testing.assert_allclose(spread_ladder(betas, jnp.full(3, 0.6)), betas, atol=1e-3)
    spread = spread_ladder(betas, jnp.array([0.9, 0.9, 0.1]))
    assert spread[0] == 0 and spread[-1] == 1 and bool(jnp.all(jnp.diff(spread) > 0))
    assert float(spread[1]) > 0.5  # most rungs go where most swaps fail


def valley() -> Language:
    """Six symbols; the first and the last string are rewarded, the mixed ones are not."""
    language = Language.draw(seed=3, num_symbols=2, depth=4, stop=False)
    probs = np.full_like(language.probs, 0.5)
    rewards = np.full_like(language.rewards, 0.1)
    for first in (0, 1):
        prefix = 0
        for _ in range(4):
            rewards[prefix, first] = 0.8 - 0.1 * first
            prefix = prefix * 2 + first + 1
    return Language(probs, rewards, 4, False)


def exact_swap_rate(process, betas) -> np.ndarray:
    """sum_{x, y} pi_i(x) pi_j(y) min(1, exp((b_i - b_j) (log G(y) - log G(x))))."""
    prior = laws.enumerate_process(process.prior())
    full = laws.enumerate_process(process)
    masses = full.masses
    p = np.array(prior.probabilities)
    log_g = np.log([masses[path] for path in prior.paths]) - np.log(p)
    rates = []
    for b_i, b_j in zip(betas, betas[1:], strict=False):
        pi_i, pi_j = (p * np.exp(b * log_g) for b in (b_i, b_j))
        ratio = np.exp(np.minimum((b_i - b_j) * (log_g[None, :] - log_g[:, None]), 0))
        rates.append((pi_i / pi_i.sum()) @ ratio @ (pi_j / pi_j.sum()))
    return np.array(rates)


@pytest.mark.slow
def test_two_modes_of_a_language_and_the_exact_swap_rate(key: Array) -> None:
    process, betas = valley().process("odds"), (0.0, 0.25, 0.5, 1.0)
    algorithm = ParallelTempering(Independence(), 2000, 50, betas=betas, num_chains=64)
    posterior = infer(key, process, algorithm)
    assert posterior.info["betas"].shape == (64, 4) and posterior.info["betas"][0, -1] == 1
    swap_rates = np.asarray(posterior.info["swap_rates"], np.float64)
    assert_mean(swap_rates, exact_swap_rate(process, betas), resolution=0.005)
    exact = laws.enumerate_process(process)
    prefix = np.asarray(posterior.particles.prefix)
    numbers = [prefix_of(path) for path in exact.paths[:2]]
    shares = np.stack([(prefix == number).mean(axis=1) for number in numbers], axis=1)
    assert_mean(shares, exact.probabilities[:2], resolution=0.01)
    assert exact.probabilities[0] < 0.9 and exact.probabilities[1] > 0.1  # two modes
    np.testing.assert_allclose(posterior.log_evidence, exact.log_evidence, atol=0.1)


def prefix_of(path) -> int:
    from tests.exact import number_of

    return number_of(tuple(int(np.asarray(symbol).reshape(())) for symbol in path), 2)


def two_modes():
    x = numpyro.sample("x", dist.Normal(0.0, 5.0))
    numpyro.factor("modes", jnp.logaddexp(-8 * (x - 5) ** 2, jnp.log(3.0) - 8 * (x + 5) ** 2))


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [RWMH(), HMC(num_leapfrogs=3)])
def test_two_modes_of_a_program(kernel, key: Array) -> None:
    """Weights 1 : 3 by symmetry of the prior; a single chain never leaves its mode."""
    algorithm = ParallelTempering(kernel, 1000, 600, num_replicas=6, num_chains=64)
    posterior = infer(key, bind(two_modes), algorithm)
    x = np.asarray(posterior.particles["x"], np.float64)
    assert_mean((x > 0).mean(axis=1), 0.25, resolution=0.02)
    rates = np.asarray(posterior.info["swap_rates"])
    assert rates.std(axis=1).mean() < 0.1  # the ladder is even
    grid = np.linspace(-30, 30, 200_001)
    potential = np.exp(-8 * (grid - 5) ** 2) + 3 * np.exp(-8 * (grid + 5) ** 2)
    evidence = np.trapezoid(potential * np.exp(-(grid**2) / 50), grid) / np.sqrt(50 * np.pi)
    np.testing.assert_allclose(posterior.log_evidence, np.log(evidence), atol=0.1)


def test_bad_arguments_are_refused(key: Array) -> None:
    with pytest.raises(ValueError, match="betas must increase"):
        ParallelTempering(RWMH(), 10, betas=(0.0, 0.5))
    with pytest.raises(ValueError, match="num_replicas must be at least 2"):
        ParallelTempering(RWMH(), 10, num_replicas=1)
    process = valley().process("odds")
    with pytest.raises(TypeError, match="moves the sites of a program"):
        infer(key, process, ParallelTempering(RWMH(), 10))
