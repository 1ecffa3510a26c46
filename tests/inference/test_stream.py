"""Streaming: a series filtered piece by piece is the series filtered at once, bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from jurax.inference import AuxiliaryFilter, ParticleFilter, infer, stream
from jurax.models.state_space import StochasticVolatility
from jurax.ppl import Population, Posterior
from tests.exact import Language
from tests.inference.test_contract import Chase

SERIES = StochasticVolatility.simulate(jax.random.key(5), num_steps=9).observations
FILTER = ParticleFilter(num_particles=64, ess_threshold=0.9)


def until(num: int) -> StochasticVolatility:
    return StochasticVolatility(SERIES[:num])


def assert_same(population: Population, posterior: Posterior) -> None:
    for a, b in zip(
        jax.tree.leaves((population.particles, population.log_weights)),
        jax.tree.leaves((posterior.particles, posterior.log_weights)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(population.log_evidence_estimate, posterior.log_evidence)
    assert int(population.time) == int(posterior.info["num_steps"])


def test_a_series_in_pieces_is_the_series_at_once(key: Array) -> None:
    key_start, key_steps = jax.random.split(key)
    population = stream.start(key_start, until(4), FILTER)
    population = stream.update(key_steps, population, until(4), FILTER)
    assert int(population.time) == 4
    population = stream.update(key_steps, population, until(9), FILTER)
    posterior = infer(key, until(9), FILTER)
    assert_same(population, posterior)
    assert int(jnp.sum(posterior.info["resampled"])) > 0


def test_one_observation_at_a_time_compiles_once(key: Array, monkeypatch) -> None:
    """Data of full length, missing beyond today; the whole of a program."""
    key_start, key_steps = jax.random.split(key)
    today = jnp.full(SERIES.shape, jnp.nan)
    population = stream.start(key_start, StochasticVolatility(today), FILTER)
    num_traces = []
    kernel = FILTER.__class__.kernel.fget  # pyright: ignore
    monkeypatch.setattr(
        type(FILTER),
        "kernel",
        property(lambda self: num_traces.append(1) or kernel(self)),  # pyright: ignore
    )
    for t, observation in enumerate(SERIES):
        today = today.at[t].set(observation)
        model = StochasticVolatility(today)
        population = stream.update(key_steps, population, model, FILTER, until=t + 1)
    assert len(num_traces) <= 1  # 0 where an earlier test ran the same shapes
    assert_same(population, infer(key, until(9), FILTER))


@pytest.mark.slow
def test_programs_and_auxiliary_filters_are_continued_too(key: Array) -> None:
    key_start, key_steps = jax.random.split(key)

    def program(num: int):
        return until(num).program()

    algorithm = AuxiliaryFilter(32, lambda particles, t: -0.1 * particles.carry**2)
    population = stream.start(key_start, program(3), algorithm)
    for num in (3, 6):
        population = stream.update(key_steps, population, program(num), algorithm)
    posterior = infer(key, program(6), algorithm)
    np.testing.assert_array_equal(population.log_weights, posterior.log_weights)


def test_an_update_without_new_data_changes_nothing(key: Array) -> None:
    population = stream.start(key, until(4), FILTER)
    same = stream.update(key, population, until(4), FILTER, until=0)
    np.testing.assert_array_equal(same.particles, population.particles)
    with pytest.raises(ValueError, match="beyond the 4 steps"):
        stream.update(key, population, until(4), FILTER, until=5)


@pytest.mark.slow
def test_packed_and_finished_problems(key: Array) -> None:
    """Each problem has its own key; rows that finished stay as they are."""
    process = Chase(jnp.array([0.0, 2.0]))
    keys = jax.random.split(key, 2)
    key_start, key_steps = jax.vmap(jax.random.split, out_axes=1)(keys)
    population = stream.start(key_start, process, FILTER)
    for t in (2, 4):
        population = stream.update(key_steps, population, process, FILTER, until=t)
    posterior = infer(keys, process, FILTER)
    np.testing.assert_array_equal(population.log_weights, posterior.log_weights)
    language = Language.draw(seed=7, num_symbols=2, depth=3, stop=True).process("odds")
    key_start, key_steps = jax.random.split(key)
    population = stream.start(key_start, language, FILTER)
    population = stream.update(key_steps, population, language, FILTER, until=1)
    population = stream.update(key_steps, population, language, FILTER)
    np.testing.assert_array_equal(population.log_weights, infer(key, language, FILTER).log_weights)


def test_keys_fold_their_time(key: Array) -> None:
    """A step that ignored its time would draw the same noise again."""
    key_start, key_steps = jax.random.split(key)
    model = StochasticVolatility(jnp.full(2, jnp.nan), persistence=0.0)
    first = stream.start(key_start, model, FILTER)
    second = stream.update(key_steps, first, model, FILTER, until=1)
    third = stream.update(key_steps, second, model, FILTER)
    assert abs(np.corrcoef(second.particles, third.particles)[0, 1]) < 0.5
