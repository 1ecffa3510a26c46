"""Chains on programs: MCMC, NUTS and SVI against exact answers; posteriors of chains; refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import Array

from jurax.inference import HMC, MALA, MCMC, NUTS, RWMH, SVI, ParticleFilter, infer, mixture
from jurax.inference.mcmc.tuning import Tuner, add_rows, schedule
from jurax.ppl import Posterior, bind
from tests.statistics import assert_mean

SUCCESSES, TRIALS = 7, 10


def coin(successes):
    """Beta(2, 3) prior, bounded support: posterior Beta(2 + 7, 3 + 3)."""
    chance = numpyro.sample("chance", dist.Beta(2.0, 3.0))
    numpyro.deterministic("odds", chance / (1 - chance))
    numpyro.sample("successes", dist.Binomial(TRIALS, chance), obs=successes)


def program(successes: float = SUCCESSES):
    return bind(coin, jnp.array(successes))


ALGORITHMS = {
    "rwmh": MCMC(RWMH(), num_samples=400, num_warmup=300, num_chains=64),
    "mala": MCMC(MALA(), num_samples=200, num_warmup=300, num_chains=64),
    "hmc": MCMC(HMC(num_leapfrogs=3), num_samples=100, num_warmup=300, num_chains=64),
    "hmc, dense": MCMC(
        HMC(num_leapfrogs=3), num_samples=100, num_warmup=300, num_chains=64, dense=True
    ),
    "cycle": MCMC(RWMH() >> HMC(num_leapfrogs=2), 100, num_warmup=300, num_chains=64),
    "mixture": MCMC(mixture([RWMH(), MALA()], [0.3, 0.7]), 200, num_warmup=300, num_chains=64),
    "given step": MCMC(RWMH(step_size=1.3), num_samples=400, num_warmup=0, num_chains=64),
    "nuts": NUTS(num_samples=100, num_warmup=200, num_chains=64),
}
QUICK = ("rwmh", "nuts")
each_algorithm = pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in ALGORITHMS]
)


@pytest.mark.slow
@each_algorithm
def test_moments_of_a_bounded_parameter(name: str, key: Array) -> None:
    """Beta(9, 6): mean 3/5, second moment 9 10 / (15 16); means of independent chains."""
    posterior = infer(key, program(), ALGORITHMS[name])
    chance = np.asarray(posterior.particles["chance"], np.float64)
    assert chance.shape == posterior.log_weights.shape == posterior.info["acceptance"].shape[:2]
    assert chance.min() > 0 and chance.max() < 1
    # The first draws of chains without warm-up are not yet stationary.
    chance = chance[:, chance.shape[1] // 2 :]
    assert_mean(chance.mean(axis=1), 0.6, resolution=0.01)
    assert_mean((chance**2).mean(axis=1), 90 / 240, resolution=0.01)
    share = posterior.particles["chance"]
    np.testing.assert_allclose(posterior.particles["odds"], share / (1 - share), rtol=1e-5)
    assert np.isnan(posterior.log_evidence) and posterior.status == "ok"
    assert not bool(jnp.any(jnp.isnan(posterior.info["step_size"])))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rwmh", "mala", "hmc"])
def test_warm_up_reaches_the_acceptance_it_aims_at(name: str, key: Array) -> None:
    posterior = infer(key, program(), ALGORITHMS[name])
    kernel = ALGORITHMS[name].kernel
    aimed = kernel.target_acceptance[0]
    reached = float(posterior.info["acceptance"].mean())
    capped = np.allclose(posterior.info["step_size"], kernel.largest_step_sizes()[0])
    assert abs(reached - aimed) < 0.08 or (capped and reached > aimed)


def test_one_compilation_for_each_shape(key: Array) -> None:
    """New data of the same shapes run at once, for NUTS too: `MCMC.run` of numpyro traces again."""
    traces = []

    def model(y):
        traces.append(1)
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    algorithm = MCMC(RWMH(), num_samples=3, num_warmup=3, num_chains=2)
    infer(key, bind(model, jnp.zeros(2)), algorithm)
    first = len(traces)
    infer(jax.random.fold_in(key, 1), bind(model, jnp.ones(2)), algorithm)
    assert len(traces) == first


@pytest.mark.slow
def test_posteriors_of_chains(key: Array, tmp_path) -> None:
    algorithm = MCMC(RWMH() >> RWMH(), num_samples=50, num_warmup=20, num_chains=3)
    run = jax.jit(jax.vmap(lambda k: infer(k, program(), algorithm)))
    packed = run(jax.random.split(key, 2))
    posterior = packed[1]
    assert len(packed) == 2 and packed.expectation(lambda x: x["chance"]).shape == (2,)
    assert posterior.num_chains == 3 and "3 chains of 50 draws" in repr(posterior)
    assert posterior.info["acceptance"].shape == (3, 50, 2)
    assert posterior.info["step_size"].shape == (3, 2)
    chance = posterior.particles["chance"]
    np.testing.assert_allclose(
        posterior.expectation(lambda x: x["chance"]), chance.mean(), rtol=1e-5
    )
    np.testing.assert_allclose(posterior.normalized(), np.full((3, 50), 1 / 150), rtol=1e-5)
    law = posterior.distribution(lambda x: bool(x["chance"] > 0.6))
    np.testing.assert_allclose(law.probabilities.sum(), 1.0, rtol=1e-6)
    assert posterior.sample(key, 7)["chance"].shape == (7,)
    assert "3 chains" in posterior._repr_html_()
    data = posterior.to_arviz()
    np.testing.assert_array_equal(data.posterior["chance"], chance)
    assert "diverging" in data.sample_stats
    posterior.save(tmp_path / "chains.npz")
    again = Posterior.load(tmp_path / "chains.npz")
    np.testing.assert_array_equal(again.particles["chance"], chance)


def test_errors_of_correlated_draws_grow_by_hand() -> None:
    """Two values in two long blocks: batches as long as the blocks see half the draws agree."""
    from tests.ppl.test_posterior import posterior_of

    values = np.repeat([[0, 1, 0, 1, 0, 1, 0, 1]], 4, axis=1).reshape(1, -1)
    values = np.sort(values.reshape(8, 4), axis=0).reshape(1, 32)  # 16 zeros, then 16 ones
    posterior = posterior_of(values, np.zeros((1, 32)))
    law = posterior.distribution(lambda x: x)
    # Batches of 4 draws: SE^2 = 8 (4 (1/32) (1/2))^2 = 1/32; of single draws 32 (1/64)^2 = 1/128.
    np.testing.assert_allclose(law.standard_errors, np.sqrt(1 / 32), rtol=1e-6)


@pytest.mark.slow
def test_windows_and_moments_of_the_warm_up() -> None:
    counts, ends = schedule(300)
    assert not counts[:75].any() and not counts[-50:].any() and ends.sum() >= 2
    assert schedule(0)[0].shape == (0,) and not schedule(10)[0].any()
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    tuning = Tuner(RWMH(), 10, dense=True).init(3)
    count, mean, squares = add_rows(
        add_rows(tuning.moments, jnp.asarray(x[:3])), jnp.asarray(x[3:])
    )
    assert float(count) == 7
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(squares / 6, np.cov(x.T), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.rank_promotion("allow")  # numpyro's guides
@pytest.mark.parametrize("guide", ["AutoNormal", "AutoMultivariateNormal"])
def test_svi_finds_a_normal_posterior(guide: str, key: Array) -> None:
    """y_i ~ N(m, 1), m ~ N(0, 1), two observations: N(1, 1/3); the guide contains it."""

    def model(y):
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    y = jnp.array([1.0, 2.0])
    posterior = infer(key, bind(model, y), SVI(guide, num_steps=3000, num_samples=2000))
    mean = posterior.particles["mean"]
    assert mean.shape == (1, 2000) and np.isnan(posterior.log_evidence)
    np.testing.assert_allclose(mean.mean(), 1.0, atol=0.1)
    np.testing.assert_allclose(mean.std(), 3**-0.5, atol=0.06)
    exact = dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2) + 1.0).log_prob(y)
    np.testing.assert_allclose(posterior.info["elbo"], exact, atol=0.05)
    assert guide in posterior.target


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: NUTS(num_samples=0), "num_samples must be at least 1, got 0"),
        (lambda: NUTS(num_warmup=-1), "num_warmup must be at least 0, got -1"),
        (lambda: MCMC(RWMH(), num_chains=0), "num_chains must be at least 1, got 0"),
        (lambda: NUTS(target_acceptance=1.0), "target_acceptance must lie in"),
        (lambda: SVI("AutoNorm"), "guide 'AutoNorm' is not one of numpyro's: Auto"),
        (lambda: SVI(num_steps=0), "num_steps must be at least 1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_targets_that_do_not_fit_are_refused(key: Array, tmp_path) -> None:
    chains = MCMC(RWMH(), num_samples=2, num_warmup=2, num_chains=2)
    with pytest.raises(ValueError, match="has no steps: .* NUTS, MCMC, TemperedSMC or IBIS"):
        infer(key, program(), ParticleFilter(10))
    with pytest.raises(ValueError, match="neither a progress bar nor checkpoints"):
        infer(key, program(), chains, checkpoint=tmp_path / "x.npz")

    def counts():
        numpyro.sample("k", dist.Poisson(3.0))

    with pytest.raises(ValueError, match="site 'k' is discrete"):
        infer(key, bind(counts), chains)
    with pytest.raises(ValueError, match="finite log density"):
        infer(key, program(jnp.inf), chains)
    bad = infer(key, program(jnp.inf), chains, throw=False)
    assert bad.status.startswith("no start")
