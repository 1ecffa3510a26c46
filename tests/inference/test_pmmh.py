"""PMMH: its law by enumeration, a posterior over the strength of a reward against a grid."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from jurax.inference import PMMH, ParticleFilter, infer, pmmh
from jurax.inference.pmmh import ParameterDraw
from jurax.ppl import family, laws
from jurax.ppl.family import parameter_view
from jurax.ppl.walk import Walk
from tests.exact import Language, PrefixProcess
from tests.inference.test_mutations import plant
from tests.inference.test_particle_mcmc import LANGUAGE, conditional_law, state_of
from tests.statistics import assert_mean, mean_and_error, z_threshold

STRENGTH = dist.Gamma(2.0, 1.0)
REFRESHED = (
    "log_posterior(proposed) - log_posterior(state)",
    "log_posterior(proposed) - log_posterior("
    "self.draw_at(random.fold_in(key_filter, 1), state.x, process, view))",
)


# -------------------------------------------------------------------- the law, by enumeration

SYMBOLS = Language.draw(seed=7, num_symbols=2, depth=1, stop=False)


SIGN = dist.Normal(0.5, 1.0)


class Mirror:
    """Proposes -x: from 1 a chain sees -1 and 1 alone, with the odds of their densities."""

    def propose(self, key, x):
        del key
        return -x


def at(values) -> PrefixProcess:
    """Rewards to the power 2 or 1/2."""
    process = SYMBOLS.process("odds")
    powers = jnp.where(values["sign"] > 0, 2.0, 0.5) * process.log_potentials
    return eqx.tree_at(lambda p: p.log_potentials, process, powers)


def error_of_a_step() -> tuple[float, dict[float, float]]:
    """From the exact law of (x, path, Zhat): the largest change of a step, and the law of x."""
    algorithm = PMMH(ParticleFilter(2), num_samples=1, proposal=Mirror())
    process = family(at, {"sign": SIGN})
    view = parameter_view(process)
    before: dict = {}
    for x in (-1.0, 1.0):
        fixed = at({"sign": x})
        mass = float(jnp.exp(SIGN.log_prob(x) + laws.enumerate_process(fixed).log_evidence))
        for (path, log_evidence), share in conditional_law(fixed, 0.5).items():
            before[x, path, log_evidence] = mass * share
    total, after = sum(before.values()), {}

    def state(x, path, log_evidence) -> ParameterDraw:
        fixed = at({"sign": x})
        value = jnp.array([x])
        return ParameterDraw(value, view.log_density(value), state_of(fixed, path, log_evidence))

    def step(key, state):
        moved, _ = algorithm.step(key, state, process, view, algorithm.proposal)
        return moved.x, moved.trajectory.path, moved.trajectory.log_evidence

    walk = Walk(step, state(1.0, (0,), 0.0))
    for (x, path, log_evidence), mass in before.items():

        def visit(probability, end, mass=mass):
            atom = float(end[0][0]), tuple(end[1].tolist()), round(float(end[2]), 9)
            after[atom] = after.get(atom, 0.0) + mass * probability

        walk.run(visit, state(x, path, log_evidence))
    error = max(abs(before.get(a, 0.0) - after.get(a, 0.0)) for a in {**before, **after})
    marginal = {x: sum(m for a, m in after.items() if a[0] == x) / total for x in (-1.0, 1.0)}
    return error / total, marginal


def exact_sign() -> float:
    """P(x = 1), from sums over strings."""
    low, high = (sum(SYMBOLS.masses("odds", s).values()) for s in (0.5, 2.0))
    odds = float(jnp.exp(SIGN.log_prob(1.0) - SIGN.log_prob(-1.0))) * high / low
    return odds / (1 + odds)


def test_a_step_leaves_parameter_path_and_estimate_invariant(x64) -> None:
    error, marginal = error_of_a_step()
    assert error < 1e-10 and abs(marginal[1.0] - exact_sign()) < 1e-10


def test_a_refreshed_estimate_breaks_the_law_of_the_parameter(x64, monkeypatch) -> None:
    plant(monkeypatch, pmmh.PMMH, "step", *REFRESHED)
    assert abs(error_of_a_step()[1][1.0] - exact_sign()) > 1e-3


# -------------------------------------------------------------------- the strength of a reward


def strengths(language: Language = LANGUAGE):
    """The language under the power `strength` of its rewards."""
    process = language.process("emission")

    def at(values) -> PrefixProcess:
        powers = values["strength"] * process.log_potentials
        return eqx.tree_at(lambda p: p.log_potentials, process, powers)

    return family(at, {"strength": STRENGTH})


def grid_posterior(language: Language = LANGUAGE) -> tuple[np.ndarray, np.ndarray]:
    """Points and posterior probabilities of the strength, from sums over all strings."""
    points = np.linspace(1e-3, 16.0, 4000)
    evidence = np.array([sum(language.masses("emission", float(s)).values()) for s in points])
    density = evidence * np.exp(np.asarray(STRENGTH.log_prob(jnp.asarray(points))))
    return points, density / density.sum()


@pytest.mark.slow
def test_pmmh_over_the_reward_strength_agrees_with_the_grid(key) -> None:
    """Zhat of 20 particles is noisy; the posterior is exact all the same."""
    posterior = strength_draws(key, 20)
    points, probabilities = grid_posterior()
    draws = np.asarray(posterior.particles["strength"], np.float64)
    assert np.std(np.asarray(posterior.info["log_evidence"])) > 0.1
    mean = (points * probabilities).sum()
    assert_mean(draws.mean(axis=1), mean, resolution=0.05 * mean)
    cumulative = probabilities.cumsum()
    for quantile in (0.05, 0.5, 0.95):
        point = points[np.searchsorted(cumulative, quantile)]
        exact = cumulative[np.searchsorted(points, point)]
        assert_mean((draws <= point).mean(axis=1), exact, resolution=0.02)


@pytest.mark.slow
def test_pmmh_that_refreshes_its_estimate_is_wrong(key, monkeypatch) -> None:
    plant(monkeypatch, pmmh.PMMH, "step", *REFRESHED)
    points, probabilities = grid_posterior()
    draws = np.asarray(strength_draws(key, 2).particles["strength"])
    mean, error = mean_and_error(draws.mean(axis=1))
    assert abs(mean - (points * probabilities).sum()) > z_threshold() * error


def strength_draws(key, num_particles: int):
    algorithm = PMMH(
        ParticleFilter(num_particles, ess_threshold=0.9),
        num_samples=1500,
        num_warmup=500,
        num_chains=200,
    )
    return infer(key, strengths(), algorithm)
