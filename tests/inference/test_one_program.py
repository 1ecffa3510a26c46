"""One NumPyro program, stochastic volatility with three parameters, under five samplers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import one_program
from jurax.inference import PMMH, ParticleFilter, infer
from jurax.ppl import sequential
from jurax.ppl.family import parameter_view
from tests.statistics import assert_mean


def gaussian_replicates(key, shift: float = 0.0) -> dict[str, np.ndarray]:
    """Draws `(R, D, P)` of five samplers with one law, the last one shifted."""
    x = np.asarray(jax.random.normal(key, (5, 12, 200, 3)), np.float64)
    return {str(i): draws + shift * (i == 4) for i, draws in enumerate(x)}


def test_the_comparison_passes_equal_laws_and_sees_a_shift(key) -> None:
    keys = jax.random.split(key)
    equal = one_program.compare(one_program.statistics_of(gaussian_replicates(keys[0])))
    assert len(equal) == 10 and all(abs(row["t"]) < row["limit"] for row in equal)
    # 12 x 200 draws: the standard error of a difference is .03 posterior standard deviations.
    found = one_program.compare(one_program.statistics_of(gaussian_replicates(keys[1], 0.3)))
    seen = {row["pair"] for row in found if abs(row["t"]) > row["limit"]}
    assert seen == {(name, "4") for name in "0123"}


@pytest.mark.slow
def test_the_filter_estimates_the_evidence_that_pmmh_uses(key) -> None:
    """At fixed parameters E[Zhat of PMMH] = E[Zhat of the filter], and a filter of many agrees."""
    process = sequential(one_program.volatility, one_program.observations(50))
    view, few = parameter_view(process), ParticleFilter(100)
    x = view.flatten({name: jnp.array(v) for name, v in FIXED.items()})
    pmmh = PMMH(few, 1)
    keys = jax.random.split(key, 3)
    of_pmmh = jax.jit(
        jax.vmap(lambda k: pmmh.draw_at(k, x, process, view).trajectory.log_evidence)
    )(jax.random.split(keys[0], 400))
    fixed = process.at(FIXED)
    of_filter = jax.jit(jax.vmap(lambda k: infer(k, fixed, few).log_evidence))(
        jax.random.split(keys[1], 400)
    )
    reference = infer(keys[2], fixed, ParticleFilter(100_000)).log_evidence
    ratios = np.exp(np.stack([of_pmmh, of_filter], axis=1) - np.asarray(reference))
    error = ratios.std() / np.sqrt(100_000 / 100)  # the variance of Zhat falls as 1 / N
    assert_mean(ratios, 1.0, resolution=0.05, expected_error=error)


FIXED = {"mean": -1.0, "persistence": 0.95, "scale": 0.25}


@pytest.mark.slow
def test_five_samplers_agree_on_a_short_series(key) -> None:
    """T = 30; `benchmarks/one_program.py` does the same for T = 200."""
    y = one_program.observations(30)
    draws = one_program.measure(key, y, 0.25, 12, say=lambda line: None)
    assert list(draws) == list(one_program.algorithms(1.0, 1))
    assert max(one_program.error_in_sd(draws).values()) < 0.2
    for row in one_program.compare(one_program.statistics_of(draws), alpha=1e-4):
        assert abs(row["t"]) < row["limit"], row
