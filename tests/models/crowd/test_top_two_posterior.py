"""The full posterior of the top-two model against quadrature, under NUTS and tempered SMC."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from scipy import stats

from jurax.inference import HMC, NUTS, TemperedSMC, infer
from jurax.models.crowd import Answers, TopTwo, read_tasks, update
from jurax.models.crowd.top_two_posterior import TaskPosterior, prior_of
from jurax.models.crowd.update import check_begins_with
from tests.models.crowd.crowds import draw_top_two
from tests.models.crowd.test_aggregators import likelihood

TINY = Answers(
    {
        "task": [0, 0, 0, 1, 1, 1, 2, 2],
        "worker": [0, 1, 1, 0, 1, 1, 0, 1],
        "label": [0, 0, 1, 2, 2, 1, 1, 1],
    },
    repeats="all",
    classes=range(3),
)


def quadrature(answers: Answers) -> dict:
    """Quadrature over p_1, p_2, log a and log b (Gauss), everything else enumerated."""
    nodes, weights = np.polynomial.legendre.leggauss(16)
    p, w_p = (nodes + 1) / 2, weights / 2
    w_p = w_p * stats.beta.pdf(p, 1.5, 1.5)
    z, w_z = np.polynomial.hermite_e.hermegauss(7)
    w_z = w_z / w_z.sum()
    points = np.array([0.625, 0.875])
    evidence, mean, pair = 0.0, 0.0, np.zeros((3, 3))
    shapes = [np.exp(0.5 * np.array(pair)) for pair in itertools.product(z, z)]
    chances = [a * b for a, b in itertools.product(w_z, w_z)]
    priors = [np.asarray(prior_of(jnp.asarray(s), jnp.asarray(points))) for s in shapes]
    prior_weights = np.array(chances)
    for (i, first), (k, second) in itertools.product(enumerate(p), enumerate(p)):
        tasks = np.zeros((answers.num_tasks, 3, 3, 2))  # likelihood of each task given g, h, q
        for j in range(answers.num_tasks):
            rows = answers.task == j
            for g, h in itertools.permutations(range(3), 2):
                for m, q in enumerate(points):
                    data = answers.label[rows], answers.worker[rows], (first, second)
                    tasks[j, g, h, m] = likelihood(*data, q, g, h, 3) / 6
        for prior, chance in zip(priors, prior_weights, strict=True):
            by_task = tasks @ prior
            total = by_task.sum(axis=(1, 2))
            mass = w_p[i] * w_p[k] * chance * np.prod(total)
            evidence += mass
            mean += mass * first
            pair += mass * by_task[0] / total[0]
    return {"log_evidence": np.log(evidence), "p": mean / evidence, "pairs": pair / evidence}


@pytest.fixture(scope="module")
def exact() -> dict:
    return quadrature(TINY)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nuts", "tempered"])
def test_samplers_agree_with_quadrature(name: str, exact: dict, key: Array) -> None:
    program = TopTwo(num_points=2).program(TINY)
    algorithm = {
        "nuts": NUTS(1000, 500, 4),
        "tempered": TemperedSMC(4000, move=HMC(num_leapfrogs=5), num_moves=5),
    }[name]
    key_run, key_read = jax.random.split(key)
    posterior = infer(key_run, program, algorithm)
    found = read_tasks(key_read, posterior, TINY, num_points=2, num_draws=2000)
    # 2,000 draws of a mean with an sd of .25: .006; five of them.
    assert found.reliability[:, 0].mean() == pytest.approx(exact["p"], abs=0.03)
    np.testing.assert_allclose(found.pairs[0], exact["pairs"], atol=0.02)
    if name == "tempered":
        assert float(posterior.log_evidence) == pytest.approx(exact["log_evidence"], abs=0.05)


def test_quantiles_are_interpolated() -> None:
    confusion, points = np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([0.625, 0.875])
    found = TaskPosterior(
        np.zeros((2, 3, 3)), confusion, np.zeros((2, 3)), points, np.zeros((1, 1)), TINY
    )
    np.testing.assert_allclose(found.quantile(0.5), [0.75, 0.625])
    np.testing.assert_allclose(found.quantile(0.25), [0.625, 0.5625])


@pytest.mark.slow
def test_intervals_cover_and_sets_are_surer_than_orders(key: Array) -> None:
    table, first, second, q, p = draw_top_two(np.random.default_rng(3), 150, 25, 4, 0.5)
    answers = Answers(table, classes=range(4))
    key_run, key_read = jax.random.split(key)
    posterior = infer(key_run, TopTwo().program(answers), NUTS(300, 300, 2))
    found = read_tasks(key_read, posterior, answers)
    tasks, workers = (
        {name: np.asarray(column) for name, column in frame.sort_index().items()}
        for frame in (found.tasks, found.workers)
    )
    assert tasks["p_order"].min() >= 0.5 and tasks["p_order"].max() <= 1
    inside = (workers["p_lower"] <= p) & (p <= workers["p_upper"])
    assert inside.sum() >= 18  # of 25 at 90 %: below 18 by chance once in 440 runs
    covered = (tasks["q_lower"] <= q) & (q <= tasks["q_upper"])
    assert 0.8 < covered.mean() < 0.99
    wrong = np.mean(tasks["label"] != first)
    assert wrong == pytest.approx(tasks["p_wrong"].mean(), abs=0.1)


def test_prior_of_q_has_the_masses_of_its_density() -> None:
    points = np.array([0.5625, 0.6875, 0.8125, 0.9375])
    a, b = 0.7, 1.8
    found = prior_of(jnp.asarray([a, b]), jnp.asarray(points))
    grid = (np.arange(400_000) + 0.5) / 400_000
    density = a * b * grid ** (a - 1) * (1 - grid**a) ** (b - 1)
    np.testing.assert_allclose(found, density.reshape(4, -1).mean(axis=1) / 4, rtol=1e-2)
    assert float(found.sum()) == pytest.approx(1, rel=1e-5)


def test_two_classes_are_refused() -> None:
    table = {"task": [1, 1], "worker": [1, 2], "label": [0, 1]}
    with pytest.raises(ValueError, match="needs three classes"):
        TopTwo().program(Answers(table))


# -------------------------------------------------------------------- new answers


@pytest.mark.slow
@pytest.mark.parametrize("num_old", [5, 2])
def test_updated_posterior_agrees_with_quadrature(num_old: int, exact: dict, key: Array) -> None:
    """Old answers without task 2 (and, of two, without the second worker)."""
    frame = TINY.frame
    if num_old == 2:
        frame = frame.sort_values("worker", kind="stable")
    before = Answers(frame[:num_old], repeats="all", classes=range(3))
    after = before.added(frame[num_old:], repeats="all")
    assert len(after) == 8 and after.num_workers == 2
    keys = jax.random.split(key, 3)
    first = infer(keys[0], TopTwo(num_points=2).program(before), NUTS(1000, 500, 4))
    second = update(keys[1], first, before, after, num_particles=4000, num_points=2)
    found = read_tasks(keys[2], second, after, num_points=2, num_draws=2000)
    worker = list(after.workers).index(0)
    assert found.reliability[:, worker].mean() == pytest.approx(exact["p"], abs=0.03)
    task = list(after.tasks).index(0)
    np.testing.assert_allclose(found.pairs[task], exact["pairs"], atol=0.02)
    if num_old == 5:
        expected = exact["log_evidence"] - quadrature(before)["log_evidence"]
        assert float(second.log_evidence) == pytest.approx(expected, abs=0.05)


def test_answers_that_do_not_go_on_are_refused() -> None:
    old = Answers(TINY.frame[:4], repeats="all", classes=range(3))
    with pytest.raises(ValueError, match="use after = before.added"):
        check_begins_with(Answers(TINY.frame[::-1], repeats="all", classes=range(3)), old)
    with pytest.raises(ValueError, match="labels that are no classes"):
        old.added({"task": [9], "worker": [9], "label": [7]})
    with pytest.raises(ValueError, match="repeat a pair"):
        old.added({"task": [0], "worker": [0], "label": [1]})
