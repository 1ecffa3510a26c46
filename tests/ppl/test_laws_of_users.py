"""Kernels written by a user, right and with one planted mistake each: what the reports say."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest

from jurax.inference import AbstractKernel, ParticleFilter
from jurax.ppl import Population, StateSpaceModel, laws, random

pytestmark = pytest.mark.usefixtures("x64")


def coins() -> StateSpaceModel:
    return StateSpaceModel(
        initial=dist.Bernoulli(0.5),
        transition=lambda state, t: dist.Bernoulli(jnp.where(state == 1, 0.75, 0.25)),
        potential=lambda state, t: jnp.where(state == 1, -1.0, 0.0),
        num_steps=1,
    )


def population() -> Population:
    return Population.start(jnp.array([0, 1]), jnp.log(jnp.array([0.3, 0.9])))


class Roulette(AbstractKernel):
    """Kill light rows at random; survivors must be raised to the floor."""

    raises: bool

    def step(self, key, population, process):
        weights = jnp.exp(population.log_weights)
        survives = random.bernoulli(key, jnp.minimum(weights / 0.6, 1.0))
        kept = jnp.maximum(weights, 0.6) if self.raises else weights
        log_weights = jnp.log(jnp.where(survives, kept, 0.0))
        return eqx.tree_at(lambda p: p.log_weights, population, log_weights), {}


class Advance(AbstractKernel):
    """Move every row by the process; the mistake leaves the potential out."""

    weighs: bool

    def step(self, key, population, process):
        particles, gained = process.extend(key, population.particles, population.time + 1)
        moved = eqx.tree_at(lambda p: (p.particles, p.time), population, (particles, 1))
        log_weights = population.log_weights + (gained if self.weighs else 0.0)
        return eqx.tree_at(lambda p: p.log_weights, moved, log_weights), {}


class Filter(eqx.Module):
    """A filter of the library; the mistake counts the final weights twice."""

    twice: bool

    def run(self, key, process):
        posterior = ParticleFilter(2, ess_threshold=0.9).run(key, process)
        if not self.twice:
            return posterior
        return eqx.tree_at(lambda p: p.log_weights, posterior, 2 * posterior.log_weights)


class Independence(eqx.Module):
    """Propose a path from the moves; accepted by its potential, the mistake by its square root."""

    power: float

    def sweep(self, key, path, process):
        key_init, key_step, key_accept = jax.random.split(key, 3)
        first, log_start = process.init(key_init, 1)
        last, log_end = process.extend(key_step, first, 1)
        proposed = jnp.concatenate([first, last])
        gain = log_start[0] + log_end[0] + jnp.sum(path == 1)
        probability = jnp.exp(jnp.minimum(self.power * gain, 0.0))
        accepted = random.bernoulli(key_accept, probability)
        return jnp.where(accepted, proposed, path)


CHECKS = {
    "preserving": (
        Roulette(True),
        Roulette(False),
        lambda kernel: laws.check_preserving(kernel, coins(), population()),
    ),
    "advancing": (
        Advance(True),
        Advance(False),
        lambda kernel: laws.check_advancing(kernel, coins(), population()),
    ),
    "unbiased": (Filter(False), Filter(True), lambda a: laws.check_unbiased(a, coins())),
    "invariant": (
        Independence(1.0),
        Independence(0.5),
        lambda a: laws.check_invariant(a, coins()),
    ),
}


@pytest.mark.parametrize("law", CHECKS)
def test_a_planted_mistake_is_named_and_measured(law: str) -> None:
    right, wrong, check = CHECKS[law]
    report = check(right)
    assert report and report.max_error < 1e-10 and report.num_replays > 1, str(report)
    report = check(wrong)
    assert not report and report.max_error > 1e-2
    assert report.law.startswith(law) and report.function
    assert f"BROKEN by {report.max_error:.1e}" in str(report) and report.function in str(report)


def test_the_error_of_roulette_is_the_one_on_paper() -> None:
    """A row of weight .3 survives with probability 1/2: .15 of a total weight of 1.2 is lost."""
    report = laws.check_preserving(Roulette(False), coins(), population())
    assert report.max_error == pytest.approx(0.15 / 1.2, rel=1e-12)
    assert report.function == "0"
