"""Draws by name: equal to `jax.random`, one stream for each key of an array, and oracles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from jurax.ppl import random
from jurax.ppl.walk import Walk

LOGITS = jnp.log(jnp.array([0.2, 0.5, 0.3]))

# name, a draw for one key; the same call must work for an array of keys
DRAWS = {
    "uniform": lambda key: random.uniform(key, (4,), minval=-1.0, maxval=2.0),
    "normal": lambda key: random.normal(key, (4,)),
    "bernoulli": lambda key: random.bernoulli(key, 0.3, (4,)),
    "choice": lambda key: random.choice(key, 5, (4,)),
    "choice of values": lambda key: random.choice(key, jnp.array([7, 8, 9]), (4,), LOGITS + 2),
    "randint": lambda key: random.randint(key, (4,), -2, 3),
    "exponential": lambda key: random.exponential(key, (4,)),
    "gumbel": lambda key: random.gumbel(key, (4,)),
    "gamma": lambda key: random.gamma(key, 2.0, (4,)),
    "beta": lambda key: random.beta(key, 2.0, 3.0, (4,)),
    "permutation": lambda key: random.permutation(key, 4),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWS)
def test_a_key_array_is_one_stream_for_each_key(name: str, key: Array) -> None:
    keys = jax.random.split(key, 3)
    together = DRAWS[name](keys)
    alone = jnp.stack([DRAWS[name](k) for k in keys])
    assert together.shape == (3, 4) and together.dtype == alone.dtype
    np.testing.assert_array_equal(together, alone)


def test_one_key_draws_what_jax_draws(key: Array) -> None:
    same = [
        (random.uniform(key, (5,)), jax.random.uniform(key, (5,))),
        (random.normal(key, (5,)), jax.random.normal(key, (5,))),
        (random.bernoulli(key, 0.3, (5,)), jax.random.bernoulli(key, 0.3, (5,))),
        (
            random.categorical(key, LOGITS, shape=(5,)),
            jax.random.categorical(key, LOGITS, shape=(5,)),
        ),
        (jax.random.key_data(random.split(key, 3)), jax.random.key_data(jax.random.split(key, 3))),
        (
            jax.random.key_data(random.fold_in(key, 3)),
            jax.random.key_data(jax.random.fold_in(key, 3)),
        ),
    ]
    for ours, theirs in same:
        np.testing.assert_array_equal(ours, theirs)


def test_every_name_is_one_of_jax() -> None:
    extra = {"enumerating", "is_enumerating"}
    assert all(hasattr(jax.random, name) for name in set(random.__all__) - extra)


def test_categorical_takes_logits_by_problem(key: Array) -> None:
    keys = jax.random.split(key, 2)
    logits = jnp.stack([jnp.stack([LOGITS, LOGITS[::-1]]), jnp.zeros((2, 3))])
    together = random.categorical(keys, logits)
    alone = jnp.stack([random.categorical(k, x) for k, x in zip(keys, logits, strict=True)])
    assert together.shape == (2, 2)
    np.testing.assert_array_equal(together, alone)


def test_split_puts_children_first(key: Array) -> None:
    keys = jax.random.split(key, (3, 2))
    first, second = random.split(keys)
    assert first.shape == second.shape == (3, 2)
    expected = jax.random.split(keys[1, 0])
    np.testing.assert_array_equal(
        jax.random.key_data(jnp.stack([first[1, 0], second[1, 0]])), jax.random.key_data(expected)
    )


def test_split_and_fold_in_agree_so_that_laws_may_confuse_them(key: Array) -> None:
    """`laws` takes child i of a split for the fold of i: so does threefry."""
    children = jax.random.key_data(jax.random.split(key, 3))
    folds = [jax.random.key_data(jax.random.fold_in(key, i)) for i in range(3)]
    np.testing.assert_array_equal(children, jnp.stack(folds))


def law_of(draw) -> dict:
    law: dict = {}

    def visit(probability, value):
        value = value.tolist() if value.ndim == 0 else tuple(value.tolist())
        law[value] = law.get(value, 0.0) + probability

    Walk(draw).run(visit)
    return law


def test_enumerated_laws_are_those_of_the_draws() -> None:
    assert law_of(lambda k: random.bernoulli(k, 0.25)) == pytest.approx({False: 0.75, True: 0.25})
    assert law_of(lambda k: random.categorical(k, LOGITS)) == pytest.approx(
        {0: 0.2, 1: 0.5, 2: 0.3}
    )
    assert law_of(lambda k: random.randint(k, (), -1, 2)) == pytest.approx(
        dict.fromkeys([-1, 0, 1], 1 / 3)
    )
    values = jnp.array([7, 9])
    assert law_of(lambda k: random.choice(k, values, (2,))) == pytest.approx(
        {(a, b): 0.25 for a in (7, 9) for b in (7, 9)}
    )
    along = jnp.log(jnp.array([[0.2, 1.0], [0.8, 0.0]]))
    assert law_of(lambda k: random.categorical(k, along, axis=0)) == pytest.approx(
        {(0, 0): 0.2, (1, 0): 0.8}
    )


def test_a_uniform_draw_has_one_outcome_between_breaks() -> None:
    def draw(key):
        breaks = jnp.array([0.25, 0.75, 1.5])  # what lies outside [0, 1] does not count
        return random.uniform(key, minval=2.0, maxval=4.0, breaks=lambda: breaks)

    assert law_of(draw) == pytest.approx({2.25: 0.25, 3.0: 0.5, 3.75: 0.25})


def test_a_row_without_possible_outcome_draws_as_jax_does(key: Array) -> None:
    impossible = jnp.full(3, -jnp.inf)
    assert law_of(lambda k: random.categorical(k, impossible)) == {0: 1.0}
    assert int(random.categorical(key, impossible)) == 0


def test_the_oracle_leaves_with_its_context() -> None:
    walk = Walk(lambda key: random.bernoulli(key))
    with pytest.raises(KeyError), random.enumerating(walk):
        assert random.is_enumerating()
        raise KeyError
    assert not random.is_enumerating()


def test_probabilities_reach_the_oracle_in_full() -> None:
    """A callback may run in a thread without x64, where JAX rounds float64 but not integers."""
    walk = Walk(lambda key: key)
    with jax.enable_x64(True), random.enumerating(walk):
        jaxpr = jax.make_jaxpr(lambda x: random.categorical(jax.random.key(0), x))(jnp.zeros(3))
    asks = [e for e in jax.tree.leaves(equations(jaxpr.jaxpr)) if "io_callback" in str(e.primitive)]
    assert {str(x.aval.dtype) for ask in asks for x in ask.invars} == {"uint32"}

    seen = {}
    third = jnp.log(jnp.full(3, 1.0))
    Walk(lambda k: random.categorical(k, third), compiled=True).run(seen.__setitem__)
    assert list(seen) == [1 / 3]


def equations(jaxpr) -> list:
    """All equations, inner ones included."""
    inner = [x.jaxpr for e in jaxpr.eqns for x in e.params.values() if hasattr(x, "jaxpr")]
    return list(jaxpr.eqns) + [equations(j) for j in inner]
