"""Bad input, one line each: run with the right answer, reported, or refused by name.

Programs that are no process (no scan, two scans, a site after the scan) are refused in
`tests/ppl/test_sequential.py`, kernels that miss `replay` in `test_particle_mcmc.py`,
`test_smoother.py` and below.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import Array

from jurax.inference import (
    HMC,
    IBIS,
    MCMC,
    PIMH,
    RWMH,
    AuxiliaryFilter,
    Independence,
    Islands,
    ParallelTempering,
    ParticleFilter,
    ParticleGibbs,
    Smoother,
    TemperedSMC,
    backward,
    infer,
)
from jurax.models.state_space import LinearGaussian
from jurax.ppl import StateSpaceModel, bind
from tests.statistics import assert_mean

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def walk(num_steps: int, fault: float = 0.0) -> StateSpaceModel:
    """A random walk whose potential at time 2 is `fault` (in logs)."""
    return StateSpaceModel(
        initial=dist.Normal(0.0, 1.0),
        transition=lambda x, t: dist.Normal(x, 1.0),
        potential=lambda x, t: jnp.where(t == 2, fault, -0.5 * x**2),
        num_steps=num_steps,
    )


ALGORITHMS = {
    "filter": ParticleFilter(4),
    "auxiliary": AuxiliaryFilter(4, lambda x, t: 0.0 * x),
    "islands": Islands(2, ParticleFilter(3)),
    "fixed lag": Smoother(4, method="fixed_lag", lag=1),
    "backward": Smoother(4, method="backward"),
    "gibbs": ParticleGibbs(4, 3, ancestor_sampling="metropolis"),
    "pimh": PIMH(ParticleFilter(4), 3),
    "tempering": ParallelTempering(Independence(), 3, betas=(0.0, 1.0)),
}
QUICK = ("filter", "gibbs")
each_algorithm = pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in ALGORITHMS]
)


@each_algorithm
def test_no_step_at_all(name: str, key: Array) -> None:
    """T = 0: particles are x_0, weighted by G_0."""
    posterior = infer(key, walk(0), ALGORITHMS[name])
    assert posterior.status == "ok"
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(posterior.particles))


@each_algorithm
def test_data_that_make_a_potential_nan_are_refused(name: str, key: Array) -> None:
    with pytest.raises(ValueError, match="a potential .reward. was NaN or .inf.*throw=False"):
        infer(key, walk(3, np.nan), ALGORITHMS[name])


@each_algorithm
def test_weights_of_zero_for_all_are_reported(name: str, key: Array) -> None:
    """All weights -inf at step 2: a status or an evidence of 0, and no NaN."""
    posterior = infer(key, walk(3, -np.inf), ALGORITHMS[name])
    assert "dead" in posterior.status
    assert not any(np.isnan(x).any() for x in jax.tree.leaves(posterior.particles))


@pytest.mark.parametrize(
    "algorithm",
    [
        ParticleFilter(1),
        pytest.param(Islands(1, ParticleFilter(1)), marks=pytest.mark.slow),
        pytest.param(ParticleGibbs(1, 3), marks=pytest.mark.slow),
    ],
)
def test_a_single_particle_runs(algorithm, key: Array) -> None:
    posterior = infer(key, walk(3), algorithm)
    assert posterior.status == "ok"
    if isinstance(algorithm, ParticleGibbs):  # the pinned path is alone: it never moves
        assert np.ptp(np.asarray(posterior.trajectories()), axis=0).max() == 0


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (2.0, 5.0)])
def test_parameters_of_bounded_support_under_a_random_walk(bounds, key: Array) -> None:
    """RWMH moves on R^D: all draws lie inside; uniform prior, no data, so the mean is known."""
    low, high = bounds

    def program():
        numpyro.sample("x", dist.Uniform(low, high))

    algorithm = MCMC(RWMH(), num_samples=500, num_warmup=300, num_chains=64)
    draws = np.asarray(infer(key, bind(program), algorithm).particles["x"], np.float64)
    assert low < draws.min() and draws.max() < high
    assert_mean(draws.mean(axis=1), (low + high) / 2, resolution=0.02 * (high - low))
    assert_mean((draws < low + 0.1 * (high - low)).mean(axis=1), 0.1, resolution=0.02)


def regression(y):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def factored(y):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    numpyro.factor("fit", -0.5 * jnp.sum((y - mean) ** 2))


@pytest.mark.parametrize(
    "algorithm",
    [
        MCMC(HMC(num_leapfrogs=2), 5, 5, 2),
        pytest.param(TemperedSMC(8, RWMH(), 1), marks=pytest.mark.slow),
    ],
)
def test_a_density_that_is_nan_everywhere_is_refused(algorithm, key: Array) -> None:
    with pytest.raises(ValueError, match="NaN"):
        infer(key, bind(factored, jnp.array([1.0, jnp.nan])), algorithm)


@pytest.mark.slow
def test_missing_observations_weigh_one_in_data_tempering(key: Array) -> None:
    """A row that is NaN is missing: the evidence is that of the other rows."""
    y = jnp.array([1.0, jnp.nan, 3.0])
    posterior = infer(key, bind(regression, y), IBIS(4000))
    exact = dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2) + 1.0).log_prob(y[::2])
    assert abs(float(posterior.log_evidence - exact)) < 0.3


@pytest.mark.parametrize(
    "algorithm", [Smoother(4, method="backward"), ParticleGibbs(4, 3, ancestor_sampling="exact")]
)
def test_a_process_without_replay_is_told_what_to_define(algorithm, key: Array) -> None:
    process = StateSpaceModel(
        initial=lambda key: jax.random.normal(key),
        transition=lambda key, x, t: x + jax.random.normal(key),
        potential=lambda x, t: -0.5 * x**2,
        num_steps=3,
    )
    with pytest.raises(NotImplementedError, match="replay"):
        infer(key, process, algorithm)


def test_a_move_without_a_density_is_never_chosen_backwards(key: Array) -> None:
    """inf - inf in `replay` is NaN, which a categorical draw takes before all others."""
    model = LinearGaussian.simulate(key, num_steps=2)

    class Faulty(LinearGaussian):
        def replay(self, particles, record, t):
            moved, log_increments, log_probs = super().replay(particles, record, t)
            return moved, log_increments, log_probs.at[0].set(jnp.nan)

    faulty = object.__new__(Faulty)
    for name, value in vars(model).items():
        object.__setattr__(faulty, name, value)
    particles, _ = model.init(jax.random.key(1), 3)
    density = backward.log_density(particles, particles, jnp.int32(0), faulty)
    assert bool(jnp.isneginf(density[0])) and bool(jnp.all(jnp.isfinite(density[1:])))
