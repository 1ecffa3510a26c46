"""Kalman recursions against the dense joint normal law, and against the generator."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jurax.models.state_space import LinearGaussian
from jurax.ppl import sequential
from tests.statistics import assert_mean


def general_model(key, num_steps=4, num_states=3, num_observed=2):
    """A model without any special structure."""
    keys = jax.random.split(key, 7)
    d, p = num_states, num_observed

    def covariance(key, size):
        factor = jax.random.normal(key, (size, size)) / 2
        return factor @ factor.T + 0.3 * jnp.eye(size)

    return LinearGaussian(
        observations=jax.random.normal(keys[0], (num_steps, p)),
        transition_matrix=jax.random.normal(keys[1], (d, d)) / 2,
        transition_covariance=covariance(keys[2], d),
        observation_matrix=jax.random.normal(keys[3], (p, d)),
        observation_covariance=covariance(keys[4], p),
        initial_mean=jax.random.normal(keys[5], (d,)),
        initial_covariance=covariance(keys[6], d),
    )


def dense_posterior(model, num_observed_steps=None):
    """Moments of (x_0, ..., x_T) given y by conditioning one big normal law; log p(y)."""
    a, q, c, r, m, p = map(
        np.asarray,
        (
            model.transition_matrix,
            model.transition_covariance,
            model.observation_matrix,
            model.observation_covariance,
            model.initial_mean,
            model.initial_covariance,
        ),
    )
    steps, d = model.num_steps, len(m)
    means, cov = [m], np.zeros((steps + 1, steps + 1, d, d))
    cov[0, 0] = p
    for t in range(1, steps + 1):
        means.append(a @ means[-1])
        for s in range(t):
            cov[t, s] = a @ cov[t - 1, s]
            cov[s, t] = cov[t, s].T
        cov[t, t] = a @ cov[t - 1, t - 1] @ a.T + q
    prior_mean = np.concatenate(means)
    prior_cov = cov.transpose(0, 2, 1, 3).reshape((steps + 1) * d, -1)
    y = np.asarray(model.observations)
    seen = [t for t in range(steps if num_observed_steps is None else num_observed_steps)]
    seen = [t for t in seen if not np.isnan(y[t]).all()]
    design = np.zeros((len(seen), len(r), steps + 1, d))
    for row, t in enumerate(seen):
        design[row, :, t + 1] = c
    design = design.reshape(len(seen) * len(r), (steps + 1) * d)
    noise = np.kron(np.eye(len(seen)), r)
    predicted = design @ prior_cov @ design.T + noise
    residual = y[seen].reshape(-1) - design @ prior_mean
    gain = prior_cov @ design.T @ np.linalg.inv(predicted)
    _, log_det = np.linalg.slogdet(2 * np.pi * predicted)
    log_evidence = -0.5 * (residual @ np.linalg.solve(predicted, residual) + log_det)
    mean = (prior_mean + gain @ residual).reshape(steps + 1, d)
    covariance = (prior_cov - gain @ design @ prior_cov).reshape(steps + 1, d, steps + 1, d)
    return mean, covariance.transpose(0, 2, 1, 3), log_evidence


@pytest.mark.parametrize("missing", [(), (1,), (0, 3)])
def test_kalman_equals_the_joint_normal_law(missing, x64, key):
    model = general_model(key)
    for t in missing:
        model = eqx.tree_at(lambda m: m.observations, model, model.observations.at[t].set(jnp.nan))
    filtered, smoothed = model.filtered(), model.smoothed()
    mean, covariance, log_evidence = dense_posterior(model)
    np.testing.assert_allclose(filtered.log_evidence, log_evidence, rtol=1e-10)
    np.testing.assert_allclose(smoothed.means, mean, atol=1e-10)
    for t in range(5):
        np.testing.assert_allclose(smoothed.covariances[t], covariance[t, t], atol=1e-10)
    for t in range(4):
        np.testing.assert_allclose(smoothed.cross_covariances[t], covariance[t + 1, t], atol=1e-10)
    for t in range(5):
        mean, covariance, _ = dense_posterior(model, num_observed_steps=t)
        np.testing.assert_allclose(filtered.means[t], mean[t], atol=1e-10)
        np.testing.assert_allclose(filtered.covariances[t], covariance[t, t], atol=1e-10)


def test_generator_has_the_law_of_the_model(key):
    """Variances of y_T and products of two times, over many series."""
    keys = jax.random.split(key, 4000)
    simulate = jax.vmap(
        lambda k: LinearGaussian.simulate(k, num_steps=3, num_states=2).observations
    )
    y = np.asarray(simulate(keys))
    model = LinearGaussian.simulate(keys[0], num_steps=3, num_states=2)
    a = np.asarray(model.transition_matrix, float)
    covs = [np.eye(2)]
    for _ in range(3):
        covs.append(a @ covs[-1] @ a.T + np.eye(2))
    assert_mean(y[:, 2, :, None] * y[:, 2, None, :], covs[3] + np.eye(2))
    assert_mean(y[:, 2, :, None] * y[:, 1, None, :], a @ covs[2])


@pytest.mark.slow
def test_process_and_program_have_the_densities_of_the_model(x64, key):
    model = general_model(key)
    mean, covariance, _ = dense_posterior(model, num_observed_steps=0)
    joint = np.random.default_rng(0).multivariate_normal(
        mean.reshape(-1), covariance.transpose(0, 2, 1, 3).reshape(15, 15), size=6
    )
    states = jnp.asarray(joint.reshape(6, 5, 3))

    @eqx.filter_jit
    def densities(process, records):
        """Log joint density of x_{0:T} and y, move by move."""
        replay = process.replay
        particles, weights, log_probs = replay(None, jax.tree.map(lambda x: x[:, 0], records), 0)

        def step(particles, t):
            record = jax.tree.map(lambda x: x[:, t], records)
            particles, increments, log_probs = replay(particles, record, t)
            return particles, increments + log_probs

        _, terms = jax.lax.scan(step, particles, jnp.arange(1, 5))
        return weights + log_probs + terms.sum(0)

    density = densities(model, states)
    np.testing.assert_allclose(densities(sequential(model.program()), {"x": states}), density)
    program = model.program()
    expected = [program.log_density({"x_0": row[0], "x": row[1:]}) for row in states]
    np.testing.assert_allclose(density, expected, rtol=1e-10)
