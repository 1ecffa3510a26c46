"""The unrolled hash draws the bits of `jax.random`, and stands aside for the key-reuse checker."""

import jax
import numpy as np
import pytest
from jaxtyping import Array

from jurax.inference import ParticleFilter, infer
from jurax.models.state_space import LinearGaussian
from jurax.ppl import random, threefry


@pytest.fixture(autouse=True)
def unrolled(hash_in_a_loop: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threefry, "UNROLL", True)


DRAWS = {
    "split": lambda key, jax_or_ours: jax.random.key_data(jax_or_ours.split(key, 5)),
    "fold_in": lambda key, jax_or_ours: jax.random.key_data(jax_or_ours.fold_in(key, 2**31 - 1)),
    "uniform": lambda key, jax_or_ours: jax_or_ours.uniform(key, (4, 3)),
    "uniform of no shape": lambda key, jax_or_ours: jax_or_ours.uniform(key, ()),
}


@pytest.mark.parametrize("name", DRAWS)
def test_the_bits_are_those_of_jax(name: str, key: Array) -> None:
    with jax.debug_key_reuse(False):
        assert threefry.is_unrolled(key)
        np.testing.assert_array_equal(DRAWS[name](key, random), DRAWS[name](key, jax.random))


def test_a_filter_is_the_same_with_and_without_the_checker(key: Array) -> None:
    model = LinearGaussian.simulate(jax.random.clone(key), num_steps=3)
    algorithm = ParticleFilter(num_particles=33, ess_threshold=1.0)
    with jax.debug_key_reuse(False):
        unrolled = infer(key, model, algorithm)
    with jax.debug_key_reuse(True):
        checked = infer(jax.random.clone(key), model, algorithm)
    np.testing.assert_array_equal(unrolled.log_evidence, checked.log_evidence)


def test_other_keys_and_the_checker_take_the_plain_path() -> None:
    with jax.debug_key_reuse(False):
        assert not threefry.is_unrolled(jax.random.key(0, impl="rbg"))
    with jax.debug_key_reuse(True):
        assert not threefry.is_unrolled(jax.random.key(0))
        key = jax.random.key(1)
        random.split(key)
        with pytest.raises(jax.errors.KeyReuseError):
            random.split(key)
