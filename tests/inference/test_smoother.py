"""Smoothers: laws of backward sampling by enumeration; moments and pairs against exact answers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jaxtyping import Array, Float

from jurax.inference import Multinomial, ParticleFilter, Smoother, Systematic, backward, infer
from jurax.models.state_space import HiddenMarkovModel, LinearGaussian, StochasticVolatility
from jurax.ppl import (
    AbstractProcess,
    Proposal,
    StateSpaceModel,
    bind,
    genealogy,
    laws,
    propose,
    random,
    tilt,
)
from jurax.ppl.walk import Walk
from tests.exact import Language
from tests.inference.test_mutations import plant
from tests.statistics import assert_mean

slow = pytest.mark.slow


def hmm(num_steps: int = 2) -> HiddenMarkovModel:
    return HiddenMarkovModel(
        observations=jnp.array([0, 1, 1, 0, 1])[:num_steps],
        initial=jnp.array([0.625, 0.375]),
        transition_matrix=jnp.array([[0.75, 0.25], [0.25, 0.75]]),
        emission_matrix=jnp.array([[0.875, 0.125], [0.25, 0.75]]),
    )


# -------------------------------------------------------------------- laws, by enumeration


def law_of_paths(smoother: Smoother, process: AbstractProcess) -> dict:
    """E[Zhat (1/M) sum_m 1{path_m = s}] for every s, over all outcomes of all draws."""
    masses: dict[tuple, float] = {}

    def run(key: Array) -> tuple[Array, Array]:
        posterior = smoother.run(key, process)
        assert posterior.history is not None and posterior.history.ancestors is None
        return posterior.history.records, posterior.log_evidence

    def visit(probability: float, end: tuple[np.ndarray, np.ndarray]) -> None:
        paths, log_evidence = end
        for path in paths.T:
            mass = probability * float(np.exp(log_evidence)) / paths.shape[1]
            masses[tuple(path.tolist())] = masses.get(tuple(path.tolist()), 0.0) + mass

    walk = Walk(run)
    walk.run(visit)
    assert walk.key_fault is None, walk.key_fault
    return masses


def largest_error(smoother: Smoother, process: AbstractProcess | None = None) -> float:
    process = hmm() if process is None else process
    exact = laws.enumerate_process(hmm()).masses
    found = law_of_paths(smoother, process)
    return max(abs(found.get(path, 0.0) - mass) for path, mass in exact.items())


def tiny(resampler: Callable, **arguments) -> Smoother:
    options = {"ess_threshold": 0.95, "num_trajectories": 1, **arguments}
    return Smoother(2, "backward", resampler=resampler, **options)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("num_moves", [None, pytest.param(1, marks=slow)])
@pytest.mark.parametrize(
    "resampler", [Systematic(), pytest.param(Multinomial(), marks=slow)], ids=repr
)
def test_backward_paths_are_unbiased(resampler, num_moves: int | None) -> None:
    """For adaptive resampling that fires in some replays only, exactly and by one move."""
    if num_moves is not None and isinstance(resampler, Multinomial):
        pytest.skip("the moves do not depend on the scheme")
    assert largest_error(tiny(resampler, num_moves=num_moves)) < 1e-10
    report = laws.check_unbiased(ParticleFilter(2, resampler, ess_threshold=0.95), hmm())
    assert report and min(report.branches["resampled"]) > 5, str(report)


@slow
@pytest.mark.usefixtures("x64")
def test_backward_paths_of_a_guided_filter_are_unbiased() -> None:
    flat = Proposal(transition=lambda state, t: dist.CategoricalProbs(jnp.full(2, 0.5)))
    assert largest_error(tiny(Systematic()), propose(hmm(), flat)) < 1e-10


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("owner", "name", "fragment", "fault", "num_moves"),
    [
        # W forgotten; the density forgotten; the ratio inverted; moves proposed without W.
        (backward, "_draw_exactly", "now.log_weights + log_density", "log_density", None),
        pytest.param(
            backward,
            "_draw_exactly",
            "+ log_density(now.particles, repeated, t, process)",
            "",
            None,
            marks=slow,
        ),
        pytest.param(
            backward, "_move", "log_density - current", "current - log_density", 1, marks=slow
        ),
        pytest.param(
            backward,
            "_move",
            "random.categorical(key_draw, now.log_weights, shape=rows.shape)",
            "random.categorical(key_draw, 0 * now.log_weights, shape=rows.shape)",
            1,
            marks=slow,
        ),
    ],
)
def test_a_wrong_backward_law_is_seen(monkeypatch, owner, name, fragment, fault, num_moves) -> None:
    plant(monkeypatch, owner, name, fragment, fault)
    assert largest_error(tiny(Systematic(), num_moves=num_moves)) > 1e-4


# -------------------------------------------------------------------- moments and pairs

SMOOTHERS = {
    "traceback": Smoother(400),
    "backward": Smoother(100, "backward", num_trajectories=50),
    "moves": Smoother(200, "backward", num_moves=8),
}
each_smoother = pytest.mark.parametrize(
    "name", ["backward", *(pytest.param(n, marks=slow) for n in ("traceback", "moves"))]
)


def summarize(smoother: Smoother, process, statistic: Callable, key: Array, num: int) -> Array:
    """E[statistic(path)] of each run, times Zhat / Z so that its mean is exact: `(R, ...)`."""
    exact = process.log_evidence()

    def run(key: Array) -> Array:
        posterior = smoother.run(key, process)
        history = posterior.history
        assert history is not None
        paths = genealogy.trace(history.records, history.ancestors, process.num_steps)
        mean = jnp.tensordot(posterior.normalized(), jax.vmap(statistic)(paths), axes=1)
        ratio = jnp.exp(posterior.log_evidence - exact)
        return jnp.append(ratio * mean, ratio)

    return jax.jit(lambda keys: jax.lax.map(run, keys))(jax.random.split(key, num))


@pytest.mark.slow
@each_smoother
def test_linear_gaussian_moments_and_pairs(name: str, key: Array) -> None:
    """Means, second moments, products of neighbours and of the two ends, within 4 errors.

    cov(x_0, x_T) = prod_t J_t cov(x_T), with the gains J_t = cov(x_t, x_{t+1}) / cov(x_{t+1}).
    """
    model = LinearGaussian.simulate(jax.random.key(11), num_steps=5)
    exact = model.smoothed()
    mean, second = exact.means[:, 0], exact.covariances[:, 0, 0] + exact.means[:, 0] ** 2
    pairs = exact.cross_covariances[:, 0, 0] + mean[1:] * mean[:-1]
    gains = exact.cross_covariances[:, 0, 0] / exact.covariances[1:, 0, 0]
    ends = jnp.prod(gains) * exact.covariances[-1, 0, 0] + mean[0] * mean[-1]

    def statistic(path: Float[Array, "T1 1"]) -> Array:
        x = path[:, 0]
        return jnp.concatenate([x, x**2, x[1:] * x[:-1], x[:1] * x[-1:]])

    values = summarize(SMOOTHERS[name], model, statistic, key, 300)
    expected = np.concatenate([mean, second, pairs, [ends], np.ones(1)])
    assert_mean(values, expected, limit=4.5, resolution=0.08)


@slow
@each_smoother
def test_hidden_markov_pairs(name: str, key: Array) -> None:
    """Joint probabilities of neighbours and of the two ends, a Markov chain between them."""
    model = hmm(5)
    exact = model.smoothed()
    steps = np.asarray(exact.pairs / exact.pairs.sum(axis=2, keepdims=True))
    ends = np.asarray(exact.smoothed[0])[:, None] * np.linalg.multi_dot(list(steps))

    def statistic(path: Array) -> Array:
        ones = jax.nn.one_hot(path, 2)
        neighbours = ones[:-1, :, None] * ones[1:, None, :]
        return jnp.append(neighbours.reshape(-1), ones[0][:, None] * ones[-1][None])

    values = summarize(SMOOTHERS[name], model, statistic, key, 300)
    expected = np.concatenate([np.asarray(exact.pairs).reshape(-1), ends.reshape(-1), [1.0]])
    assert_mean(values, expected, limit=4.5, resolution=0.01)


@slow
def test_backward_paths_do_not_coalesce(key: Array) -> None:
    model = StochasticVolatility.simulate(jax.random.key(1), num_steps=60)
    traced = infer(key, model, Smoother(100, ess_threshold=1.0)).trajectories()
    drawn = infer(key, model, Smoother(100, "backward", ess_threshold=1.0)).trajectories()
    moved = infer(key, model, Smoother(100, "backward", num_moves=5)).trajectories()
    distinct = [len(np.unique(paths[:, 0])) for paths in (traced, moved, drawn)]
    assert distinct[0] < 15 and min(distinct[1:]) > 30, distinct


# -------------------------------------------------------------------- fixed lag


@pytest.mark.slow
def test_a_lag_of_the_whole_series_is_the_traceback(key: Array) -> None:
    model = LinearGaussian.simulate(jax.random.key(11), num_steps=5)
    traced = infer(key, model, Smoother(50))
    mean = jnp.tensordot(traced.normalized(), traced.trajectories(), axes=1)
    for lag in (5, 8):
        lagged = infer(key, model, Smoother(50, "fixed_lag", lag=lag))
        np.testing.assert_allclose(lagged.info["smoothed"], mean, atol=1e-5)
        assert float(lagged.log_evidence) == float(traced.log_evidence)


@slow
def test_a_short_lag_is_the_law_given_data_up_to_the_lag(key: Array) -> None:
    """Its target is known: x_t given y up to t + L, by Kalman on the shorter series."""
    model, lag = LinearGaussian.simulate(jax.random.key(11), num_steps=7), 2
    means, pairs = [], [jnp.nan]
    for t in range(8):
        known = min(t + lag, 7)
        exact = LinearGaussian(
            model.observations[:known],
            *(getattr(model, n) for n in (
                "transition_matrix", "transition_covariance", "observation_matrix",
                "observation_covariance", "initial_mean", "initial_covariance",
            )),
        ).smoothed()  # fmt: skip
        means.append(exact.means[t, 0])
        if t:
            product = exact.means[t, 0] * exact.means[t - 1, 0]
            pairs.append(exact.cross_covariances[t - 1, 0, 0] + product)

    def run(statistic):
        smoother = Smoother(1000, "fixed_lag", lag=lag, statistic=statistic)
        run = jax.jit(jax.vmap(lambda k: smoother.run(k, model).info["smoothed"]))
        return np.asarray(run(jax.random.split(key, 60)))[..., 0]

    # The ratio is biased by O(1 / N), here a thousandth: below the standard error.
    assert_mean(run(None), np.array(means), limit=4.5, resolution=0.02)
    products = run(lambda previous, state: previous * state)
    assert np.all(np.isnan(products[:, 0]))
    assert_mean(products[:, 1:], np.array(pairs[1:]), limit=4.5, resolution=0.05)
    full = np.asarray(model.smoothed().means[:, 0])
    assert np.max(np.abs(np.array(means) - full)) > 0.01  # the stated bias is there


@slow
def test_rows_that_finished_are_remembered_as_they_are(key: Array) -> None:
    """Strings end at different steps; a resting row is recorded at every time, as in a history."""
    process = Language.draw(seed=7, num_symbols=2, depth=4, stop=True).process("odds")
    lagged = infer(key, process, Smoother(40, "fixed_lag", lag=3))
    posterior = infer(key, process, Smoother(40))
    mean = posterior.normalized() @ posterior.trajectories().astype(float)
    np.testing.assert_allclose(lagged.info["smoothed"][: mean.size], mean, atol=1e-5)


def test_fixed_lag_keeps_no_history(key: Array) -> None:
    model = LinearGaussian.simulate(jax.random.key(11), num_steps=40)
    posterior = infer(key, model, Smoother(100, "fixed_lag", lag=2))
    assert posterior.history is None and posterior.info["smoothed"].shape == (41, 1)
    sizes = [x.size for x in jax.tree.leaves(posterior.particles)]
    assert max(sizes) == 100


# -------------------------------------------------------------------- interface


@slow
def test_a_program_is_smoothed_by_site_names(key: Array) -> None:
    model = LinearGaussian.simulate(jax.random.key(11), num_steps=4)
    paths = infer(key, model.program(), Smoother(1500, "backward", num_moves=6)).trajectories()
    assert paths["x"].shape == (1500, 4, 1) and paths["x_0"].shape == (1500, 1)
    mean = jnp.concatenate([paths["x_0"].mean(0)[None], paths["x"].mean(0)])
    np.testing.assert_allclose(mean, model.smoothed().means, atol=0.12)


def test_path_dependent_and_unfixed_processes_are_refused(key: Array, monkeypatch) -> None:
    language = Language.draw(seed=7, num_symbols=2, depth=3, stop=True).process("odds")
    with monkeypatch.context() as patch:
        patch.setattr(type(language), "replay", AbstractProcess.replay)
        with pytest.raises(NotImplementedError, match="PrefixProcess does not define `replay`"):
            infer(key, language, Smoother(4, "backward"))

    def with_parameter(y):
        import numpyro
        from numpyro.contrib.control_flow import scan

        scale = numpyro.sample("scale", dist.HalfNormal(1.0))

        def step(x, y):
            x = numpyro.sample("x", dist.Normal(x, scale))
            numpyro.sample("y", dist.Normal(x, 1.0), obs=y)
            return x, None

        scan(step, jnp.zeros(()), y)

    with pytest.raises(NotImplementedError, match=r"random are \['scale'\]"):
        infer(key, bind(with_parameter, jnp.zeros(3)), Smoother(4, "backward"))

    remembers = tilt(hmm(3), Drift(), how="product")
    paths = infer(key, remembers, Smoother(4, "backward")).trajectories()
    assert paths.shape == (4, 4)
    with pytest.raises(Exception, match="backward sampling needs Markov states"):
        infer(key, Summing(), Smoother(8, "backward"))


class Drift:
    """A potential of the present state alone."""

    def __call__(self, states, t):
        return 0.1 * states


class Summing(AbstractProcess):
    """A random walk that also keeps its running sum, which its record does not show."""

    num_steps: int = 2
    target: str = "walk"

    def init(self, key, num_particles):
        x = random.normal(key, (num_particles,))
        return {"x": x, "sum": x}, jnp.zeros(num_particles)

    def extend(self, key, particles, t):
        x = particles["x"] + random.normal(key, particles["x"].shape)
        return {"x": x, "sum": particles["sum"] + x}, -(particles["sum"] ** 2)

    def record(self, particles, t):
        return particles["x"]

    def replay(self, particles, record, t):
        log_probs = -0.5 * (record - particles["x"]) ** 2
        moved = {"x": record, "sum": particles["sum"] + record}
        return moved, -(moved["sum"] ** 2), log_probs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "rts"}, "method must be one of"),
        ({"method": "fixed_lag"}, "needs a lag >= 1"),
        ({"method": "fixed_lag", "lag": 0}, "needs a lag >= 1"),
        ({"lag": 3}, "lag belongs to method='fixed_lag'"),
        ({"num_moves": 3}, "num_moves belongs to method='backward'"),
        ({"method": "backward", "num_trajectories": 0}, "must be at least 1"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Smoother(4, **arguments)


@slow
def test_one_step_at_a_time_is_the_compiled_run(key: Array, tmp_path) -> None:
    model = hmm(3)
    for smoother in (Smoother(8, "backward"), Smoother(8, "fixed_lag", lag=1)):
        compiled = infer(key, model, smoother)
        stepped = infer(key, model, smoother, checkpoint=tmp_path / "run.npz")
        np.testing.assert_array_equal(compiled.particles, stepped.particles)
        np.testing.assert_allclose(compiled.log_evidence, stepped.log_evidence)


def test_no_step_at_all_and_one_particle(key: Array) -> None:
    empty = StateSpaceModel(
        initial=dist.Normal(0.0, 1.0),
        transition=lambda state, t: dist.Normal(state, 1.0),
        potential=lambda state, t: -(state**2),
        num_steps=0,
    )
    for smoother in (Smoother(3), Smoother(3, "backward"), Smoother(1, "backward", num_moves=2)):
        assert infer(key, empty, smoother).trajectories().shape[1:] == (1,)
    assert infer(key, empty, Smoother(3, "fixed_lag", lag=2)).info["smoothed"].shape == (1,)
    alone = infer(key, hmm(3), Smoother(1, "backward"))
    assert alone.trajectories().shape == (1, 4)


def test_keys_are_consumed_once(key: Array, key_reuse) -> None:
    infer(key, hmm(2), Smoother(4, "backward", num_moves=2))
