"""Diagnostics of single and packed posteriors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jurax.inference import ImportanceSampling, ParticleFilter, diagnostics, infer
from jurax.models.state_space import LinearGaussian
from jurax.ppl import Cost, Posterior

pytestmark = pytest.mark.rank_promotion("allow")  # multivariate normals of NumPyro


@pytest.fixture(scope="module")
def model() -> LinearGaussian:
    return LinearGaussian.simulate(jax.random.key(3), num_steps=12)


@pytest.fixture
def posterior(model: LinearGaussian) -> Posterior:
    return infer(jax.random.key(4), model, ParticleFilter(num_particles=40, history=True))


def packed() -> Posterior:
    """Two problems, three steps of which two were made, four particles."""
    ancestors = jnp.array(
        [[[0, 0, 2, 2], [1, 1, 1, 3], [0, 1, 2, 3]], [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]]]
    )
    return Posterior(
        particles=jnp.zeros((2, 4)),
        log_weights=jnp.zeros((2, 4)),
        log_evidence=jnp.zeros(2),
        info={
            "ess": jnp.array([[3.0, 2.0, 0.0], [4.0, 4.0, 0.0]]),
            "ancestors": ancestors,
            "resampled": jnp.array([[True, True, False], [False, False, False]]),
            "num_steps": jnp.array(2),
        },
        cost=Cost(),
        target="toy",
    )


def test_packed_by_hand() -> None:
    toy = packed()
    assert diagnostics.ess_path(toy).tolist() == [[3, 2], [4, 4]]
    assert diagnostics.lineages(toy)[0].tolist() == [[0, 0, 0, 2], [1, 1, 1, 3], [0, 1, 2, 3]]
    assert diagnostics.unique_ancestors(toy).tolist() == [[2, 2, 4], [4, 4, 4]]
    assert diagnostics.resampling_times(toy).tolist() == [[True, True], [False, False]]


def test_packed_equals_problem_by_problem() -> None:
    toy = packed()
    for read in (diagnostics.ess_path, diagnostics.unique_ancestors, diagnostics.lineages):
        assert (read(toy)[0] == read(toy[0])).all() and (read(toy)[1] == read(toy[1])).all()


def test_lineages_are_those_of_the_trajectories(posterior: Posterior) -> None:
    slots = diagnostics.lineages(posterior)
    records = np.asarray(jax.tree.leaves(posterior.history.records)[0])  # type: ignore[union-attr]
    traced = np.asarray(jax.tree.leaves(posterior.trajectories())[0])
    for time in range(len(slots)):
        assert (traced[:, time] == records[time, slots[time]]).all()


def test_ancestors_can_only_grow_in_number(posterior: Posterior) -> None:
    unique = diagnostics.unique_ancestors(posterior)
    assert len(unique) == 13 and unique[-1] == 40 and (np.diff(unique) >= 0).all()
    assert diagnostics.resampling_times(posterior).any()


def test_last_ess_is_that_of_the_final_weights(posterior: Posterior) -> None:
    assert diagnostics.ess_path(posterior)[-1] == pytest.approx(float(posterior.ess), rel=1e-5)


def test_without_resampling_everyone_is_their_own_ancestor(model: LinearGaussian) -> None:
    posterior = infer(jax.random.key(5), model, ImportanceSampling(num_particles=7))
    assert (diagnostics.unique_ancestors(posterior) == 7).all()
    assert not diagnostics.resampling_times(posterior).any()
