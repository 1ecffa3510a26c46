"""The shipped models pass the gates of the suite on problems that nothing was fitted to."""

import jax
import numpy as np
import pytest

from jurax.inference import BestOfN, infer
from jurax.models.language import DialledReward, NoisyExecutor, Reasoning, gates, regchain
from jurax.models.language.default import load_default
from jurax.models.language.labelled_samples import Samples


@pytest.mark.slow
def test_shipped_models_pass_the_gates_on_300_unseen_problems() -> None:
    problems = regchain.problems("test", 300, seed=0)
    found = gates.measure(jax.random.key(0), *load_default(), problems, num_samples=64)
    assert found.failures() == [], found


def test_a_bad_pool_is_reported_gate_by_gate() -> None:
    """Every sample right: nothing to find, nothing to select."""
    problems = regchain.problems("validation", 8, seed=0)
    samples = Samples(
        scores=np.zeros((8, 16, 5), np.float32),
        live=np.ones((8, 16, 5), bool),
        right=np.ones((8, 16), bool),
        answers=np.array([[p.answer] * 16 for p in problems], object),
    )
    failures = " ".join(gates.summarize(problems, samples).failures())
    for gate in ("pass@1 is", "majority is", "outcome AUC", "best-of-16"):
        assert gate in failures, failures


def best_of_64(hack_bonus: float) -> float:
    """Share of 200 problems that best-of-64 by the dialled reward gets right."""
    problems = regchain.problems("validation", 200, seed=3, lengths=(5, 5))
    reward = DialledReward(hack_bonus=hack_bonus)
    process = Reasoning(NoisyExecutor(), reward, [p.prompt for p in problems], max_steps=6)
    posterior = infer(jax.random.key(1), process, BestOfN(64, history=False))
    tops = [posterior[i].distribution(process.answer) for i in range(len(problems))]
    return float(np.mean([t.values[0] == p.answer for t, p in zip(tops, problems, strict=True)]))


@pytest.mark.slow
def test_the_hack_dial_lowers_best_of_64_by_a_tenth() -> None:
    assert best_of_64(0.0) - best_of_64(2.5) >= 0.10
