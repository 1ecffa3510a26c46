"""The entry point: bad input, budgets, faults of potentials, resumption, hosted processes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from jurax.inference import Extend, ImportanceSampling, ParticleFilter, infer, stepwise
from jurax.inference.infer import check_budget_entries
from jurax.ppl import AbstractProcess, Cost, Posterior, laws, random
from tests.exact import Language

FILTER = ParticleFilter(num_particles=8, ess_threshold=0.9)


def language(seed: int = 7) -> Language:
    return Language.draw(seed=seed, num_symbols=2, depth=4, stop=True)


def process(seed: int = 7):
    return language(seed).process("odds")


# -------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("key", "words"),
    [(0, "typed key"), (None, "typed key"), ("legacy", "typed key"), ("pair", "has shape")],
)
def test_wrong_keys_are_refused(key, words: str) -> None:
    made = {"legacy": jax.random.PRNGKey(0), "pair": jax.random.split(jax.random.key(0), 2)}
    with pytest.raises((TypeError, ValueError), match=words):
        infer(made.get(key, key) if isinstance(key, str) else key, process(), FILTER)


def test_wrong_targets_and_algorithms_are_refused(key: Array) -> None:
    with pytest.raises(TypeError, match="target must be a process or a program"):
        infer(key, lambda x: x, FILTER)
    with pytest.raises(TypeError, match="a bare kernel makes single steps"):
        infer(key, process(), Extend())
    with pytest.raises(TypeError, match="such as ParticleFilter"):
        infer(key, process(), ParticleFilter)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        infer(key, process(), ParticleFilter(num_particles=0))


def test_a_process_without_extensions(key: Array) -> None:
    posterior = infer(key, language().process("odds", num_steps=0), FILTER)
    assert int(posterior.info["num_steps"]) == 0 and posterior.status == "ok"
    assert posterior.info["ess"].shape == (0,)
    assert posterior.trajectories().shape == (8, 1)
    assert jnp.isfinite(posterior.log_evidence)
    stepped = infer(key, language().process("odds", num_steps=0), FILTER, progress=True)
    assert float(stepped.log_evidence) == float(posterior.log_evidence)


def test_optional_methods_are_named_where_they_are_missing(key: Array) -> None:
    from jurax.inference import BestOfN, SelfConsistency

    class Bare(AbstractProcess):
        num_steps: int = eqx.field(static=True, default=1)
        target: str = eqx.field(static=True, default="bare")

        def init(self, key, num_particles):
            return jnp.zeros(num_particles), jnp.zeros(num_particles)

        def extend(self, key, particles, t):
            return particles, jnp.zeros_like(particles)

    with pytest.raises(NotImplementedError, match="Bare does not define `prior`"):
        infer(key, Bare(), SelfConsistency(num_particles=2))
    with pytest.raises(NotImplementedError, match="Bare does not define `step_scores`"):
        infer(key, Bare(), BestOfN(num_particles=2))


# -------------------------------------------------------------------- potentials


class Faulty(AbstractProcess):
    """Potentials that are given: increments[t] for every particle, then for the first one only."""

    increments: Array
    num_steps: int = eqx.field(static=True)
    target: str = eqx.field(static=True, default="given potentials")

    def init(self, key, num_particles):
        x = random.normal(key, (num_particles,))
        return x, jnp.broadcast_to(self.increments[0], x.shape)

    def extend(self, key, particles, t):
        first = jnp.arange(particles.shape[0]) == 0
        return particles, jnp.where(first, self.increments[t], -0.1)


@pytest.mark.parametrize("fault", [np.nan, np.inf])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_invalid_potentials_raise_or_are_reported(fault: float, at: int, key: Array) -> None:
    faulty = Faulty(jnp.zeros(3).at[at].set(fault), num_steps=2)
    for options in ({}, {"progress": True}):
        with pytest.raises(ValueError, match="NaN or \\+inf.*throw=False"):
            infer(key, faulty, FILTER, **options)
    posterior = infer(key, faulty, FILTER, throw=False)
    assert posterior.status.startswith("invalid")
    assert not bool(jnp.any(jnp.isnan(posterior.log_weights)))
    assert not bool(jnp.isnan(posterior.log_evidence))
    weight = posterior.normalized()
    assert float(weight.sum()) == pytest.approx(0.0 if at == 0 else 1.0)
    if at == 2:  # resampling has not moved the row since
        assert float(weight[0]) == 0.0


def test_invalid_potentials_are_reported_under_jit(key: Array) -> None:
    faulty = Faulty(jnp.array([0.0, jnp.nan, 0.0]), num_steps=2)
    posterior = jax.jit(lambda key: infer(key, faulty, FILTER))(key)
    assert posterior.status.startswith("invalid")


@pytest.mark.parametrize(
    "algorithm", [FILTER, ImportanceSampling(num_particles=8)], ids=["pf", "is"]
)
@pytest.mark.parametrize("at", [0, 1])
def test_dead_populations_are_reported(algorithm, at: int, key: Array) -> None:
    dying = language()
    if at == 0:
        dying.rewards[0] = 0.0
    else:
        dying.rewards[1:] = 0.0
    posterior = infer(key, dying.process("emission"), algorithm)
    assert posterior.status.startswith("dead") and int(posterior.info["num_steps"]) == at
    assert float(posterior.log_evidence) == -np.inf
    assert posterior.distribution(lambda p: int(p.prefix)).values == []
    assert not any(np.isnan(x).any() for x in jax.tree.leaves(posterior.info))


# -------------------------------------------------------------------- budgets


@pytest.mark.slow
def test_budgets_are_never_exceeded(key: Array) -> None:
    free = infer(key, process(), FILTER)
    spent = float(free.cost.decoded_tokens)
    for tokens in (9, 20, spent):
        for options in ({}, {"progress": True}):
            posterior = infer(key, process(), FILTER, budget=Cost(decoded_tokens=tokens), **options)
            assert float(posterior.cost.decoded_tokens) <= tokens
            stopped = posterior.status.startswith("stopped")
            finished = bool(jnp.all(posterior.particles.done))
            assert stopped != finished
            assert jnp.isfinite(posterior.log_evidence)
    rich = infer(key, process(), FILTER, budget=Cost(decoded_tokens=spent + 100))
    assert rich.status == "ok" and float(rich.cost.decoded_tokens) == spent


def test_a_budget_of_nothing_makes_no_extension(key: Array) -> None:
    posterior = infer(key, process(), FILTER, budget=Cost())
    assert int(posterior.info["num_steps"]) == 0 and posterior.status.startswith("stopped")


@pytest.mark.parametrize("limit", [-1, float("nan")])
def test_senseless_budgets_are_refused(limit: float, key: Array) -> None:
    with pytest.raises(ValueError, match="numbers >= 0"):
        infer(key, process(), FILTER, budget=Cost(decoded_tokens=limit))


def test_budgets_that_could_not_bind_are_refused(key: Array) -> None:
    with pytest.raises(ValueError, match="budget of seconds cannot be kept"):
        infer(key, process(), FILTER, budget=Cost(seconds=1.0))
    with pytest.raises(TypeError, match="budget must be a Cost"):
        check_budget_entries(100)


def test_an_invalid_problem_keeps_to_its_budget(key: Array) -> None:
    faulty = language()
    faulty.rewards[0, 0] = np.nan  # the first symbol may be 0, and then its potential is NaN
    free = infer(key, faulty.process("odds"), FILTER, throw=False)
    assert free.status.startswith("invalid") and int(free.info["num_steps"]) > 1
    budget = Cost(decoded_tokens=float(free.cost.decoded_tokens) - 1)
    posterior = infer(key, faulty.process("odds"), FILTER, budget=budget, throw=False)
    assert float(posterior.cost.decoded_tokens) <= float(budget.decoded_tokens)
    assert posterior.status.startswith("invalid") and "stopped" in posterior.status
    with pytest.raises(ValueError, match="NaN or"):
        infer(key, faulty.process("odds"), FILTER, budget=budget)


# -------------------------------------------------------------------- checkpoints


class Killed(BaseException):
    """Nothing catches it but the test."""


def killed_run(monkeypatch, path, after: int, key: Array, target, algorithm=FILTER) -> None:
    """A run that dies just after its checkpoint number `after`."""
    shipped, kept = stepwise.keep, []

    def keep(*arguments):
        shipped(*arguments)
        kept.append(arguments)
        if len(kept) == after:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(stepwise, "keep", keep)
        with pytest.raises(Killed):
            infer(key, target, algorithm, checkpoint=path)


def assert_equal(first: Posterior, second: Posterior) -> None:
    for posterior in (first, second):
        object.__setattr__(posterior.cost, "seconds", 0.0)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("after", [1, 2])
def test_a_killed_run_resumes_to_the_same_result(
    after: int, key: Array, tmp_path, monkeypatch
) -> None:
    path = tmp_path / "folder" / "run.npz"
    expected = infer(key, process(), FILTER)
    killed_run(monkeypatch, path, after, key, process())
    assert path.exists() and len(list(path.parent.iterdir())) == 1

    steps = []
    shipped = stepwise.keep
    monkeypatch.setattr(stepwise, "keep", lambda *a: (steps.append(1), shipped(*a)))
    resumed = infer(key, process(), FILTER, checkpoint=path)
    assert_equal(resumed, expected)
    assert len(steps) == int(expected.info["num_steps"]) - after  # nothing was done twice
    assert not path.exists()


def test_a_checkpoint_of_another_run_is_refused(key: Array, tmp_path, monkeypatch) -> None:
    path = tmp_path / "run.npz"
    killed_run(monkeypatch, path, 1, key, process())
    others = {
        "key": (jax.random.fold_in(key, 1), process(), FILTER),
        "data": (key, process(8), FILTER),
        "steps": (key, language().process("odds", num_steps=2), FILTER),
        "potentials": (key, language().process("emission"), FILTER),
        "particles": (key, process(), ParticleFilter(num_particles=9, ess_threshold=0.9)),
        "threshold": (key, process(), ParticleFilter(num_particles=8, ess_threshold=0.8)),
    }
    for name, arguments in others.items():
        with pytest.raises(ValueError, match="checkpoint of another run"):
            infer(*arguments, checkpoint=path)
        assert path.exists(), name
    with pytest.raises(ValueError, match="checkpoint of another run"):
        infer(key, process(), FILTER, checkpoint=path, budget=Cost(decoded_tokens=99))


@pytest.mark.parametrize("damage", [b"", b"text", None], ids=["empty", "text", "half"])
def test_a_damaged_checkpoint_is_refused(damage, key: Array, tmp_path, monkeypatch) -> None:
    path = tmp_path / "run.npz"
    killed_run(monkeypatch, path, 1, key, process())
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2] if damage is None else damage)
    with pytest.raises(ValueError, match="not a checkpoint, or is damaged"):
        infer(key, process(), FILTER, checkpoint=path)


def test_progress_is_shown_and_changes_nothing(key: Array, capsys) -> None:
    assert_equal(infer(key, process(), FILTER, progress=True), infer(key, process(), FILTER))


def test_seconds_are_known_on_the_host_only(key: Array) -> None:
    assert float(infer(key, process(), FILTER).cost.seconds) > 0
    assert float(jax.jit(lambda k: infer(k, process(), FILTER))(key).cost.seconds) == 0


# -------------------------------------------------------------------- hosted processes


class Words(AbstractProcess):
    """Texts in a NumPy array of objects, weighted by a plain Python function."""

    num_steps: int = eqx.field(static=True)
    target: str = eqx.field(static=True, default="words that repeat letters")
    hosted = True

    def init(self, key, num_particles):
        letters = random.bernoulli(key, 0.5, (num_particles,))
        return np.array([letter(x) for x in letters], object), -0.5 * letters

    def extend(self, key, particles, t):
        letters = random.bernoulli(key, 0.25, particles.shape)
        texts = [text + letter(x) for text, x in zip(particles, letters, strict=True)]
        increments = [0.0 if text[-1] == text[-2] else -1.0 for text in texts]
        return np.array(texts, object), jnp.array(increments, float)

    def finished(self, particles):
        return jnp.array([text.endswith("aa") for text in particles])


def letter(x) -> str:
    return "b" if bool(x) else "a"


def test_a_hosted_process_runs_under_the_same_filter(key: Array) -> None:
    posterior = infer(key, Words(3), ParticleFilter(num_particles=200, ess_threshold=0.9))
    assert posterior.status == "ok" and set(map(type, posterior.particles)) == {str}
    assert all(len(x) == 4 or x.endswith("aa") for x in posterior.particles)
    assert posterior.trajectories()[0][0] == posterior.particles[0][0]
    assert posterior.sample(key, 5).shape == (5,)
    exact = laws.enumerate_process(Words(3))
    expected = exact.distribution(lambda path: path[-1])
    law = posterior.distribution(lambda text: text)
    for text, probability, error in zip(
        law.values, law.probabilities, law.standard_errors, strict=True
    ):
        assert abs(probability - expected[text]) < 5 * error + 0.01


@pytest.mark.slow
def test_a_hosted_process_obeys_the_law() -> None:
    algorithm = ParticleFilter(num_particles=2, ess_threshold=0.95)
    report = laws.check_unbiased(algorithm, Words(1))
    assert report, str(report)
    assert min(report.branches["resampled"]) > 0


def test_a_killed_hosted_run_resumes(key: Array, tmp_path, monkeypatch) -> None:
    path = tmp_path / "run.npz"
    expected = infer(key, Words(3), FILTER)
    killed_run(monkeypatch, path, 1, key, Words(3))
    assert_equal(infer(key, Words(3), FILTER, checkpoint=path), expected)


def test_texts_are_saved_and_loaded(key: Array, tmp_path) -> None:
    posterior = infer(key, Words(3), FILTER)
    posterior.save(tmp_path / "words.npz")
    loaded = Posterior.load(tmp_path / "words.npz")
    assert loaded.particles.tolist() == posterior.particles.tolist()
    assert loaded.trajectories().tolist() == posterior.trajectories().tolist()
    assert posterior.to_arviz().posterior["x"].shape == (1, 8, 4)


def test_objects_that_are_no_data_are_not_saved(key: Array, tmp_path) -> None:
    posterior = infer(key, Words(1), FILTER)
    posterior.particles[:] = [object()] * 8
    with pytest.raises(TypeError, match="cannot be written to a file"):
        posterior.save(tmp_path / "words.npz")
    assert list(tmp_path.iterdir()) == []
