"""Data from the prior: ranks are uniform, intervals cover, stated probabilities come true."""

import jax
import numpy as np
import pandas as pd
import pytest
from jaxtyping import Array
from scipy import stats

from jurax.inference import NUTS, infer
from jurax.inference.calibration import expected_calibration_error
from jurax.models.crowd import Answers, TopTwo, read_tasks

NUM_SETS, NUM_TASKS, NUM_WORKERS, PER_TASK, NUM_CLASSES = 200, 100, 20, 10, 4


def draw(rng: np.random.Generator) -> tuple[Answers, np.ndarray, np.ndarray, np.ndarray]:
    """(Answers, g, q, p) of the program's prior, with q off the grid."""
    shape = np.exp(0.5 * rng.normal(size=2))
    p = rng.beta(1.5, 1.5, NUM_WORKERS)
    uniform = rng.random(NUM_TASKS)  # inverse distribution function of Kumaraswamy
    q = 0.5 + 0.5 * (1 - (1 - uniform) ** (1 / shape[1])) ** (1 / shape[0])
    g = rng.integers(NUM_CLASSES, size=NUM_TASKS)
    h = (g + rng.integers(1, NUM_CLASSES, size=NUM_TASKS)) % NUM_CLASSES
    task = np.repeat(np.arange(NUM_TASKS), PER_TASK)
    worker = rng.random((NUM_TASKS, NUM_WORKERS)).argsort(axis=1)[:, :PER_TASK].ravel()
    label = np.where(rng.random(len(task)) < q[task], g[task], h[task])
    guess = rng.integers(NUM_CLASSES, size=len(task))
    label = np.where(rng.random(len(task)) < p[worker], label, guess)
    table = pd.DataFrame({"task": task, "worker": worker, "label": label})
    answers = Answers(table, classes=range(NUM_CLASSES))
    return answers, g[answers.tasks], q[answers.tasks], p[answers.workers]


@pytest.fixture(scope="module")
def pooled() -> dict[str, np.ndarray]:
    """What the posteriors of all data sets say of the truth."""
    found: dict[str, list] = {name: [] for name in ("p rank", "p in", "q pit", "q in", "c", "hit")}
    for seed in range(NUM_SETS):
        answers, g, q, p = draw(np.random.default_rng([7, seed]))
        keys = jax.random.split(jax.random.key(seed))
        posterior = infer(keys[0], TopTwo().program(answers), NUTS(200, 200, num_chains=1))
        tasks = read_tasks(keys[1], posterior, answers, num_draws=200)
        table, workers, probas = tasks.tasks, tasks.workers, tasks.estimate_.probas
        found["p rank"].append((tasks.reliability < p[None, :]).mean(axis=0))
        found["p in"].append((workers["p_lower"] <= p) & (p <= workers["p_upper"]))
        found["q in"].append((table["q_lower"] <= q) & (q <= table["q_upper"]))
        below = np.pad(tasks.confusion.cumsum(axis=1), ((0, 0), (1, 0)))
        edges = np.linspace(0.5, 1, below.shape[1])
        found["q pit"].append([np.interp(x, edges, row) for x, row in zip(q, below, strict=True)])
        found["c"].append(probas.max(axis=1))
        found["hit"].append(probas.argmax(axis=1) == g)
    return {name: np.concatenate(values) for name, values in found.items()}


@pytest.mark.slow
def test_stated_probabilities_come_true(pooled: dict) -> None:
    assert len(pooled["hit"]) >= 20_000
    assert expected_calibration_error(pooled["c"], pooled["hit"]) <= 0.02


@pytest.mark.slow
@pytest.mark.parametrize("name", ["p in", "q in"])
def test_ninety_percent_intervals_cover(name: str, pooled: dict) -> None:
    assert len(pooled[name]) >= 2_000
    assert 0.87 <= pooled[name].mean() <= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("name", ["p rank", "q pit"])
def test_ranks_are_uniform(name: str, pooled: dict, key: Array) -> None:
    """One rank of each data set, so that ranks are independent; .01 shared by the two tests."""
    del key
    each = pooled[name].reshape(NUM_SETS, -1)[:, 0]
    counts = np.histogram(each, bins=10, range=(0, 1 + 1e-9))[0]
    assert stats.chisquare(counts).pvalue > 0.01 / 2
