"""What every algorithm and kernel promises. A new one registers a line in a table and inherits all.

jit = eager, one stream for each key under `vmap`, types, shapes, N = 1, one compilation for each
shape, a readable repr, keys consumed once, packed problems independent of one another.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

from jurax.inference import (
    SSP,
    AuxiliaryFilter,
    BeamSearch,
    BestOfN,
    Extend,
    ImportanceSampling,
    Multinomial,
    ParticleFilter,
    Resample,
    Residual,
    ResidualSystematic,
    SelfConsistency,
    Smoother,
    Stratified,
    Systematic,
    Tempered,
    ess_below,
    infer,
    repeat,
    when,
)
from jurax.ppl import AbstractProcess, Population, Posterior, random
from tests.exact import Language

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def look_ahead(particles, t):
    """Of the prefix languages below."""
    return jnp.sin(particles.prefix + t)


# name: (constructor from a number of particles, what repr must show)
ALGORITHMS = {
    "filter": (lambda n: ParticleFilter(n, ess_threshold=0.9), "ess_threshold=0.9"),
    "filter, stratified": (lambda n: ParticleFilter(n, Stratified(), 0.9), "Stratified"),
    "filter, multinomial": (lambda n: ParticleFilter(n, Multinomial(), 0.9), "Multinomial"),
    "filter, residual": (lambda n: ParticleFilter(n, Residual(), 0.9), "Residual"),
    "filter, ssp": (lambda n: ParticleFilter(n, SSP(), 0.9), "SSP"),
    "filter, tempered": (lambda n: ParticleFilter(n, Tempered(SSP(), 2.0), 0.9), "tau=2.0"),
    "auxiliary": (lambda n: AuxiliaryFilter(n, look_ahead), "lookahead"),
    "smoother": (Smoother, "Smoother"),
    "smoother, fixed lag": (lambda n: Smoother(n, "fixed_lag", lag=1), "fixed_lag"),
    "filter, never": (lambda n: ParticleFilter(n, ess_threshold=0.0), "ess_threshold=0.0"),
    "importance": (ImportanceSampling, "ImportanceSampling"),
    "best of n": (BestOfN, "BestOfN"),
    "self-consistency": (SelfConsistency, "SelfConsistency"),
    "beam": (lambda n: BeamSearch(n, width=1), "BeamSearch"),
}
KERNELS = {
    "extend": Extend(),
    "systematic": Resample(Systematic()),
    "stratified": Resample(Stratified()),
    "multinomial": Resample(Multinomial()),
    "residual": Resample(Residual()),
    "residual-systematic": Resample(ResidualSystematic()),
    "ssp": Resample(SSP()),
    "tempered": Resample(Tempered(Stratified(), 2.0)),
    "when": when(ess_below(0.9), Resample()) >> Extend(),
    "repeat": repeat(Resample() >> Extend()),
}
QUICK = ("filter", "importance", "beam")  # the others are checked by `make slow`
each_algorithm = pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in ALGORITHMS]
)
each_kernel = pytest.mark.parametrize("name", KERNELS)


def process():
    return Language.draw(seed=7, num_symbols=2, depth=3, stop=True).process("odds")


def assert_same(first: Posterior, second: Posterior) -> None:
    """Equal decisions; sums may be rounded otherwise where programs are fused otherwise."""
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        if jnp.issubdtype(jnp.result_type(a), jnp.floating):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(a, b)


def without_seconds(posterior: Posterior) -> Posterior:
    return eqx.tree_at(lambda p: p.cost.seconds, posterior, 0.0)


# -------------------------------------------------------------------- algorithms


@pytest.mark.slow
@each_algorithm
def test_jit_and_vmap_change_nothing(name: str, key: Array) -> None:
    algorithm = ALGORITHMS[name][0](8)
    keys = jax.random.split(key, 3)
    alone = [without_seconds(infer(k, process(), algorithm)) for k in keys]
    jitted = without_seconds(jax.jit(lambda k: infer(k, process(), algorithm))(keys[0]))
    assert_same(alone[0], jitted)
    mapped = jax.vmap(lambda k: infer(k, process(), algorithm))(keys)
    for i in range(3):
        row = jax.tree.map(lambda x, i=i: x[i] if jnp.ndim(x) else x, mapped)
        assert_same(alone[i], without_seconds(row))


@pytest.mark.slow
@each_algorithm
def test_one_step_at_a_time_is_the_compiled_run(name: str, key: Array, tmp_path) -> None:
    """Bit for bit: the same steps, driven from Python."""
    algorithm = ALGORITHMS[name][0](8)
    compiled = without_seconds(infer(key, process(), algorithm))
    stepped = without_seconds(infer(key, process(), algorithm, checkpoint=tmp_path / "run.npz"))
    assert jax.tree.structure(compiled) == jax.tree.structure(stepped)
    for a, b in zip(jax.tree.leaves(compiled), jax.tree.leaves(stepped), strict=True):
        np.testing.assert_array_equal(a, b)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@each_algorithm
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_types_and_shapes(name: str, dtype, key: Array, request) -> None:
    if dtype == jnp.float64:
        request.getfixturevalue("x64")
    for num_particles in (1, 8):
        posterior = infer(key, process(), ALGORITHMS[name][0](num_particles))
        assert posterior.log_weights.dtype == dtype and posterior.log_evidence.dtype == dtype
        assert posterior.log_weights.shape == (num_particles,)
        assert posterior.log_evidence.shape == ()
        assert posterior.particles.prefix.shape == (num_particles,)
        assert posterior.particles.prefix.dtype == jnp.int32
        assert posterior.info["ess"].shape == (process().num_steps,)
        assert posterior.status == "ok"
        assert not bool(jnp.any(jnp.isnan(posterior.log_weights)))
        assert posterior.target and float(posterior.cost.decoded_tokens) > 0


@each_algorithm
def test_one_compilation_for_each_shape(name: str, key: Array) -> None:
    counter = Counter()

    def run(seed: int, num_particles: int) -> None:
        language = Language.draw(seed=seed, num_symbols=2, depth=3, stop=True)
        counted = Counted(process=language.process("odds"), counter=counter)
        infer(jax.random.fold_in(key, seed), counted, ALGORITHMS[name][0](num_particles))

    for seed in range(3):
        run(seed, 8)
    assert counter.traces == 1
    run(0, 9)
    assert counter.traces == 2


@each_algorithm
def test_keys_are_consumed_once(name: str, key: Array, key_reuse) -> None:
    infer(key, process(), ALGORITHMS[name][0](8))


@each_algorithm
def test_repr_says_what_it_is(name: str) -> None:
    constructor, shown = ALGORITHMS[name]
    assert shown in repr(constructor(8)) and "8" in repr(constructor(8))
    assert constructor(8) == constructor(8) and hash(constructor(8)) == hash(constructor(8))


@each_algorithm
def test_no_particle_at_all_is_refused(name: str, key: Array) -> None:
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        infer(key, process(), ALGORITHMS[name][0](0))


@each_algorithm
def test_the_key_decides_everything(name: str, key: Array) -> None:
    algorithm = ALGORITHMS[name][0](64)
    first, again = infer(key, process(), algorithm), infer(key, process(), algorithm)
    other = infer(jax.random.fold_in(key, 1), process(), algorithm)
    np.testing.assert_array_equal(first.log_weights, again.log_weights)
    np.testing.assert_array_equal(first.particles.prefix, again.particles.prefix)
    assert not np.array_equal(first.particles.prefix, other.particles.prefix)


class Counter:
    """Counts traces; equal to every other, so that it does not enter a cache key."""

    def __init__(self) -> None:
        self.traces = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Counter)

    def __hash__(self) -> int:
        return 0


class Counted(AbstractProcess):
    """Counts how often `init` is traced."""

    process: AbstractProcess
    counter: Counter = eqx.field(static=True)

    num_steps = property(lambda self: self.process.num_steps)  # type: ignore[assignment]
    target = property(lambda self: self.process.target)  # type: ignore[assignment]

    def init(self, key, num_particles):
        self.counter.traces += 1
        return self.process.init(key, num_particles)

    def extend(self, key, particles, t):
        return self.process.extend(key, particles, t)

    def finished(self, particles):
        return self.process.finished(particles)

    def step_scores(self, particles):
        return self.process.step_scores(particles)

    def prior(self):
        return Counted(process=self.process.prior(), counter=self.counter)


# -------------------------------------------------------------------- kernels


@pytest.mark.slow
@each_kernel
def test_a_step_keeps_structure_types_and_info(name: str, key: Array) -> None:
    kernel = KERNELS[name]
    key_init, key_step = jax.random.split(key)
    population = kernel.init(key_init, process(), 8)
    stepped, info = jax.jit(lambda k, p: kernel.step(k, p, process()))(key_step, population)
    assert jax.tree.structure(stepped) == jax.tree.structure(population)
    for a, b in zip(jax.tree.leaves(stepped), jax.tree.leaves(population), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
    if name != "repeat":  # a whole run; it is not repeated itself
        idle = kernel.idle_info(population)
        shapes = jax.tree.map(jnp.shape, idle), jax.tree.map(jnp.shape, info)
        assert shapes[0] == shapes[1]


@pytest.mark.slow
@each_kernel
def test_a_step_is_the_same_eagerly(name: str, key: Array, key_reuse) -> None:
    kernel = KERNELS[name]
    key_init, key_step = jax.random.split(key)
    population = kernel.init(key_init, process(), 8)
    eager, _ = kernel.step(jax.random.clone(key_step), population, process())
    jitted, _ = jax.jit(lambda k, p: kernel.step(k, p, process()))(key_step, population)
    for a, b in zip(jax.tree.leaves(eager), jax.tree.leaves(jitted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.slow
@each_kernel
def test_dead_populations_stay_dead(name: str, key: Array) -> None:
    key_init, key_step = jax.random.split(key)
    population = Extend().init(key_init, process(), 8)
    dead = Population.start(population.particles, jnp.full(8, -jnp.inf))
    stepped, _ = KERNELS[name].step(key_step, dead, process())
    assert int(stepped.status) == 1 and bool(jnp.all(jnp.isneginf(stepped.log_weights)))
    assert float(stepped.log_evidence_estimate) == -np.inf
    np.testing.assert_array_equal(stepped.particles.prefix, dead.particles.prefix)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        n if n == "when" else pytest.param(n, marks=pytest.mark.slow)
        for n in KERNELS
        if n != "repeat"
    ],
)
def test_packed_problems_do_not_touch_each_other(name: str, key: Array) -> None:
    assert_packed_equals_alone(lambda key, process: one_step(KERNELS[name], key, process), key)


def one_step(kernel, key, process):
    keys = random.split(key, 2)
    population, _ = kernel.step(keys[1], kernel.init(keys[0], process, 6), process)
    return population


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "filter",
        pytest.param("filter, residual", marks=pytest.mark.slow),
        pytest.param("importance", marks=pytest.mark.slow),
    ],
)
def test_packed_runs_do_not_touch_each_other(name: str, key: Array) -> None:
    algorithm = ALGORITHMS[name][0](6)

    def run(key, process):
        posterior = without_seconds(infer(key, process, algorithm))
        # A run of one problem stops when that problem ends; info of steps not made is idle anyway.
        return posterior.particles, posterior.log_weights, posterior.log_evidence

    assert_packed_equals_alone(run, key)


def assert_packed_equals_alone(run, key: Array) -> None:
    """Bit for bit; the problems resample and end at different times."""
    y = jnp.array([0.0, 2.0, -5.0])
    keys = jax.random.split(key, 3)
    together = run(keys, Chase(y))
    for order in ([0], [2, 1]):
        part = run(keys[jnp.array(order)], Chase(y[jnp.array(order)]))
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(part), strict=True):
            np.testing.assert_array_equal(a[jnp.array(order)] if jnp.ndim(a) else a, b)
    for i in range(3):
        alone = run(keys[i], Chase(y[i]))
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_array_equal(a[i] if jnp.ndim(a) else a, b)


class Chase(AbstractProcess):
    """Random walks drawn to `y`, one problem or several; a walk ends near its goal."""

    y: Float[Array, "*B"]
    num_steps: int = eqx.field(static=True, default=4)
    target: str = eqx.field(static=True, default="walks that chase y")

    @property
    def batch_shape(self):
        return self.y.shape

    def init(self, key, num_particles):
        x = random.normal(key, (num_particles,))
        return {"x": x, "done": jnp.zeros(x.shape, bool)}, self._log_potential(x)

    def extend(self, key, particles, t):
        x = particles["x"] + random.normal(key, particles["x"].shape[-1:])
        return {"x": x, "done": jnp.abs(x - self._goal(x)) < 0.3}, self._log_potential(x)

    def finished(self, particles):
        return particles["done"]

    def _goal(self, x):
        return jnp.broadcast_to(self.y[..., None], x.shape)

    def _log_potential(self, x):
        return -0.5 * (x - self._goal(x)) ** 2
