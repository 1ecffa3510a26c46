"""Planted faults: each patches the shipped kernel and must break a test of the suite by name.

The check that is called is `test_particle_filter.assert_unbiased`, the body of
`test_every_string_is_unbiased_with_a_threshold_that_fires`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from jurax.inference import Extend, ParticleFilter, Resample, infer, kernel, sampler
from jurax.ppl import laws, random
from tests.exact import Language
from tests.inference.test_particle_filter import assert_unbiased, exact_posterior

SHAPE = (2, 3, True)
FILTER = ParticleFilter(num_particles=2, ess_threshold=0.9)
pytestmark = pytest.mark.usefixtures("x64")


def report() -> laws.LawReport:
    """What the named test asks of the shipped filter."""
    process = Language.draw(seed=7, num_symbols=2, depth=3, stop=True).process("odds")
    return laws.check_unbiased(FILTER, process, exact=exact_posterior(SHAPE, "odds"))


def assert_caught(words: str) -> None:
    """The law fails, says so, and the named test would raise."""
    found = report()
    assert not found.passed and words in str(found), str(found)
    with pytest.raises(AssertionError):
        assert_unbiased(SHAPE, "odds", FILTER)


def test_the_shipped_filter_passes() -> None:
    assert report().passed


def test_a_reused_key_is_caught(monkeypatch) -> None:
    """The key of the first draw is also the key of the steps, as in a peer's filter."""
    monkeypatch.setattr(sampler.random, "split", lambda key, num=2: (key, key))
    with pytest.raises(Exception, match="key"):
        found = report()
        if not found.passed:
            raise ValueError(f"key: {found}")


def test_a_reused_key_raises_in_the_key_checker(monkeypatch, key_reuse) -> None:
    """JAX's own checker sees the same fault in an eager run of one step."""
    monkeypatch.setattr(kernel.random, "split", lambda key, num=2: (key, key))
    process = Language.draw(seed=7, num_symbols=2, depth=3, stop=True).process("odds")
    with pytest.raises(Exception, match="[Kk]ey"):
        infer(jax.random.key(0), process, ParticleFilter(8, ess_threshold=1.0))


def test_a_reweighted_finished_particle_is_caught(monkeypatch) -> None:
    """Finished rows are weighted again at every later step."""
    original = Extend.step

    def step(self, key, population, process):
        moved, info = original(self, key, population, process)
        resting = process.finished(population.particles)
        again = jnp.where(resting, jnp.log(0.7), 0.0)
        return eqx.tree_at(lambda p: p.log_weights, moved, moved.log_weights + again), info

    monkeypatch.setattr(Extend, "step", step)
    assert_caught("unbiased")


def test_a_weight_used_twice_is_caught(monkeypatch) -> None:
    """Weights are kept after the resampling that used them."""
    original = Resample.step

    def step(self, key, population, process):
        resampled, info = original(self, key, population, process)
        kept = jnp.take_along_axis(population.log_weights, info["ancestors"], axis=-1)
        return eqx.tree_at(lambda p: p.log_weights, resampled, kept), info

    monkeypatch.setattr(Resample, "step", step)
    assert_caught("unbiased")


def test_a_wrong_final_weight_is_caught(monkeypatch) -> None:
    """The last step's increment is dropped."""
    shipped = Extend.step

    def step(self, key, population, process):
        moved, info = shipped(self, key, population, process)
        last = moved.time == process.num_steps
        log_weights = jnp.where(last, population.log_weights, moved.log_weights)
        return eqx.tree_at(lambda p: p.log_weights, moved, log_weights), info

    monkeypatch.setattr(Extend, "step", step)
    assert_caught("unbiased")


def test_plain_mean_increments_with_carried_weights_are_caught(monkeypatch) -> None:
    """log Zhat grows by log mean(w) although the weights are carried on."""
    shipped = Extend.step

    def step(self, key, population, process):
        moved, info = shipped(self, key, population, process)
        drift = 0.01 * jnp.mean(moved.log_weights - population.log_weights)
        log_evidence = population.log_evidence + drift
        return eqx.tree_at(lambda p: p.log_evidence, moved, log_evidence), info

    monkeypatch.setattr(Extend, "step", step)
    assert_caught("unbiased")


def test_the_fixtures_are_restored() -> None:
    assert random.split(jax.random.key(0), 2).shape == (2,)
    assert report().passed
