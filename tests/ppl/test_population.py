"""Populations: finite measures with a status."""

import jax.numpy as jnp
import numpy as np
import pytest

from jurax.ppl import Population
from jurax.ppl.population import DEAD, INVALID, OK, STATUS, check_increments, mark_dead


def test_a_population_is_a_measure() -> None:
    population = Population.start(jnp.array([1.0, 2.0, 4.0]), jnp.log(jnp.array([1.0, 3.0, 0.0])))
    assert population.num_particles == 3 and int(population.time) == 0
    assert float(population.log_evidence_estimate) == pytest.approx(np.log(4 / 3), abs=1e-6)
    assert float(population.expectation(lambda x: x)) == pytest.approx(1.75)
    moments = population.expectation(lambda x: {"mean": x, "outer": jnp.array([x, x * x])})
    np.testing.assert_allclose(moments["outer"], [1.75, 3.25], rtol=1e-6)


@pytest.mark.parametrize(
    ("log_weights", "status", "kept"),
    [
        ([0.0, -1.0], OK, [0.0, -1.0]),
        ([0.0, np.nan], INVALID, [0.0, -np.inf]),
        ([np.inf, 0.0], INVALID, [-np.inf, 0.0]),
        ([-np.inf, -np.inf], DEAD, [-np.inf, -np.inf]),
        ([np.nan, -np.inf], INVALID, [-np.inf, -np.inf]),
    ],
    ids=["ok", "nan", "inf", "dead", "nan and dead"],
)
def test_the_start_reports_its_weights(log_weights: list, status: int, kept: list) -> None:
    population = Population.start(jnp.arange(2.0), jnp.array(log_weights))
    assert int(population.status) == status and status in STATUS
    np.testing.assert_array_equal(population.log_weights, kept)
    assert not np.isnan(population.ess) and not np.isnan(population.log_evidence_estimate)
    assert float(population.normalized().sum()) == pytest.approx(float(max(kept) > -np.inf))


def test_problems_have_their_own_status() -> None:
    log_weights = jnp.array([[0.0, 0.0], [-jnp.inf, -jnp.inf], [0.0, jnp.nan]])
    population = Population.start(jnp.ones((3, 2)), log_weights)
    assert population.status.tolist() == [OK, DEAD, INVALID]
    assert population.ess.tolist() == [2.0, 0.0, 1.0]
    assert population.expectation(lambda x: x).tolist() == [1.0, 0.0, 1.0]


def test_an_earlier_fault_keeps_its_code() -> None:
    status = jnp.array(INVALID)
    log_weights, status = check_increments(jnp.array([-jnp.inf]), status)
    assert int(mark_dead(log_weights, status)) == INVALID
