"""StateSpaceModel: parts as distributions or samplers, replay, prior, errors."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from jurax.inference import ParticleFilter, infer
from jurax.ppl import StateSpaceModel
from tests.statistics import assert_mean, assert_unbiased_evidence

Y = jnp.array([0.3, 1.0, -0.5, 0.2])


def walk(initial=None, transition=None, potential=None):
    """x_0 ~ N(1, 2^2), x_t ~ N(.8 x_{t-1}, .5^2), y_t ~ N(x_t, 1), t = 0..3."""
    return StateSpaceModel(
        initial=dist.Normal(1.0, 2.0) if initial is None else initial,
        transition=transition or (lambda state, t: dist.Normal(0.8 * state, 0.5)),
        potential=potential or (lambda state, t: dist.Normal(state, 1.0).log_prob(Y[t])),
        num_steps=3,
    )


def sampled_walk():
    """The same model, its parts samplers and its state a pytree."""

    def move(key, state, t):
        return {"x": 0.8 * state["x"] + 0.5 * jax.random.normal(key)}

    return StateSpaceModel(
        initial=lambda key: {"x": 1.0 + 2.0 * jax.random.normal(key)},
        transition=move,
        potential=lambda state, t: dist.Normal(state["x"], 1.0).log_prob(Y[t]),
        num_steps=3,
    )


def exact_log_evidence():
    """The joint normal law of y_0..y_3."""
    cov, mean, m, v = np.zeros((4, 4)), np.zeros(4), 1.0, 4.0
    for t in range(4):
        mean[t], cov[t, t] = m, v
        for s in range(t + 1, 4):
            cov[t, s] = cov[s, t] = v * 0.8 ** (s - t)
        m, v = 0.8 * m, 0.64 * v + 0.25
    law = dist.MultivariateNormal(jnp.asarray(mean), jnp.asarray(cov + np.eye(4)))
    return float(law.log_prob(Y))


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [walk(), walk(initial=lambda: dist.Normal(1.0, 2.0)), sampled_walk()],
    ids=["distributions", "function", "samplers"],
)
def test_evidence_is_unbiased(model, key):
    algorithm = ParticleFilter(num_particles=50, history=False)
    run = jax.jit(jax.vmap(lambda k: infer(k, model, algorithm).log_evidence))
    assert_unbiased_evidence(run(jax.random.split(key, 1000)), exact_log_evidence())


@pytest.mark.slow
@pytest.mark.parametrize("model", [walk(), sampled_walk()], ids=["distributions", "samplers"])
def test_joint_law_of_two_times(model, key):
    """Products of two times, which moments at each time cannot see."""
    key_first, key_second = jax.random.split(key)
    first, _ = model.init(key_first, 20_000)
    second, _ = model.extend(key_second, first, 1)
    x, y = (np.asarray(jax.tree.leaves(s)[0], float) for s in (first, second))
    assert_mean(x, 1.0)
    assert_mean((x - 1) ** 2, 4.0)
    assert_mean((x - 1) * (y - 0.8), 0.8 * 4.0)
    noise = y - 0.8 * x
    assert_mean(noise * (x - 1), 0.0)
    assert_mean(noise**2, 0.25)
    for shift in (1, 2):  # noise of a slot against the start of its neighbours
        assert_mean(noise[shift:] * (x[:-shift] - 1), 0.0)
        assert_mean(noise[:-shift] * (x[shift:] - 1), 0.0)


def test_replay_makes_the_move_with_its_density(key):
    model = walk()
    states = jax.random.normal(key, (5,))
    moved, increments, log_probs = model.replay(states, states + 0.1, 2)
    np.testing.assert_array_equal(moved, states + 0.1)
    np.testing.assert_allclose(log_probs, dist.Normal(0.8 * states, 0.5).log_prob(moved), rtol=1e-6)
    np.testing.assert_allclose(increments, dist.Normal(moved, 1.0).log_prob(Y[2]), rtol=1e-6)
    start, weights, log_probs = model.replay(None, states, 0)
    np.testing.assert_allclose(log_probs, dist.Normal(1.0, 2.0).log_prob(states), rtol=1e-6)
    np.testing.assert_allclose(weights, dist.Normal(states, 1.0).log_prob(Y[0]), rtol=1e-6)


def test_replay_of_samplers_is_refused_by_name(key):
    model = sampled_walk()
    states, _ = model.init(key, 3)
    with pytest.raises(NotImplementedError, match="`replay`.*distributions"):
        model.replay(states, states, 1)


def test_rows_may_stand_at_different_steps(key):
    model = walk()
    states, _ = model.init(jax.random.key(0), 4)
    times = jnp.array([1, 2, 2, 3])
    moved, increments = model.extend(key, states, times)
    np.testing.assert_allclose(increments, dist.Normal(moved, 1.0).log_prob(Y[times]), rtol=1e-6)


def test_prior_has_no_weights(key):
    model = walk().prior()
    posterior = infer(key, model, ParticleFilter(num_particles=2000))
    assert float(posterior.log_evidence) == 0
    assert_mean(np.asarray(posterior.particles, float), 0.8**3)


def test_vector_states_with_independent_components(key):
    """Batch axes of a distribution are components of the state."""
    model = StateSpaceModel(
        initial=dist.Normal(jnp.zeros(3), 1.0),
        transition=lambda state, t: dist.Normal(state, jnp.arange(1.0, 4.0)),
        potential=lambda state, t: dist.Normal(state, 1.0).log_prob(Y[t] * jnp.ones(3)).sum(),
        num_steps=3,
    )
    states, weights = model.init(key, 6)
    assert states.shape == (6, 3) and weights.shape == (6,)
    _, _, log_probs = model.replay(states, states, 1)
    expected = dist.Normal(0.0, jnp.arange(1.0, 4.0)).log_prob(jnp.zeros(3)).sum()
    np.testing.assert_allclose(log_probs, jnp.full(6, expected), rtol=1e-6)


class Potential(eqx.Module):
    """A potential that holds its data."""

    y: jax.Array

    def __call__(self, state, t):
        return dist.Normal(state, 1.0).log_prob(self.y[t])


def test_new_data_of_the_same_shape_is_not_compiled_again(key):
    traces = []

    def transition(state, t):
        traces.append(t)
        return dist.Normal(state, 1.0)

    def model(y):
        return StateSpaceModel(dist.Normal(0.0, 1.0), transition, Potential(y), 3)

    algorithm = ParticleFilter(num_particles=10)
    keys = jax.random.split(key, 3)
    first = infer(keys[0], model(Y), algorithm)
    seen = len(traces)
    second = infer(keys[1], model(Y + 1), algorithm)
    assert len(traces) == seen
    assert first.log_evidence != second.log_evidence
    infer(keys[2], model(jnp.zeros(5)), algorithm)
    assert len(traces) > seen


@pytest.mark.parametrize("model", [walk(), sampled_walk()], ids=["distributions", "samplers"])
def test_keys_are_used_once(model, key, key_reuse):
    algorithm = ParticleFilter(num_particles=8)
    jax.jit(lambda key: infer(key, model, algorithm).log_evidence)(key)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transition": lambda state: state}, "transition must be a function"),
        ({"potential": lambda state: 0.0}, "potential must be a function"),
        ({"initial": lambda a, b: 0.0}, "initial must be a function"),
        ({"initial": 3.0}, "initial must be a function"),
    ],
)
def test_parts_of_another_signature(changes, message):
    with pytest.raises(TypeError, match=message):
        walk(**changes)


def test_negative_number_of_steps():
    model = walk()
    with pytest.raises(ValueError, match="num_steps"):
        StateSpaceModel(model.initial, model.transition, model.potential, -1)


@pytest.mark.slow
def test_potential_of_several_numbers(key):
    model = walk(potential=lambda state, t: dist.Normal(state, 1.0).log_prob(Y))
    with pytest.raises(ValueError, match="one number for each particle"):
        model.init(key, 3)
