"""What every algorithm on programs and families promises; a new one registers a line.

jit = eager, one stream for each key and data under `vmap`, one trace for each shape, keys consumed
once, a readable repr, sizes of 0 refused by name.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import Array
from numpyro.contrib.control_flow import scan

from jurax.inference import (
    HMC,
    IBIS,
    MALA,
    MCMC,
    NUTS,
    PIMH,
    PMMH,
    RWMH,
    SMC2,
    SVI,
    Independence,
    Islands,
    ParallelTempering,
    ParticleFilter,
    ParticleGibbs,
    Smoother,
    TemperedSMC,
    infer,
)
from jurax.ppl import bind

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compiled_quickly")]
Y = jnp.array([0.5, -0.3, 1.2, 0.4])


def regression(y):
    """Free of scans: a mean and a scale."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.3))
    numpyro.sample("y", dist.Normal(mean, scale), obs=y)


def walk(y):
    """A random walk with the scale of its noise as a parameter."""
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.3))

    def step(x, y_t):
        x = numpyro.sample("x", dist.Normal(x, scale))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y_t)
        return x, None

    scan(step, numpyro.sample("x_0", dist.Normal(0.0, 1.0)), y)


def known_walk(y):
    """The same without parameters."""
    with numpyro.handlers.condition(data={"scale": jnp.array(0.8)}):
        walk(y)


# name: (constructor from a size, model, what repr must show)
ALGORITHMS = {
    "rwmh": (lambda n: MCMC(RWMH(), n, 20, 2), regression, "RWMH"),
    "mala": (lambda n: MCMC(MALA(), n, 20, 2), regression, "MALA"),
    "hmc": (lambda n: MCMC(HMC(num_leapfrogs=2), n, 20, 2), regression, "num_leapfrogs=2"),
    "nuts": (lambda n: NUTS(n, 10, 2), regression, "NUTS"),
    "svi": (lambda n: SVI(num_steps=20, num_samples=n), regression, "num_steps=20"),
    "tempered": (lambda n: TemperedSMC(n, RWMH(), 2), regression, "RWMH"),
    "waste-free": (lambda n: TemperedSMC(n, RWMH(), 2, waste_free=True), regression, "waste_free"),
    "ibis": (lambda n: IBIS(n, RWMH()), regression, "IBIS"),
    "tempering": (lambda n: ParallelTempering(RWMH(), n, 10), regression, "ParallelTempering"),
    "tempering of a process": (
        lambda n: ParallelTempering(Independence(), n, betas=(0, 1)),
        known_walk,
        "Independence",
    ),
    "gibbs": (lambda n: ParticleGibbs(4, n), known_walk, "ParticleGibbs"),
    "gibbs, exact": (lambda n: ParticleGibbs(4, n, ancestor_sampling="exact"), walk, "exact"),
    "gibbs, metropolis": (
        lambda n: ParticleGibbs(4, n, 5, 2, ancestor_sampling="metropolis"),
        walk,
        "metropolis",
    ),
    "pimh": (lambda n: PIMH(ParticleFilter(4), n), known_walk, "PIMH"),
    "pmmh": (lambda n: PMMH(ParticleFilter(4), n, 5), walk, "PMMH"),
    "smc2": (lambda n: SMC2(n, ParticleFilter(4), num_moves=1), walk, "SMC2"),
    "islands": (lambda n: Islands(n, ParticleFilter(4)), known_walk, "Islands"),
    "backward": (lambda n: Smoother(n, method="backward"), known_walk, "backward"),
}
each_algorithm = pytest.mark.parametrize("name", ALGORITHMS)
SIZE = 8


def run(name: str, key: Array, y: Array):
    constructor, model, _ = ALGORITHMS[name]
    return infer(key, bind(model, y), constructor(SIZE))


def numbers(posterior) -> dict:
    """What must agree: draws, weights, evidence."""
    return {
        "particles": posterior.particles,
        "log_weights": posterior.log_weights,
        "log_evidence": posterior.log_evidence,
    }


def assert_same(first: dict, second: dict) -> None:
    """Up to the rounding of programs that are fused otherwise."""
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-4)


# JAX's checker (0.10) takes a scan over split keys under `vmap` for a reuse, in plain JAX too: it
# is on where chains or islands are not mapped. Their steps are checked in `mcmc/test_kernels.py`.
KEYS_CHECKED = (
    "tempered",
    "waste-free",
    "ibis",
    "gibbs",
    "gibbs, exact",
    "pimh",
    "pmmh",
    "backward",
)


@each_algorithm
@pytest.mark.rank_promotion("allow")
def test_runs_keep_their_promises(name: str, seed: int, monkeypatch) -> None:
    """Two compilations: eager runs, and the same keys and data under jit and vmap."""
    kind, traces = type(ALGORITHMS[name][0](SIZE)), []
    traced = kind.run
    monkeypatch.setattr(kind, "run", lambda *a, **k: traces.append(1) or traced(*a, **k))
    seeds, data = jnp.array([seed, seed + 1], jnp.uint32), jnp.stack([Y, Y[::-1]])
    with jax.debug_key_reuse(name in KEYS_CHECKED):
        alone = [numbers(run(name, jax.random.key(seeds[i]), data[i])) for i in range(2)]
        again = numbers(run(name, jax.random.key(seeds[0]), data[0]))
        assert len(traces) == 1  # other keys and data of one shape compile nothing
    mapped = jax.jit(jax.vmap(lambda s, y: numbers(run(name, jax.random.key(s), y))))(seeds, data)
    for a, b in zip(jax.tree.leaves(alone[0]), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)  # the key decides everything
    for i in range(2):
        assert_same(alone[i], jax.tree.map(lambda x, i=i: x[i], mapped))
    drawn = [jax.tree.leaves(x["particles"]) for x in alone]
    assert all(np.isfinite(x).all() for x in drawn[0])
    assert any(not np.array_equal(a, b) for a, b in zip(*drawn, strict=True))


@each_algorithm
def test_repr_says_what_it_is(name: str) -> None:
    constructor, _, shown = ALGORITHMS[name]
    algorithm = constructor(SIZE)
    assert shown in repr(algorithm) and "8" in repr(algorithm)
    assert algorithm == constructor(SIZE) and hash(algorithm) == hash(constructor(SIZE))


@each_algorithm
def test_a_size_of_nothing_is_refused(name: str, key: Array) -> None:
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        constructor, model, _ = ALGORITHMS[name]
        infer(key, bind(model, Y), constructor(0))


@pytest.mark.parametrize("name", ["gibbs", "pimh", "pmmh", "smc2", "islands"])
def test_an_inner_population_of_nothing_is_refused(name: str, key: Array) -> None:
    empty = {
        "gibbs": lambda: ParticleGibbs(0, 3),
        "pimh": lambda: PIMH(ParticleFilter(0), 3),
        "pmmh": lambda: PMMH(ParticleFilter(0), 3),
        "smc2": lambda: SMC2(3, ParticleFilter(0)),
        "islands": lambda: Islands(3, ParticleFilter(0)),
    }
    with pytest.raises(ValueError, match="num_particles must be at least 1, got 0"):
        infer(key, bind(ALGORITHMS[name][1], Y), empty[name]())
