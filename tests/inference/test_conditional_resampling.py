"""Conditional resampling: the joint law of ancestors and slot, by enumeration of both draws.

P(ancestors = a, slot = k | pinned parent i) = P(a) 1{a_k = i} / (M W_i)
"""

from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jurax.inference import (
    SSP,
    Multinomial,
    Residual,
    ResidualSystematic,
    Stratified,
    Systematic,
)
from jurax.ppl.walk import Walk

SCHEMES = {
    "systematic": Systematic(),
    "stratified": Stratified(),
    "multinomial": Multinomial(),
    "residual": Residual(),
    "residual-systematic": ResidualSystematic(),
    "ssp": SSP(),
}
each_scheme = pytest.mark.parametrize("name", SCHEMES)
WEIGHTS = {  # expected counts below 1, above 1, above 2, whole, and 0
    2: [[0.3, 0.9], [1.0, 1.0], [0.0, 1.0], [0.999, 0.001]],
    3: [[0.2, 0.9, 0.35], [0.5, 0.0, 0.5], [0.8, 0.1, 0.1], [1.0, 1.0, 1.0]],
}


def law_of(walk: Walk, *arguments) -> dict:
    """Probability of each outcome, arrays as tuples."""
    law: dict = defaultdict(float)

    def visit(probability, outcome):
        law[tuple(tuple(np.ravel(x).tolist()) for x in outcome)] += probability

    walk.run(visit, *arguments)
    assert walk.key_fault is None, walk.key_fault
    return law


@each_scheme
@pytest.mark.parametrize("num", [2, 3])
def test_conditional_law_is_the_law_weighted_by_the_pinned_offspring(name, num, x64) -> None:
    scheme = SCHEMES[name]
    example = jnp.log(jnp.array(WEIGHTS[num][0]))
    plain = Walk(lambda key, w: (scheme(key, w, num),), example)
    pinned = Walk(lambda key, w, i: scheme.conditional(key, w, num, i), example, jnp.int32(0))
    for values in WEIGHTS[num]:
        normalized = np.array(values) / np.sum(values)
        log_weights = jnp.log(jnp.array(values))
        ancestors = law_of(plain, log_weights)
        for i in np.flatnonzero(normalized):
            expected: dict = defaultdict(float)
            for (parents,), probability in ancestors.items():
                for slot in np.flatnonzero(np.array(parents) == i).tolist():
                    expected[parents, (slot,)] += probability / (num * normalized[i])
            found = law_of(pinned, log_weights, jnp.int32(i))
            for atom in {**expected, **found}:
                assert abs(found.get(atom, 0.0) - expected.get(atom, 0.0)) < 1e-10, (i, atom)


@pytest.mark.slow
@each_scheme
def test_large_populations_keep_the_pinned_parent_in_single_precision(name, key) -> None:
    log_weights = 3 * jax.random.normal(key, (1000,))
    pinned = jnp.arange(0, 1000, 50)
    keys = jax.random.split(jax.random.fold_in(key, 1), 20)
    conditional = SCHEMES[name].conditional
    ancestors, slots = jax.vmap(lambda k, i: conditional(k, log_weights, 700, i))(keys, pinned)
    assert ancestors.shape == (20, 700) and ancestors.dtype == jnp.int32
    np.testing.assert_array_equal(ancestors[jnp.arange(20), slots], pinned)
    assert bool(jnp.all((slots >= 0) & (slots < 700)))


@pytest.mark.slow
@each_scheme
def test_keys_are_consumed_once(name, key, key_reuse) -> None:
    SCHEMES[name].conditional(key, jnp.log(jnp.array([0.2, 0.9, 0.35])), 3, 1)
