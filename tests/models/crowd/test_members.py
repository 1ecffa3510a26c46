"""GLAD, MACE, KOS, M-MSR and the released top-two rule against their equations, done by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy.special import digamma, expit

from jurax.models.crowd import GLAD, KOS, MACE, MMSR, Answers, TopTwo, glad, mace, released
from jurax.models.crowd.em import Edges
from jurax.models.crowd.spectral import leading_vector
from tests.models.crowd.crowds import draw_top_two


def crowd(seed: int = 0, num_classes: int = 4, num_tasks: int = 40) -> Answers:
    rng = np.random.default_rng(seed)
    table = draw_top_two(rng, num_tasks, 12, num_classes, 0.5)[0]
    return Answers(table, classes=range(num_classes))


def free(answers: Answers) -> np.ndarray:
    return np.full(answers.num_tasks, -1)


def normalized(rows: np.ndarray) -> np.ndarray:
    return rows / rows.sum(axis=1, keepdims=True)


# -------------------------------------------------------------------- GLAD


def glad_objective(answers: Answers, ability, easiness) -> tuple[float, np.ndarray]:
    """log p(answers, alpha, b) up to a constant, and the posterior of the labels, by loops."""
    num = answers.num_classes
    mass = np.full((answers.num_tasks, num), 1 / num)
    for j, i, y in zip(answers.task, answers.worker, answers.label, strict=True):
        right = expit(ability[i] * np.exp(easiness[j]))
        mass[j] *= np.where(np.arange(num) == y, right, (1 - right) / (num - 1))
    priors = -0.5 * (np.sum((ability - 1) ** 2) + np.sum((easiness - 1) ** 2))
    return np.log(mass.sum(axis=1)).sum() + priors, normalized(mass)


def test_glad_reports_the_posterior_of_its_parameters(x64) -> None:
    answers = crowd()
    model = GLAD(n_iter=500, tol=0.0).fit(answers)
    value, probas = glad_objective(answers, model.alphas_.to_numpy(), model.betas_.to_numpy())
    np.testing.assert_allclose(model.probas_, probas, atol=1e-8)
    assert model.estimate_.log_likelihood == pytest.approx(value / len(answers), rel=1e-10)


def test_glad_ends_where_no_parameter_can_be_improved(x64) -> None:
    answers = crowd()
    model = GLAD(n_iter=2000, tol=0.0).fit(answers)
    ability, easiness = model.alphas_.to_numpy().copy(), model.betas_.to_numpy().copy()
    best, _ = glad_objective(answers, ability, easiness)
    for parameters in (ability, easiness):
        for index in range(len(parameters)):
            for change in (-1e-2, 1e-2):
                parameters[index] += change
                assert glad_objective(answers, ability, easiness)[0] < best
                parameters[index] -= change


def test_each_ascent_of_glad_raises_its_objective(x64) -> None:
    answers, rng = crowd(1), np.random.default_rng(0)
    edges = Edges.of(answers, free(answers))
    target = jnp.asarray(rng.random(len(answers)))

    def objective(ability, easiness) -> float:
        x = glad.logits(edges, ability, easiness)
        terms = target * jax.nn.log_sigmoid(x) + (1 - target) * jax.nn.log_sigmoid(-x)
        priors = jnp.sum((ability - 1) ** 2) + jnp.sum((easiness - 1) ** 2)
        return float(jnp.sum(terms) - 0.5 * priors)

    for scale in (0.3, 3.0):
        ability = jnp.asarray(scale * rng.normal(size=answers.num_workers))
        easiness = jnp.asarray(scale * rng.normal(size=answers.num_tasks))
        start = objective(ability, easiness)
        better = glad.better_ability(edges, target, ability, easiness)
        middle = objective(better, easiness)
        end = objective(better, glad.better_easiness(edges, target, better, easiness))
        assert start < middle < end


# -------------------------------------------------------------------- MACE


def test_mace_is_its_variational_fixed_point(x64) -> None:
    """Theta and xi from the expected counts, and the counts from them, by loops."""
    answers = crowd(2)
    model = MACE(n_iter=3000, tol=0.0, n_restarts=2).fit(answers)
    num, probas = answers.num_classes, model.probas_.to_numpy()
    numbers = np.bincount(answers.worker)
    # The means are (known + 1/2) / (answers + 1) and (habitual + 10) / (sum + 10 K).
    known = model.skills_.to_numpy() * (numbers + 1) - 0.5
    total = numbers - known
    habitual = model.thetas_.to_numpy() * (total + 10 * num)[:, None] - 10
    theta, spams = (np.exp(digamma(x + 0.5) - digamma(numbers + 1)) for x in (known, total))
    habit = np.exp(digamma(habitual + 10) - digamma(total + 10 * num)[:, None])
    mass, counts = np.ones((answers.num_tasks, num)), np.zeros(answers.num_workers)
    rows = list(zip(answers.task, answers.worker, answers.label, strict=True))
    for j, i, y in rows:
        mass[j] *= theta[i] * (np.arange(num) == y) + spams[i] * habit[i, y]
    np.testing.assert_allclose(normalized(mass), probas, atol=1e-6)
    for j, i, y in rows:
        counts[i] += probas[j, y] * theta[i] / (theta[i] + spams[i] * habit[i, y])
    np.testing.assert_allclose(counts, known, atol=1e-5)


def test_restarts_of_mace_cannot_lower_its_likelihood() -> None:
    answers = crowd(3)
    one, ten = (MACE(n_restarts=n).fit(answers).estimate_.log_likelihood for n in (1, 10))
    assert ten >= one - 1e-5


# -------------------------------------------------------------------- KOS


def binary(seed: int, num_tasks: int = 300) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Fifteen workers, some of them adversaries, five answers a task."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(2, size=num_tasks)
    skill = np.array([0.95] * 6 + [0.55] * 6 + [0.1] * 3)
    task, worker = np.nonzero(rng.random((num_tasks, 15)).argsort(axis=1) < 5)
    right = rng.random(len(task)) < skill[worker]
    label = np.where(right, truth[task], 1 - truth[task])
    return pd.DataFrame({"task": task, "worker": worker, "label": label}), truth, skill


def test_messages_are_those_of_loops_over_neighbours(x64) -> None:
    table, *_ = binary(0, 12)
    answers = Answers(table)
    model = KOS(n_iter=3, tol=0.0).fit(answers)
    y = 1 + np.asarray(jax.random.normal(jax.random.key(0), (len(answers),)))
    sign, size = 2.0 * answers.label - 1, len(answers)
    for _ in range(3):
        x, new = np.zeros(size), np.zeros(size)
        for e in range(size):
            others = (answers.task == answers.task[e]) & (np.arange(size) != e)
            x[e] = np.sum(sign[others] * y[others])
        for e in range(size):
            others = (answers.worker == answers.worker[e]) & (np.arange(size) != e)
            new[e] = np.sum(sign[others] * x[others])
        y = new / np.sqrt(np.mean(new**2))
    score = np.bincount(answers.task, sign * y)
    np.testing.assert_array_equal(model.labels_.to_numpy(), (score > 0).astype(int))
    weight = np.bincount(answers.task, np.abs(y))
    np.testing.assert_allclose(model.probas_[1], (1 + score / weight) / 2, rtol=1e-10)


def test_svd_is_the_leading_singular_vector() -> None:
    table, *_ = binary(1)
    answers = Answers(table)
    model = KOS(method="svd", n_iter=1000, tol=1e-12).fit(answers)
    matrix = np.zeros((answers.num_tasks, answers.num_workers))
    matrix[answers.task, answers.worker] = 2 * answers.label - 1
    right = np.linalg.svd(matrix)[2][0]
    score = matrix @ (right * np.sign(right.sum()))
    np.testing.assert_array_equal(model.labels_.to_numpy(), (score > 0).astype(int))


@pytest.mark.parametrize("method", ["messages", "svd"])
def test_kos_turns_adversaries_round(method: str) -> None:
    table, truth, skill = binary(2)
    model = KOS(method=method).fit(table)
    assert np.mean(model.labels_.sort_index() == truth) > 0.9  # a vote: about .75
    assert model.skills_.sort_index().to_numpy()[skill < 0.5].max() < 0.3
    flipped = KOS(method=method).fit(table.assign(label=1 - table["label"]))
    np.testing.assert_allclose(flipped.probas_[0], model.probas_[1], atol=1e-5)


def test_kos_refuses_more_classes_and_survives_single_answers() -> None:
    with pytest.raises(ValueError, match="KOS is for two classes and the table has 4"):
        KOS().fit(crowd())
    alone = {"task": [1, 2, 3], "worker": [1, 2, 3], "label": list("aba")}
    assert KOS().fit_predict(alone).tolist() == ["a", "b", "a"]


@pytest.mark.parametrize("method", ["messages", "svd"])
def test_known_labels_are_kept_by_kos_and_inform_the_others(method: str) -> None:
    table, truth, _ = binary(3, 60)
    wrong = pd.Series(1 - truth[:40])  # knowledge that turns everything round
    model = KOS(method=method).fit(table, gold=wrong)
    labels = model.labels_.sort_index()
    assert (labels[:40] == wrong).all() and np.mean(labels[40:] == truth[40:]) < 0.3


# -------------------------------------------------------------------- M-MSR


def test_skills_of_mmsr_are_recovered_from_many_answers() -> None:
    rng = np.random.default_rng(0)
    num_tasks, num = 4000, 3
    accuracy = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.45, 0.15, 0.8, 0.6])
    truth = rng.integers(num, size=num_tasks)
    task, worker = np.nonzero(rng.random((num_tasks, len(accuracy))) < 0.7)
    right = rng.random(len(task)) < accuracy[worker]
    wrong = (truth[task] + rng.integers(1, num, size=len(task))) % num
    label = np.where(right, truth[task], wrong)
    table = {"task": task, "worker": worker, "label": label}
    model = MMSR(num_removed=0).fit(table)
    # An agreement of 2,000 common tasks has an sd of .011; the mean of eight ratios less.
    np.testing.assert_allclose(model.skills_.sort_index(), accuracy, atol=0.04)


def test_mmsr_is_not_moved_by_one_strange_pair() -> None:
    """Two copies of one worker agree too much; the trimmed means leave that pair out."""
    answers = crowd(4, 4, 400)
    frame = pd.DataFrame({"task": answers.task, "worker": answers.worker, "label": answers.label})
    copied = pd.concat([frame, frame[frame["worker"] == 0].assign(worker=99)])
    plain = float(MMSR().fit(frame).skills_[0])
    trimmed, mean = (float(MMSR(num_removed=n).fit(copied).skills_[0]) for n in (2, 0))
    assert abs(trimmed - plain) < abs(mean - plain)


# -------------------------------------------------------------------- released rule


def test_released_differences_penalise_the_first_and_the_last_class() -> None:
    """With O the mask: D = (1/s) sum u (O/K - 1{y = k}) + shift + a term of the two end classes."""
    answers = crowd(5)
    num, size = answers.num_classes, answers.num_tasks * answers.num_workers
    share = len(answers) / size
    found = released.differences(answers)
    offsets = [share * (num - 2 * k) / num for k in range(1, num)]
    dense = np.zeros((num - 1, answers.num_workers, answers.num_tasks))
    observed = np.zeros(dense.shape[1:])
    for j, i, y in zip(answers.task, answers.worker, answers.label, strict=True):
        dense[:, i, j] = np.where(y >= np.arange(1, num), 1, -1)
        observed[i, j] = 1
    left = []
    for k in range(num - 1):
        vector = np.linalg.svd(dense[k] - offsets[k])[0][:, 0]
        left.append(vector * np.sign(vector.sum()))
    u = np.clip(np.mean(left, axis=0), 0, 1)
    expected = np.zeros((answers.num_tasks, num))
    for k in range(num):
        given = np.zeros_like(observed)
        rows = answers.label == k
        given[answers.worker[rows], answers.task[rows]] = 1
        expected[:, k] = u @ (observed / num - given) / share
    surplus = u @ (observed - share) / (2 * share)
    expected[:, 0] += surplus
    expected[:, -1] += surplus
    shift = (found - expected).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected + shift, atol=1e-8)


def test_released_rule_depends_on_class_numbers_and_the_sound_one_does_not() -> None:
    table = draw_top_two(np.random.default_rng(6), 200, 20, 5, 0.3)[0]
    order = np.array([2, 0, 4, 1, 3])
    turned = table.assign(label=order[table["label"]])
    for method, same in (("released", False), ("spectral", True)):
        first, second = (TopTwo(method=method).fit(t).skills_ for t in (table, turned))
        assert np.allclose(first, second, atol=1e-4) == same


# -------------------------------------------------------------------- all


@pytest.mark.parametrize("size", [6, 450])
@pytest.mark.parametrize("make", [MMSR, TopTwo, lambda: TopTwo(method="spectral")])
def test_workers_without_a_common_task_keep_their_answers(make, size: int) -> None:
    """Dense and iterative eigenvectors of a matrix of zeros."""
    labels = [*"abc"] * (size // 3)
    table = {"task": range(size), "worker": range(size), "label": labels}
    model = make().fit({name: list(column) for name, column in table.items()})
    assert model.labels_.tolist() == labels and np.isfinite(model.skills_).all()
    assert np.ptp(model.skills_) < 1e-6  # nothing tells the workers apart


@pytest.mark.parametrize("size", [300, 500])
def test_leading_vectors_are_those_of_all_eigenvectors(size: int) -> None:
    """Rows that sum to zero: ones are in the kernel."""
    half = np.random.default_rng(0).normal(size=(size, 3))
    half -= half.mean(axis=0, keepdims=True)
    matrix = half @ half.T
    found = leading_vector(matrix)
    expected = np.linalg.eigh(matrix)[1][:, -1]
    assert abs(found @ expected) == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize(
    ("constructor", "message"),
    [
        (lambda: GLAD(priors="flat"), "priors must be one of"),
        (lambda: MACE(n_restarts=0), "n_restarts must be at least 1"),
        (lambda: KOS(method="qr"), "method must be one of"),
        (lambda: MMSR(num_removed=-1), "num_removed must be at least 0"),
    ],
)
def test_options_that_cannot_be_are_refused(constructor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        constructor()


def test_mace_expects_the_counts_of_enumeration(x64) -> None:
    """Known answers: z and whether each answer is known, enumerated, for one task."""
    answers = Answers({"task": [0] * 3, "worker": [0, 1, 2], "label": [0, 0, 1]}, classes=range(3))
    edges = Edges.of(answers, np.array([-1]))
    theta, habit = np.array([0.3, 0.6, 0.8]), np.array([[0.2, 0.3, 0.5]] * 3)
    arrays = [jnp.asarray(x) for x in (theta, 1 - theta, habit)]
    probas, log_likelihood = mace.posterior(edges, *arrays)
    known, _ = mace.expected_counts(edges, probas, *arrays)
    total, counts = 0.0, np.zeros(3)
    for z in range(3):
        for pattern in np.ndindex(2, 2, 2):
            mass = 1 / 3
            for i, (y, is_known) in enumerate(zip(answers.label, pattern, strict=True)):
                mass *= theta[i] * (y == z) if is_known else (1 - theta[i]) * habit[i, y]
            total, counts = total + mass, counts + mass * np.array(pattern)
    np.testing.assert_allclose(known, counts / total, rtol=1e-10)
    assert float(log_likelihood) == pytest.approx(np.log(total), rel=1e-10)
