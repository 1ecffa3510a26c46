"""What a run keeps of its steps depends on need: as asked, or when it is small."""

import jax
import numpy as np
import pytest
from jaxtyping import Array

from jurax.inference import AuxiliaryFilter, ParticleFilter, diagnostics, infer, sampler
from jurax.models.state_space import LinearGaussian


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> int:
    """Records of one number and an ancestor for 30 particles at 6 times: 1,440 bytes."""
    monkeypatch.setattr(sampler, "HISTORY_LIMIT", 1000)
    return 1000


def run(key: Array, num_particles: int, history: bool | None):
    model = LinearGaussian.simulate(jax.random.key(0), num_steps=5)
    algorithm = ParticleFilter(num_particles, ess_threshold=1.0, history=history)
    return jax.jit(lambda key: algorithm.run(key, model))(key)  # traced under the limit of now


@pytest.mark.slow
def test_small_runs_keep_everything_and_large_ones_what_is_asked(key: Array, limit: int) -> None:
    small, middle, large = (run(key, n, None) for n in (20, 30, 60))
    assert small.history is not None and "ancestors" in small.info
    assert middle.history is None and "ancestors" in middle.info
    assert large.history is None and "ancestors" not in large.info
    asked = run(key, 60, True)
    assert asked.history is not None and asked.trajectories().shape == (60, 6, 1)
    np.testing.assert_array_equal(asked.log_weights, large.log_weights)


def test_nothing_is_made_up_from_a_genealogy_that_was_not_kept(key: Array, limit: int) -> None:
    large = infer(key, LinearGaussian.simulate(jax.random.key(0), num_steps=5),
                  ParticleFilter(60, ess_threshold=1.0))  # fmt: skip
    summary = large.distribution(lambda x: bool(x[0] > 0))
    assert summary.probabilities.sum() == pytest.approx(1.0)
    assert np.all(np.isnan(summary.standard_errors))
    with pytest.raises(ValueError, match="history=True"):
        diagnostics.unique_ancestors(large)


ALGORITHMS = {
    "bootstrap": lambda n, history: ParticleFilter(n, history=history),
    "resampling always": lambda n, history: ParticleFilter(n, ess_threshold=1.0, history=history),
    "auxiliary": lambda n, history: AuxiliaryFilter(n, _look_ahead, history=history),
}


def _look_ahead(states: Array, t: Array) -> Array:
    return -0.5 * states[:, 0] ** 2


def compiled_bytes(algorithm, num_steps: int) -> int:
    """Bytes of work space and results of a compiled run; nothing is executed."""
    model = LinearGaussian.simulate(jax.random.key(0), num_steps=num_steps)
    run = jax.jit(lambda key: algorithm.run(key, model))
    memory = run.lower(jax.random.key(0)).compile().memory_analysis()
    return memory.temp_size_in_bytes + memory.output_size_in_bytes


@pytest.mark.parametrize(
    ("name", "history"), [*((n, False) for n in ALGORITHMS), ("bootstrap", True)]
)
def test_memory_grows_with_particles_times_steps_only_where_it_is_asked(
    name: str, history: bool, limit: int
) -> None:
    num, steps = 2000, (10, 30)
    record = 4 * num * (steps[1] - steps[0])  # bytes of one number of each particle and step
    short, long = (compiled_bytes(ALGORITHMS[name](num, history), length) for length in steps)
    assert (long - short >= record) == history, (long - short, record)
