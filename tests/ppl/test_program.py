"""Bound programs: sites, densities, fixed sites, missing observations."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.infer.util import log_density

from jurax.ppl import Program, bind


def regression(x, y, scale=1.0):
    slope = numpyro.sample("slope", dist.Normal(0.0, 2.0))
    noise = numpyro.sample("noise", dist.HalfNormal(scale))
    numpyro.deterministic("double", 2 * slope)
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Normal(slope * x, noise), obs=y)


def walk(y):
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    x_0 = numpyro.sample("x_0", dist.Normal(0.0, 1.0))

    def step(x, y_t):
        x = numpyro.sample("x", dist.Normal(x, 1.0))
        numpyro.sample("y", dist.Normal(x, noise), obs=y_t)
        return x, None

    scan(step, x_0, y)


X, Y = jnp.array([0.0, 1.0, 2.0]), jnp.array([0.1, 0.9, 2.2])
VALUES = {"slope": jnp.array(0.7), "noise": jnp.array(0.4)}


def test_sites():
    sites = bind(regression, X, Y, scale=2.0).sites()
    roles = {name: site.role for name, site in sites.items()}
    assert roles == {
        "slope": "latent",
        "noise": "latent",
        "double": "deterministic",
        "y": "observed",
    }
    assert sites["y"].shape == (3,)
    stacked = bind(walk, Y).sites()
    assert stacked["x"].shape == (3,) and stacked["x_0"].shape == ()


def test_log_density_is_that_of_numpyro():
    program = bind(regression, X, Y, scale=2.0)
    expected, _ = log_density(regression, (X, Y), {"scale": 2.0}, VALUES)
    np.testing.assert_allclose(program.log_density(VALUES), expected, rtol=1e-6)
    values = {"noise": jnp.array(0.5), "x_0": jnp.array(0.1), "x": Y + 0.1}
    expected, _ = log_density(walk, (Y,), {}, values)
    np.testing.assert_allclose(bind(walk, Y).log_density(values), expected, rtol=1e-6)


def test_log_density_names_absent_sites():
    with pytest.raises(ValueError, match="noise"):
        bind(regression, X, Y).log_density({"slope": 1.0})


def test_fixed_sites_add_no_density():
    program = bind(regression, X, Y)
    fixed = program.at({"noise": 0.4})
    prior = dist.HalfNormal(1.0).log_prob(0.4)
    np.testing.assert_allclose(
        fixed.log_density({"slope": VALUES["slope"]}),
        program.log_density(VALUES) - prior,
        rtol=1e-6,
    )
    assert "noise" not in fixed.sites()
    assert "noise" in fixed.target


@pytest.mark.parametrize(
    ("values", "message"),
    [({"nose": 1.0}, "nose"), ({"noise": jnp.ones(2)}, "shape"), ({"y": Y}, "not latent sites")],
)
def test_values_of_wrong_sites(values, message):
    with pytest.raises(ValueError, match=message):
        bind(regression, X, Y).at(values)


def test_missing_observations_weigh_one():
    """Leaving out a row and making it NaN is the same."""
    y = Y.at[1].set(jnp.nan)
    kept = jnp.array([0, 2])
    np.testing.assert_allclose(
        bind(regression, X, y).log_density(VALUES),
        bind(regression, X[kept], Y[kept]).log_density(VALUES),
        rtol=1e-6,
    )


def test_missing_observations_leave_gradients_finite():
    program = bind(regression, X, Y.at[1].set(jnp.nan))
    gradient = jax.grad(program.log_density)(VALUES)
    assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(gradient))


def vector_observation(y):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.MultivariateNormal(mean * jnp.ones(2), jnp.eye(2)), obs=y)


def test_events_that_are_missing_in_part_are_not_hidden():
    prior = dist.Normal(0.0, 1.0).log_prob(0.5)
    whole = bind(vector_observation, jnp.full(2, jnp.nan)).log_density({"mean": jnp.array(0.5)})
    np.testing.assert_allclose(whole, prior, rtol=1e-6)
    part = bind(vector_observation, jnp.array([0.0, jnp.nan]))
    assert not jnp.isfinite(
        jax.jit(lambda values: part.log_density(values))({"mean": jnp.array(0.5)})
    )


def test_nuts_reads_a_program(key):
    """The bound program is a NumPyro model: whole-trace algorithms take it as it is."""
    kernel = numpyro.infer.NUTS(bind(regression, X, Y.at[1].set(jnp.nan)))
    mcmc = numpyro.infer.MCMC(kernel, num_warmup=20, num_samples=20, progress_bar=False)
    mcmc.run(key)
    assert np.all(np.isfinite(mcmc.get_samples()["slope"]))


def test_arrays_are_dynamic_and_settings_static():
    program = bind(regression, X, np.asarray(Y, np.float64), scale=2.0)
    leaves, structure = jax.tree.flatten(program)
    assert len(leaves) == 2
    assert structure == jax.tree.structure(bind(regression, X + 1, Y, scale=2.0))
    assert structure != jax.tree.structure(bind(regression, X, Y, scale=3.0))
    assert isinstance(program, Program)
    assert program.kwargs == {"scale": 2.0}


def test_model_must_be_callable():
    with pytest.raises(TypeError, match="(?i)callable"):
        bind(3)
