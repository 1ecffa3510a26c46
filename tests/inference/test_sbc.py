"""Simulation-based calibration: uniform for correct algorithms only; rank figures, advice."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import Array
from numpyro.contrib.control_flow import scan

from jurax.inference import HMC, MCMC, RWMH, ImportanceSampling, TemperedSMC, infer, sbc
from jurax.inference.convergence import advice, pareto_k, summary
from jurax.inference.rank_plots import calibration_ranks, chain_ranks
from jurax.inference.sbc import Calibration, rank
from jurax.ppl import bind, weights
from tests.ppl.test_posterior import posterior_of


def location_scale(y):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
    numpyro.sample("y", dist.Normal(mean, scale), obs=y)


def logistic(x, y):
    b = numpyro.sample("b", dist.Normal(0.0, 1.0).expand([2]))
    numpyro.sample("y", dist.Bernoulli(logits=x @ b), obs=y)


def chance_of_success(y):
    chance = numpyro.sample("chance", dist.Beta(0.8, 2.0))
    numpyro.sample("y", dist.Binomial(6, chance), obs=y)


def programs():
    x = jnp.stack([jnp.ones(8), jnp.linspace(-2, 2, 8)], axis=-1)
    return {
        "location and scale": bind(location_scale, jnp.zeros(5)),
        "logistic": bind(logistic, x, jnp.zeros(8)),
        "chance": bind(chance_of_success, jnp.zeros(3)),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", list(programs()))
def test_tempered_smc_is_calibrated(name: str, key: Array) -> None:
    """200 replications, log-likelihood among the quantities."""
    algorithm = TemperedSMC(512, move=HMC(num_leapfrogs=3), num_moves=3)
    calibration = sbc(key, programs()[name], algorithm, num_replications=200)
    assert "log likelihood" in calibration.ranks and calibration.num_failed == 0
    assert calibration.passed(0.01 / 9), str(calibration)  # nine runs with particle MCMC


@pytest.mark.slow
def test_waste_free_and_chains_are_calibrated(key: Array) -> None:
    program = programs()["location and scale"]
    waste_free = TemperedSMC(512, move=RWMH(), num_moves=16, waste_free=True)
    chains = MCMC(HMC(num_leapfrogs=4), num_samples=630, num_warmup=200, num_chains=2)
    for algorithm in (waste_free, chains):
        calibration = sbc(key, program, algorithm, num_replications=200)
        assert calibration.passed(0.01 / 2), str(calibration)


class PriorOnly(TemperedSMC):
    """Draws from the prior: right for the parameters alone, wrong for the log-likelihood."""

    def run(self, key, process, budget=None):
        posterior = super().run(key, process.observing(all_missing(process)), budget)
        return posterior


def all_missing(program) -> dict:
    sites = program.sites()
    return {n: jnp.full(s.shape, jnp.nan) for n, s in sites.items() if s.role == "observed"}


@pytest.mark.slow
def test_an_algorithm_that_ignores_the_data_is_caught_by_the_log_likelihood(key: Array) -> None:
    algorithm = PriorOnly(256, move=RWMH(), num_moves=3)
    calibration = sbc(key, programs()["location and scale"], algorithm, num_replications=200)
    p_values = calibration.p_values()
    assert p_values["log likelihood"] < 1e-6 and not calibration.passed()
    assert min(p_values["mean"], p_values["scale"]) > 1e-4


@pytest.mark.slow
def test_ranks_of_exact_draws_and_their_figure(key: Array, tmp_path) -> None:
    """A program whose posterior is its prior: independent draws, uniform ranks."""

    def model(y):
        numpyro.sample("x", dist.Normal(0.0, 1.0).expand([2]))
        numpyro.sample("y", dist.Normal(0.0, 1.0), obs=y)

    algorithm = TemperedSMC(64, move=RWMH(), num_moves=1, ladder=(1.0,))
    calibration = sbc(key, bind(model, jnp.array(0.0)), algorithm, 100, num_draws=31)
    assert sorted(calibration.ranks) == ["log likelihood", "x[0]", "x[1]"]
    assert all(0 <= r.min() and r.max() <= 31 for r in calibration.ranks.values())
    assert calibration.passed(1e-4), str(calibration)
    figure = calibration_ranks(calibration)
    assert [ax.get_title(loc="left")[:4] for ax in figure.axes][1] == "x[0]"
    figure.savefig(tmp_path / "ranks.png")
    assert "uniform" in str(calibration)


def test_p_values_by_hand() -> None:
    even = Calibration({"a": np.repeat(np.arange(16), 4)}, 15, 0)
    assert even.p_values()["a"] == pytest.approx(1.0)
    skewed = Calibration({"a": np.zeros(64, int)}, 15, 0)
    assert skewed.p_values()["a"] < 1e-10 and not skewed.passed()
    assert not Calibration({"a": np.repeat(np.arange(16), 4)}, 15, num_failed=1).passed()


def test_ties_are_broken_evenly(key: Array) -> None:
    draws = jnp.zeros((3, 4000))
    counts = np.bincount(np.asarray(rank(key, jnp.zeros(4000), draws)), minlength=4)
    assert counts.min() > 850  # 1000 each, sd 27


def test_advice_says_what_to_do(key: Array) -> None:
    """Two modes that chains cannot join: R-hat; weights with a heavy tail: Pareto k."""

    def two_modes():
        x = numpyro.sample("x", dist.Normal(0.0, 5.0))
        numpyro.factor("modes", jnp.logaddexp(-50 * (x - 5) ** 2, -50 * (x + 5) ** 2))

    chains = infer(key, bind(two_modes), MCMC(RWMH(), num_samples=100, num_warmup=100))
    found = " ".join(advice(chains))
    assert "R-hat of x" in found and "ParallelTempering" in found
    assert {"mcse_mean", "ess_bulk", "ess_tail", "r_hat"} <= set(summary(chains).columns)
    assert len(chain_ranks(chains, "x").axes) == 4

    def walk(y):
        def step(x, y_t):
            x = numpyro.sample("x", dist.Normal(x, 1.0))
            numpyro.sample("y", dist.Normal(x, 0.05), obs=y_t)
            return x, None

        scan(step, 0.0, y)

    weighted = infer(key, bind(walk, jnp.arange(6.0)), ImportanceSampling(500))
    assert pareto_k(weighted) > 0.7
    assert any("Pareto k" in line and "num_particles" in line for line in advice(weighted))
    assert float(weights.effective_sample_size(weighted.log_weights)) < 20


def test_bad_numbers_are_refused(key: Array) -> None:
    program = programs()["chance"]
    with pytest.raises(ValueError, match="num_replications and num_draws"):
        sbc(key, program, TemperedSMC(8), 0)
    with pytest.raises(ValueError, match="63 draws were asked of chains with 20"):
        sbc(key, program, MCMC(RWMH(), num_samples=10, num_warmup=0, num_chains=2), 2)
    posterior = posterior_of([0.5], [0.0])
    with pytest.raises(ValueError, match="these are weighted particles"):
        chain_ranks(posterior, "chance")
