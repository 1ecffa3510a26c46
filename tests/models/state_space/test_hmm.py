"""Forward-backward against the sum over all state sequences, and the process against it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jurax.inference import ParticleFilter, infer
from jurax.models.state_space import HiddenMarkovModel
from tests.statistics import assert_unbiased_evidence


def all_paths(model):
    """Every state sequence z_{0:T} with its joint probability with the data."""
    num_states, num_steps = model.initial.shape[0], model.num_steps
    paths = np.array(list(itertools.product(range(num_states), repeat=num_steps + 1)))
    initial, moves, emissions, y = map(
        np.asarray,
        (model.initial, model.transition_matrix, model.emission_matrix, model.observations),
    )
    probabilities = initial[paths[:, 0]]
    for t in range(1, num_steps + 1):
        probabilities = probabilities * moves[paths[:, t - 1], paths[:, t]]
        probabilities = probabilities * emissions[paths[:, t], y[t - 1]]
    return paths, probabilities


def test_forward_backward_equals_enumeration(x64, key):
    model = HiddenMarkovModel.simulate(key, num_steps=5, num_states=3)
    result = model.smoothed()
    paths, probabilities = all_paths(model)
    evidence = probabilities.sum()
    np.testing.assert_allclose(result.log_evidence, np.log(evidence), rtol=1e-12)
    posterior = probabilities / evidence
    for t in range(6):
        expected = np.bincount(paths[:, t], posterior, minlength=3)
        np.testing.assert_allclose(result.smoothed[t], expected, atol=1e-12)
    for t in range(5):
        pair = np.bincount(3 * paths[:, t] + paths[:, t + 1], posterior, minlength=9)
        np.testing.assert_allclose(result.pairs[t].reshape(-1), pair, atol=1e-12)
    np.testing.assert_allclose(result.filtered[5], result.smoothed[5], atol=1e-12)
    np.testing.assert_allclose(result.filtered[0], model.initial, atol=1e-12)


def test_impossible_transitions(x64):
    """Zeros in the matrices give zeros, never NaN."""
    model = HiddenMarkovModel(
        jnp.array([0, 1]), jnp.array([1.0, 0.0]), jnp.eye(2), jnp.array([[0.5, 0.5], [1.0, 0.0]])
    )
    result = model.smoothed()
    np.testing.assert_allclose(result.smoothed, [[1.0, 0.0]] * 3)
    np.testing.assert_allclose(result.log_evidence, np.log(0.25))


def test_data_follow_the_model(key):
    """Frequencies of (z_{T-1}, y_T) pairs cannot be seen; those of y are close to their law."""
    model = HiddenMarkovModel.simulate(key, num_steps=4000, num_states=2, num_symbols=2)
    law = np.linalg.matrix_power(np.asarray(model.transition_matrix, float), 200)[0]
    expected = law @ np.asarray(model.emission_matrix, float)
    frequency = np.bincount(np.asarray(model.observations), minlength=2) / 4000
    assert abs(frequency[0] - expected[0]) < 0.08


@pytest.mark.slow
@pytest.mark.parametrize("form", ["process", "program"])
def test_filter_is_unbiased(form, key):
    key_data, key_runs = jax.random.split(key)
    model = HiddenMarkovModel.simulate(key_data, num_steps=15)
    target = model if form == "process" else model.program()
    algorithm = ParticleFilter(num_particles=100, history=False)

    def run(key):
        posterior = infer(key, target, algorithm)
        name = "z" if form == "program" else None
        return posterior.log_evidence, posterior.expectation(
            lambda z: jax.nn.one_hot(z[name] if name else z, 3)
        )

    log_evidences, final = jax.jit(lambda keys: jax.lax.map(run, keys))(
        jax.random.split(key_runs, 400)
    )
    exact = model.smoothed()
    assert_unbiased_evidence(log_evidences, exact.log_evidence)
    error = np.std(np.asarray(final), axis=0) / np.sqrt(400)
    difference = np.abs(np.asarray(final).mean(0) - np.asarray(exact.smoothed[-1]))
    assert np.all(difference < 5 * error + 2e-3)  # the ratio has bias O(1/N)


@pytest.mark.slow
def test_replay_gives_transition_probabilities(key):
    model = HiddenMarkovModel.simulate(key, num_steps=3)
    states = jnp.array([0, 1, 2])
    moved, increments, log_probs = model.replay(states, jnp.array([1, 1, 0]), 2)
    np.testing.assert_allclose(
        log_probs, jnp.log(model.transition_matrix[states, moved]), rtol=1e-5
    )
    symbol = model.observations[1]
    np.testing.assert_allclose(increments, jnp.log(model.emission_matrix[moved, symbol]), rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observations": [0, 2]}, r"symbols 0\.\.1"),
        ({"observations": [-1, 0]}, r"symbols 0\.\.1"),
        ({"initial": [0.5, 0.6]}, "initial must hold probabilities"),
        ({"transition_matrix": [[1.5, -0.5], [0.0, 1.0]]}, "transition_matrix must hold"),
        ({"emission_matrix": [[1.0, 1.0], [0.0, 1.0]]}, "emission_matrix must hold"),
    ],
)
def test_wrong_tables_are_refused(change: dict, message: str) -> None:
    table = [[0.9, 0.1], [0.2, 0.8]]
    right = dict(
        observations=[0, 1], initial=[0.5, 0.5], transition_matrix=table, emission_matrix=table
    )
    arrays = {name: np.asarray(value) for name, value in (right | change).items()}
    with pytest.raises(ValueError, match=message):
        HiddenMarkovModel(**arrays)
