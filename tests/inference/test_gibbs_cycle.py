"""Particle Gibbs over parameters and paths: their joint law, by Geweke's test and exactly."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from jurax.inference import HMC, RWMH, ConditionalFilter, ParticleGibbs, infer
from jurax.inference.parameter_update import ParameterUpdate
from jurax.inference.particle_gibbs import GibbsCycle
from jurax.ppl import StateSpaceModel, family
from tests.inference.test_mutations import plant
from tests.statistics import assert_mean

SLOPE, PRIOR, STEP, NOISE, LAST = 0.5, 1.0, 0.5, 3.0, 2  # the path is free to move in one sweep


def walks(y):
    """x_0 ~ N(theta, 1), x_t ~ N(SLOPE x_{t-1} + theta, STEP), y_t ~ N(x_t, NOISE)."""

    def at(values) -> StateSpaceModel:
        theta = values["theta"]
        return StateSpaceModel(
            initial=dist.Normal(theta, 1.0),
            transition=lambda x, t: dist.Normal(SLOPE * x + theta, STEP),
            potential=lambda x, t: dist.Normal(x, NOISE).log_prob(y[t]),
            num_steps=LAST,
        )

    return family(at, {"theta": dist.Normal(0.0, PRIOR)})


def second_moments() -> np.ndarray:
    """E[v v'] of v = (theta, x_0, ..., x_T, y_0, ..., y_T) in closed form."""
    rows = [np.array([PRIOR, *np.zeros(2 * LAST + 2)])]
    x = rows[0] + np.eye(2 * LAST + 3)[1]
    rows.append(x)
    for t in range(1, LAST + 1):
        x = SLOPE * x + rows[0] + STEP * np.eye(2 * LAST + 3)[1 + t]
        rows.append(x)
    rows += [rows[1 + t] + NOISE * np.eye(2 * LAST + 3)[2 + LAST + t] for t in range(LAST + 1)]
    root = np.stack([row[: 2 * LAST + 3] for row in rows])
    return root @ root.T


def conjugate(key, values, path, process):
    """Theta given the path is normal here."""
    del values, process
    innovations = jnp.concatenate([path[:1], path[1:] - SLOPE * path[:-1]])
    precisions = jnp.array([1.0, *[STEP**-2] * LAST])
    precision = PRIOR**-2 + precisions.sum()
    mean = (precisions * innovations).sum() / precision
    return {"theta": mean + jax.random.normal(key) / jnp.sqrt(precision)}


def geweke_draws(key, kernel=conjugate, num_chains: int = 400, num_sweeps: int = 100) -> np.ndarray:
    """Means over chains of v v', each chain started from the joint law: cycle, then redraw of y."""
    gibbs = ConditionalFilter(10, ess_threshold=0.9, ancestor_sampling="exact")

    def chain(key):
        key_start, key_noise, key_sweeps = jax.random.split(key, 3)
        y = jnp.zeros(LAST + 1)
        update = ParameterUpdate(walks(y), kernel, 0)
        state = GibbsCycle(walks(y), gibbs, update).init(key_start)
        theta, x = joint_draw(key_noise)
        state = eqx.tree_at(
            lambda s: (s.parameters.values["theta"], s.trajectory.path), state, (theta, x)
        )
        if state.parameters.tuning is not None:
            state = eqx.tree_at(lambda s: s.parameters.x, state, theta[None])

        def sweep(state, key):
            key_y, key_cycle = jax.random.split(key)
            y = state.trajectory.path + NOISE * jax.random.normal(key_y, (LAST + 1,))
            process = walks(y)
            update = ParameterUpdate(process, kernel, 0)
            theta = state.parameters.values["theta"]
            v = jnp.concatenate([theta[None], state.trajectory.path, y])
            state, _ = GibbsCycle(process, gibbs, update).step(key_cycle, state)
            return state, jnp.outer(v, v)

        _, moments = jax.lax.scan(sweep, state, jax.random.split(key_sweeps, num_sweeps))
        return jnp.mean(moments, axis=0)

    return np.asarray(jax.jit(jax.vmap(chain))(jax.random.split(key, num_chains)))


def joint_draw(key):
    """(theta, x) of the model."""
    noise = jax.random.normal(key, (LAST + 2,))
    theta = PRIOR * noise[0]
    x = [theta + noise[1]]
    for t in range(1, LAST + 1):
        x.append(SLOPE * x[-1] + theta + STEP * noise[1 + t])
    return theta, jnp.stack(x)


def test_cycle_of_parameters_and_path_has_the_joint_law(key) -> None:
    """Geweke 2004: moments and cross moments of (theta, x, y)."""
    assert_mean(geweke_draws(key), second_moments())


@pytest.mark.slow
def test_cycle_with_a_metropolis_step_has_the_joint_law(key) -> None:
    assert_mean(geweke_draws(key, RWMH(1.0)), second_moments())


def test_a_stale_parameter_breaks_the_joint_law(key, monkeypatch) -> None:
    plant(
        monkeypatch,
        GibbsCycle,
        "step",
        "self.process_at(parameters)",
        "self.process_at(state.parameters)",
    )
    with pytest.raises(AssertionError, match="differs"):
        assert_mean(geweke_draws(key), second_moments())


@pytest.mark.slow
def test_users_update_takes_the_place_of_a_kernel(key) -> None:
    y = jnp.array([1.0, 0.5, 2.0])
    gibbs = ParticleGibbs(10, 300, 20, 20, ancestor_sampling="exact", parameter_kernel=conjugate)
    posterior = infer(key, walks(y), gibbs)
    moments = second_moments()
    start = LAST + 2
    gain = moments[0, start:] @ np.linalg.inv(moments[start:, start:])
    draws = np.asarray(posterior.particles["theta"], np.float64)
    assert_mean(draws.mean(axis=1), gain @ np.asarray(y), resolution=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "resolution"), [(None, 0.05), (HMC(num_leapfrogs=3), 0.02)], ids=["default", "hmc"]
)
def test_gibbs_over_parameters_agrees_with_the_exact_posterior(kernel, resolution, key) -> None:
    """The random walk, the default, mixes more slowly: its check is blunter."""
    y = jnp.array([1.0, 0.5, 2.0])
    gibbs = ParticleGibbs(10, 2000, 300, 50, ancestor_sampling="exact", parameter_kernel=kernel)
    posterior = infer(key, walks(y), gibbs)
    moments, start = second_moments(), LAST + 2
    gain = moments[:start, start:] @ np.linalg.inv(moments[start:, start:])
    exact = gain @ np.asarray(y)
    theta = np.asarray(posterior.particles["theta"], np.float64).mean(axis=1)
    paths = np.asarray(posterior.trajectories(), np.float64).reshape(50, 2000, -1).mean(axis=1)
    assert_mean(np.column_stack([theta, paths]), exact, resolution=resolution)
