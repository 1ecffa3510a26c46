"""Tempered SMC against conjugate answers: evidence, moments, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import Array

from jurax.inference import HMC, MALA, RWMH, TemperedSMC, infer
from jurax.ppl import bind
from tests.statistics import assert_mean, assert_unbiased_evidence

Y = jnp.array([1.0, 2.0, 5.0, 6.0, 4.0])


def normal_mean(y):
    """y_i ~ N(m, 1), m ~ N(0, 1): m | y ~ N(sum y / (n + 1), 1 / (n + 1))."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def exact_log_evidence(y: Array) -> float:
    n = len(y)
    return float(dist.MultivariateNormal(jnp.zeros(n), jnp.eye(n) + 1.0).log_prob(y))


ALGORITHMS = {
    "rwmh": TemperedSMC(500, move=RWMH()),
    "hmc": TemperedSMC(500, move=HMC(num_leapfrogs=3), num_moves=2),
    "mala": TemperedSMC(500, move=MALA()),
    "cycle": TemperedSMC(500, move=RWMH() >> HMC(num_leapfrogs=2), num_moves=2, dense=False),
    "waste-free": TemperedSMC(500, move=RWMH(), num_moves=11, waste_free=True),
    "ladder": TemperedSMC(500, move=RWMH(), ladder=(0.05, 0.2, 0.5, 1.0)),
}
QUICK = ("rwmh",)
each_algorithm = pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in ALGORITHMS]
)


@pytest.mark.slow
@each_algorithm
def test_evidence_and_moments_of_a_conjugate_normal(name: str, key: Array) -> None:
    algorithm, program = ALGORITHMS[name], bind(normal_mean, Y)
    run = jax.jit(jax.vmap(lambda k: infer(k, program, algorithm)))
    posterior = run(jax.random.split(key, 200))
    assert_unbiased_evidence(posterior.log_evidence, exact_log_evidence(Y))
    mean = np.asarray(posterior.particles["mean"], np.float64)
    assert_mean(mean.mean(axis=1), 3.0, resolution=0.02)
    assert_mean(((mean - 3) ** 2).mean(axis=1), 1 / 6, resolution=0.01)
    stages = np.asarray(posterior.info["num_steps"])
    assert stages.min() >= 3 and (posterior.log_weights == 0).all()
    beta = np.asarray(posterior.info["beta"])[0, : stages[0]]
    assert beta[-1] == 1 and (np.diff(beta) > 0).all()


@pytest.mark.slow
def test_evidence_of_a_bounded_parameter(key: Array) -> None:
    """Beta(2, 3) prior, 7 of 10: p(y) = C(10, 7) B(9, 6) / B(2, 3)."""
    from scipy.special import betaln, comb

    def coin(successes):
        chance = numpyro.sample("chance", dist.Beta(2.0, 3.0))
        numpyro.sample("successes", dist.Binomial(10, chance), obs=successes)

    program = bind(coin, jnp.array(7.0))
    run = jax.jit(jax.vmap(lambda k: infer(k, program, ALGORITHMS["rwmh"])))
    posterior = run(jax.random.split(key, 200))
    exact = np.log(comb(10, 7)) + betaln(9, 6) - betaln(2, 3)
    assert_unbiased_evidence(posterior.log_evidence, exact)
    assert_mean(posterior.particles["chance"].mean(axis=1), 0.6, resolution=0.01)


@pytest.mark.slow
def test_logistic_regression_against_quadrature(key: Array) -> None:
    x = jnp.array([-1.0, -0.5, 0.3, 0.8, 1.5])
    y = jnp.array([0, 1, 0, 1, 1])

    def model(x, y):
        b = numpyro.sample("b", dist.Normal(0.0, 2.0).expand([2]))
        numpyro.sample("y", dist.Bernoulli(logits=b[0] + b[1] * x), obs=y)

    grid = np.linspace(-12, 12, 601)
    b0, b1 = np.meshgrid(grid, grid, indexing="ij")
    logits = b0[..., None] + b1[..., None] * np.asarray(x)
    log_likelihood = (np.asarray(y) * logits - np.logaddexp(0, logits)).sum(-1)
    mass = np.exp(log_likelihood - (b0**2 + b1**2) / 8) / (8 * np.pi) * (grid[1] - grid[0]) ** 2
    program = bind(model, x, y)
    run = jax.jit(jax.vmap(lambda k: infer(k, program, ALGORITHMS["hmc"])))
    posterior = run(jax.random.split(key, 100))
    assert_unbiased_evidence(posterior.log_evidence, np.log(mass.sum()))
    slope = (mass * b1).sum() / mass.sum()
    assert_mean(posterior.particles["b"][..., 1].mean(axis=1), slope, resolution=0.03)


def test_bad_data_are_reported(key: Array) -> None:
    """Impossible: dead; a factor of NaN: invalid; NaN in whole events: missing, weight 1."""
    algorithm = TemperedSMC(4, move=RWMH(), num_moves=1, max_stages=3)

    def model(y):
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mean * jnp.ones(2), 1.0).to_event(1), obs=y)
        gate = jnp.where(y[0] > 100, -jnp.inf, jnp.where(y[0] < -100, jnp.nan, 0.0))
        numpyro.factor("gate", gate)

    dead = infer(key, bind(model, jnp.array([101.0, 0.0])), algorithm)
    assert dead.status.startswith("dead") and float(dead.log_evidence) == -np.inf
    in_part = infer(key, bind(model, jnp.array([jnp.nan, 0.0])), algorithm)
    assert in_part.status.startswith("dead")
    not_a_number = bind(model, jnp.array([-jnp.inf, 0.0]))
    with pytest.raises(ValueError, match="NaN or \\+inf"):
        infer(key, not_a_number, algorithm)
    assert infer(key, not_a_number, algorithm, throw=False).status.startswith("invalid")
    missing = infer(key, bind(model, jnp.full(2, jnp.nan)), algorithm)
    assert float(missing.log_evidence) == 0 and int(missing.info["num_steps"]) == 1


@pytest.mark.slow
def test_one_particle_and_one_step_at_a_time(key: Array, tmp_path) -> None:
    algorithm = TemperedSMC(1, move=RWMH(), num_moves=1)
    posterior = infer(key, bind(normal_mean, Y), algorithm)
    assert posterior.particles["mean"].shape == (1,) and np.isfinite(posterior.log_evidence)
    stepped = infer(key, bind(normal_mean, Y), algorithm, checkpoint=tmp_path / "run.npz")
    np.testing.assert_array_equal(stepped.particles["mean"], posterior.particles["mean"])
    with pytest.raises(ValueError, match="num_particles must be at least 1, got 0"):
        infer(key, bind(normal_mean, Y), TemperedSMC(0))
