"""Moves of populations: enumeration of resample-move and of waste-free chains, refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jurax.inference import (
    Extend,
    Move,
    Multinomial,
    Resample,
    Systematic,
    TemperedSMC,
    WasteFree,
    infer,
    mixture,
)
from jurax.inference import move as move_module
from jurax.inference.temper import Temper, largest_step
from jurax.ppl import laws, random
from jurax.ppl.enumeration import in_double
from jurax.ppl.walk import Walk
from tests.exact import Language
from tests.inference.finite_moves import FiniteMetropolis, finite_path, population_at


@pytest.mark.parametrize("num_states", [2, 3])
def test_moves_preserve_the_measure(num_states: int, x64) -> None:
    process = finite_path(num_states=num_states)
    move = Move(FiniteMetropolis(num_states), num_moves=1)
    report = laws.check_preserving(move, process, population_at(process, 0.7))
    assert report, str(report)


@pytest.mark.parametrize("resampler", [Systematic(), Multinomial()])
@pytest.mark.parametrize("length", [2, 3])
def test_waste_free_updates_preserve_the_measure(resampler, length: int, x64) -> None:
    """N = 2 and 3: M P > N, so that states are cut off, and M P = N."""
    for num_states in (2, 3) if length == 2 else (3,):
        process = finite_path(num_states=num_states)
        kernel = WasteFree(FiniteMetropolis(num_states), length, resampler)
        report = laws.check_preserving(kernel, process, population_at(process, 0.7))
        assert report, str(report)


def test_waste_free_that_moves_for_another_temperature_is_caught(monkeypatch, x64) -> None:
    process = finite_path()
    honest = move_module.begin

    def wrong(kernel, population, process):
        colder = eqx.tree_at(lambda p: p.particles.beta, population, jnp.ones(()))
        return honest(kernel, colder, process)

    monkeypatch.setattr(move_module, "begin", wrong)
    kernel = WasteFree(FiniteMetropolis(2), 2)
    report = laws.check_preserving(kernel, process, population_at(process, 0.2))
    assert not report and report.max_error > 1e-2


def test_cutting_off_states_of_fixed_slots_is_caught(monkeypatch, x64) -> None:
    monkeypatch.setattr(move_module.random, "randint", lambda key, shape, low, high: low)
    process = finite_path(num_states=3)
    kernel = WasteFree(FiniteMetropolis(3), 2, Systematic())
    report = laws.check_preserving(kernel, process, population_at(process, 0.7))
    assert not report and report.max_error > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("waste_free", [False, True])
def test_tempering_along_a_fixed_ladder_is_unbiased(waste_free: bool, x64) -> None:
    """E[Zhat sum_i W_i 1{x_i = s}] = p(s) L(s) by enumeration; a fixed ladder, N = 2."""
    process = finite_path()
    algorithm = TemperedSMC(
        num_particles=2,
        move=FiniteMetropolis(2),
        num_moves=2 if waste_free else 1,
        ladder=(0.4, 1.0),
        waste_free=waste_free,
        resampler=Multinomial(),
    )
    measure = masses_by_enumeration(algorithm, process)
    expected = jnp.exp(process.log_prior + process.log_likelihood)
    np.testing.assert_allclose(measure, expected, rtol=1e-10)


def masses_by_enumeration(algorithm: TemperedSMC, process) -> np.ndarray:
    wide = in_double(process)
    masses = np.zeros(len(process.log_prior))
    total = 0.0

    def run(key):
        key_init, key_steps = random.split(key)
        population = algorithm.init(key_init, wide, algorithm.num_particles)
        for t, step_key in enumerate(random.split(key_steps, wide.num_steps)):
            del t
            population, _ = algorithm.kernel.step(step_key, population, wide)
        weight = jnp.exp(population.log_evidence_estimate) * population.normalized()
        return population.particles.x[:, 0], weight

    def visit(probability, end):
        nonlocal total
        states, weight = end
        total += probability
        np.add.at(masses, np.asarray(states).astype(int), probability * np.asarray(weight))

    with jax.enable_x64(True):
        Walk(run).run(visit)
    np.testing.assert_allclose(total, 1.0, rtol=1e-12)
    return masses


def test_bisection_finds_the_step_by_hand() -> None:
    """Two rows with log L = 0 and -1: ESS share (1 + e^-d)^2 / (2 (1 + e^-2d))."""
    log_likelihood = jnp.array([0.0, -1.0])
    delta = float(largest_step(jnp.full(2, 0.5), log_likelihood, jnp.asarray(100.0), 0.75))
    v = np.exp(-delta)
    np.testing.assert_allclose((1 + v) ** 2 / (2 * (1 + v**2)), 0.75, rtol=1e-5)
    assert float(largest_step(jnp.full(2, 0.5), log_likelihood, jnp.asarray(0.1), 0.75)) == (
        pytest.approx(0.1)
    )


def test_rows_of_likelihood_zero_do_not_stop_the_ladder() -> None:
    log_likelihood = jnp.array([0.0, 0.0, -jnp.inf, -jnp.inf, -jnp.inf])
    assert float(largest_step(jnp.full(5, 0.2), log_likelihood, jnp.asarray(1.0), 0.9)) == 1.0
    dead = jnp.full(5, -jnp.inf)
    assert float(largest_step(jnp.full(5, 0.2), dead, jnp.asarray(1.0), 0.5)) == 1.0


def test_processes_without_a_density_are_refused_by_name(key) -> None:
    process = Language.draw(seed=7, num_symbols=2, depth=2, stop=False).process("odds")
    kernel = Extend() >> Move(FiniteMetropolis(2))
    population = Extend().init(key, process, 4)
    with pytest.raises(NotImplementedError, match="does not define `log_density`"):
        kernel.step(jax.random.key(1), population, process)


def test_mixtures_of_preserving_kernels_are_preserving(x64) -> None:
    process = finite_path()
    mixed = mixture([Resample(), Move(FiniteMetropolis(2))], [0.3, 0.7])
    report = laws.check_preserving(mixed, process, population_at(process, 0.7))
    assert report, str(report)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="num_moves must be at least 1"):
        Move(FiniteMetropolis(2), num_moves=0)
    with pytest.raises(ValueError, match="at least 2 states"):
        TemperedSMC(10, num_moves=1, waste_free=True)
    with pytest.raises(ValueError, match="ladder must increase"):
        TemperedSMC(10, ladder=(0.5, 0.4, 1.0))
    with pytest.raises(ValueError, match="ess_target must lie"):
        Temper(1.5)
    with pytest.raises(ValueError, match="a probability for each"):
        mixture([Resample()], [0.5, 0.5])
    with pytest.raises(TypeError, match="not both"):
        mixture([Resample(), FiniteMetropolis(2)])


def test_one_word_changes_the_target_of_infer(key) -> None:
    process = Language.draw(seed=7, num_symbols=2, depth=2, stop=False).process("odds")
    with pytest.raises(TypeError, match="works on the joint density of a whole program"):
        infer(key, process, TemperedSMC(10))
