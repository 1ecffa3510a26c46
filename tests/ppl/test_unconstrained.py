"""The unconstrained view: densities by hand and against numpyro, inverses, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import Array
from numpyro.contrib.control_flow import scan
from numpyro.infer.util import potential_energy

from jurax.ppl import Unconstrained, bind, sequential


def walk(y):
    """Bounded, ordered on another site, simplex-valued; positive sites inside the scan."""
    top = numpyro.sample("top", dist.Uniform(0.0, 2.0))
    numpyro.sample("mix", dist.Dirichlet(jnp.ones(3)))
    above = numpyro.sample("above", dist.Uniform(top, 5.0))
    x_0 = numpyro.sample("x_0", dist.Normal(0.0, above))

    def step(x, y_t):
        spread = numpyro.sample("spread", dist.HalfNormal(top))
        x = numpyro.sample("x", dist.Normal(x, spread))
        numpyro.deterministic("twice", 2 * x)
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y_t)
        return x, None

    scan(step, x_0, y)


def view() -> Unconstrained:
    return Unconstrained.of(bind(walk, jnp.array([0.3, jnp.nan, 0.4])))


def test_density_by_hand() -> None:
    def model(y):
        rate = numpyro.sample("rate", dist.Exponential(2.0))
        chance = numpyro.sample("chance", dist.Uniform(0.0, 4.0))
        numpyro.sample("y", dist.Normal(chance, rate), obs=y)
        numpyro.factor("penalty", -0.7)

    flat = Unconstrained.of(bind(model, jnp.array(1.5)))
    assert flat.names == ("rate", "chance") and flat.dim == 2
    x = jnp.array([0.4, -0.3])
    rate, share = np.exp(0.4), 1 / (1 + np.exp(0.3))
    parts = flat.evaluate(x)
    np.testing.assert_allclose(parts.latent["rate"], rate, rtol=1e-6)
    np.testing.assert_allclose(parts.latent["chance"], 4 * share, rtol=1e-6)
    np.testing.assert_allclose(parts.log_prior, np.log(2) - 2 * rate - np.log(4), rtol=1e-5)
    # d exp(x)/dx = exp(x); d 4 expit(x)/dx = 4 s (1 - s)
    jacobian = 0.4 + np.log(4 * share * (1 - share))
    np.testing.assert_allclose(parts.log_jacobian, jacobian, rtol=1e-5)
    z = (1.5 - 4 * share) / rate
    likelihood = -0.5 * z**2 - np.log(rate) - 0.5 * np.log(2 * np.pi) - 0.7
    np.testing.assert_allclose(parts.log_likelihood, likelihood, rtol=1e-5)
    np.testing.assert_allclose(
        flat.log_density(x), flat.log_prior(x) + flat.log_likelihood(x), rtol=1e-5
    )


def test_density_of_a_scan_program_is_numpyros(key: Array) -> None:
    flat = view()
    x = jax.random.normal(key, (flat.dim,))
    free, start = {}, 0
    for site in flat.coordinates:
        free[site.name] = x[start : start + site.size].reshape(site.free)
        start += site.size
    assert flat.dim == 1 + 2 + 1 + 1 + 3 + 3
    np.testing.assert_allclose(
        flat.log_density(x), -potential_energy(flat.source, (), {}, free), rtol=1e-5
    )
    values = flat.constrain(x)
    np.testing.assert_allclose(
        flat.source.log_density(values) + flat.log_jacobian(x), flat.log_density(x), rtol=1e-5
    )
    assert flat.evaluate(x).deterministic["twice"].shape == (3,)
    terms = flat.log_likelihood_terms(x)
    assert terms["y"].shape == (3,) and float(terms["y"][1]) == 0  # the second is missing
    np.testing.assert_allclose(sum(terms["y"]), flat.log_likelihood(x), rtol=1e-5)


def test_flatten_inverts_constrain_and_draws_lie_in_the_support(key: Array) -> None:
    flat = view()
    x = jax.jit(lambda k: flat.draw(k))(key)
    values = flat.constrain(x)
    np.testing.assert_allclose(flat.flatten(values), x, atol=1e-4)
    assert 0 < float(values["top"]) < float(values["above"]) < 5
    np.testing.assert_allclose(float(values["mix"].sum()), 1.0, rtol=1e-5)
    assert bool(jnp.all(values["spread"] > 0))


def test_values_on_the_edge_stay_finite() -> None:
    flat = Unconstrained.of(bind(lambda: numpyro.sample("p", dist.Beta(0.1, 0.1))))
    for value in (0.0, 1.0):
        x = flat.flatten({"p": jnp.array(value)})
        assert bool(jnp.isfinite(x).all())
        np.testing.assert_allclose(flat.constrain(x)["p"], value, atol=1e-6)


def test_parameters_of_a_process(key: Array) -> None:
    process = sequential(walk, jnp.zeros(3))
    flat = Unconstrained.of_parameters(process)
    assert flat.names == ("top", "mix", "above")
    x = flat.draw(key)
    values = flat.constrain(x)
    expected = process.log_prior(values) + flat.log_jacobian(x)
    np.testing.assert_allclose(flat.log_density(x), expected, rtol=1e-5)
    np.testing.assert_allclose(flat.flatten(values), x, atol=1e-5)


def test_new_data_need_no_compilation(key: Array) -> None:
    traces = []

    @jax.jit
    def density(flat: Unconstrained, x: Array) -> Array:
        traces.append(1)
        return jax.vmap(jax.grad(flat.log_density))(x)

    x = jax.random.normal(key, (4, 11))
    for scale in (1.0, 2.0):
        density(Unconstrained.of(bind(walk, scale * jnp.ones(3))), x)
    assert len(traces) == 1


@pytest.mark.parametrize(
    "law, message",
    [
        (dist.Poisson(3.0), "site 'k' is discrete"),
        (dist.ImproperUniform(dist.constraints.real, (), ()), "site 'k' has an improper prior"),
    ],
)
def test_sites_without_coordinates_are_refused_by_name(law, message: str) -> None:
    def model():
        numpyro.sample("k", law)

    with pytest.raises(ValueError, match=message):
        Unconstrained.of(bind(model))


def test_misuse_is_refused() -> None:
    def fixed(y):
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    program = bind(fixed, jnp.array(0.3))
    with pytest.raises(ValueError, match="no latent site left"):
        Unconstrained.of(program.at({"mean": jnp.array(0.0)}))
    with pytest.raises(ValueError, match="absent: \\['mean'\\]"):
        Unconstrained.of(program).flatten({})
    with pytest.raises(ValueError, match="expected a vector of 1"):
        Unconstrained.of(program).log_density(jnp.zeros(2))
    with pytest.raises(TypeError, match="built by jurax.ppl.sequential"):
        Unconstrained.of_parameters(program)
