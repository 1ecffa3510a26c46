"""The law of the transformer's own draws: one token, and the tokens of one step together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jurax.models.language import decoder, regchain
from jurax.models.language.decoder import draw_token
from jurax.models.language.default import WEIGHTS, load_policy

pytestmark = pytest.mark.rank_promotion("allow")
ERROR = 1e-6  # a right law fails this often, for each figure checked
PROMPT = regchain.problems("validation", 1, seed=5)[0].prompt


def p_value(counts: np.ndarray, probabilities: np.ndarray, total: int) -> float:
    """Chi-square test; outcomes expected fewer than ten times are one outcome, seen or not."""
    large = probabilities * total >= 10
    counts, probabilities = counts[large], probabilities[large]
    observed = np.append(counts, total - counts.sum())
    expected = total * np.append(probabilities, 1 - probabilities.sum())
    if expected[-1] < 10:
        observed, expected = observed[:-1], expected[:-1] * counts.sum() / expected[:-1].sum()
    return float(stats.chisquare(observed, expected).pvalue)


def token_p_value(key, temperature: float) -> float:
    logits = jnp.array([0.0, 1.5, -2.0, 0.3, -jnp.inf, 2.0])
    rows = jnp.broadcast_to(logits, (100_000, 6))
    tokens, log_probs = draw_token(key[None], rows, jnp.array(temperature))
    law = np.asarray(jax.nn.softmax(logits / temperature), np.float64)
    np.testing.assert_allclose(np.exp(log_probs), law[np.asarray(tokens)], rtol=1e-5)
    counts = np.bincount(np.asarray(tokens), minlength=6)
    assert counts[4] == 0
    return p_value(counts, law, len(rows))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_from_the_tempered_softmax(temperature: float, key) -> None:
    assert token_p_value(key, temperature) > ERROR


def test_a_tail_that_is_never_drawn_is_seen(key, monkeypatch) -> None:
    uniform = decoder.random.uniform
    monkeypatch.setattr(decoder.random, "uniform", lambda *a, **k: 0.99 * uniform(*a, **k))
    assert token_p_value(key, 1.0) < ERROR


def step_p_value(key) -> float:
    """Joint frequencies of the first two tokens of a step, against their masses."""
    model, temperature = load_policy(WEIGHTS / "policy.safetensors"), jnp.array(5.0)
    num_rows = 4_000
    state = model.start(model.encode([PROMPT]), num_rows, 2)
    active = jnp.ones(num_rows, bool)
    _, steps = model.sample_step(key[None], state, active, 2, temperature)
    _, log_mass = model.score_step(state, steps.tokens, steps.counts, 2, temperature)
    np.testing.assert_allclose(steps.log_probs, log_mass, atol=1e-3)
    _, first, counts = np.unique(
        np.asarray(steps.tokens), axis=0, return_index=True, return_counts=True
    )
    masses = np.exp(np.asarray(log_mass, np.float64)[first])
    return p_value(counts, masses, num_rows)


def test_tokens_of_a_step_have_their_joint_law(key) -> None:
    assert step_p_value(key) > ERROR


def test_a_key_that_is_used_for_two_tokens_is_seen(key, monkeypatch) -> None:
    monkeypatch.setattr(decoder.random, "fold_in", lambda key, position: key)
    assert step_p_value(key) < ERROR


def test_at_temperature_zero_the_mode_is_certain(key) -> None:
    logits = jnp.array([[0.0, 2.0, 1.0]])
    token, log_prob = draw_token(key[None], logits, jnp.array(0.0))
    assert (int(token[0]), float(log_prob[0])) == (1, 0.0)
