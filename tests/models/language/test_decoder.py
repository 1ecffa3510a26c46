"""The shipped transformer as a language model: caches, packing, greedy decoding, memory."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jurax.inference import BestOfN, ParticleFilter, infer
from jurax.models.language import Reasoning, load_default, memory, regchain
from jurax.models.language.default import TOKENIZER, WEIGHTS, load_policy, load_reward
from jurax.models.language.model import Steps

pytestmark = pytest.mark.rank_promotion("allow")
PROBLEMS = regchain.problems("validation", 4, seed=5)
PROMPTS = [p.prompt for p in PROBLEMS]


@pytest.fixture(scope="module")
def models():
    return load_default()


def run(models, prompts, keys, num_particles=8, **options):
    process = Reasoning(*models, prompts, **options)
    return process, infer(keys, process, ParticleFilter(num_particles, ess_threshold=0.9))


@pytest.mark.slow
def test_incremental_reward_equals_scoring_the_whole_text(models) -> None:
    """After resampling, the cached reward of each row is that of its text read at once."""
    keys = jax.random.split(jax.random.key(0), 4)
    process, posterior = run(models, PROMPTS, keys)
    assert bool(posterior.info["resampled"].any())
    particles = posterior.particles
    whole = Steps(
        tokens=particles["tokens"].reshape(-1, process.max_tokens),
        counts=particles["length"].reshape(-1),
        log_probs=jnp.zeros(32),
    )
    state = models[1].start(process.reward_context, 8, process.max_tokens)
    _, log_odds = models[1].score(state, whole)
    last = np.sum(~np.isnan(particles["log_odds"]), axis=-1) - 1
    cached = np.take_along_axis(np.asarray(particles["log_odds"]), last[..., None], -1)[..., 0]
    np.testing.assert_allclose(cached, log_odds.reshape(4, 8), atol=1e-3)


@pytest.mark.slow
def test_log_probability_of_a_solution_equals_a_full_pass(models) -> None:
    """The policy's running log-probability is that of the text read from scratch."""
    model, _ = models
    process, posterior = run(models, PROMPTS, jax.random.split(jax.random.key(1), 4))
    tokens = posterior.particles["tokens"].reshape(-1, process.max_tokens)
    counts = posterior.particles["length"].reshape(-1)
    state = model.start(process.context, 8, process.max_tokens)
    _, logits = model.decoder.read(state, tokens, counts)
    logits = jnp.concatenate([state.rows["logits"][:, None], logits[:, :-1]], axis=1)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], axis=-1)[..., 0]
    real = jnp.arange(tokens.shape[1])[None] < counts[:, None]
    total = jnp.sum(jnp.where(real, chosen, 0.0), axis=1).reshape(4, 8)
    np.testing.assert_allclose(posterior.particles["log_prob"], total, atol=2e-3)


def same_particles(models, num_particles: int) -> float:
    """Share of particles that are the same alone, packed, and packed in another order."""
    keys = jax.random.split(jax.random.key(2), 4)
    _, packed = run(models, PROMPTS, keys, num_particles)
    _, turned = run(models, PROMPTS[::-1], keys[::-1], num_particles)
    same = [np.asarray(packed.particles["tokens"]) == np.asarray(turned.particles["tokens"])[::-1]]
    for i in (0, 3):
        _, alone = run(models, PROMPTS[i], keys[i], num_particles)
        same.append(np.asarray(packed.particles["tokens"])[i : i + 1] == alone.particles["tokens"])
    return float(np.mean(np.concatenate([s.all(axis=-1).reshape(-1) for s in same])))


@pytest.mark.slow
def test_packing_and_order_do_not_matter_in_x64(x64) -> None:
    models = (
        load_policy(WEIGHTS / "policy.safetensors", dtype=jnp.float64),
        load_reward(WEIGHTS / "reward.safetensors", dtype=jnp.float64),
    )
    assert same_particles(models, 8) == 1.0


@pytest.mark.slow
def test_packing_and_order_hardly_matter_in_float32(models) -> None:
    # 384 particles; a near tie may turn one of them.
    assert same_particles(models, 64) >= 0.999


def test_temperature_zero_decodes_greedily(models) -> None:
    process = Reasoning(*models, PROMPTS, temperature=0.0)
    one = infer(jax.random.key(0), process, BestOfN(2))
    tokens = np.asarray(one.particles["tokens"])
    assert (tokens[:, 0] == tokens[:, 1]).all()


def test_the_filter_compiles_once_for_each_shape(models) -> None:
    traces = []

    @eqx.filter_jit
    def evidence(keys, process):
        traces.append(1)
        return ParticleFilter(4).run(keys, process).log_evidence

    for seed in (5, 6, 5):
        problems = regchain.problems("validation", 4, seed=seed)
        process = Reasoning(*models, [p.prompt for p in problems])
        keys = jax.random.split(jax.random.key(seed), 4)
        assert np.isfinite(evidence(keys, process)).all()
    assert len(traces) == 1


def test_unknown_tokens_and_empty_prompts_are_refused(models) -> None:
    with pytest.raises(ValueError, match="unknown token 'hello'"):
        Reasoning(*models, "hello")
    with pytest.raises(ValueError, match="empty"):
        Reasoning(*models, "  ")
    with pytest.raises(ValueError, match="together more than the model's"):
        Reasoning(*models, PROMPTS[0], max_steps=40)


def test_caches_that_cannot_fit_are_refused(models, monkeypatch) -> None:
    monkeypatch.setattr(memory, "_total_bytes", lambda: 1000)
    with pytest.raises(MemoryError, match="fewer particles"):
        Reasoning(*models, PROMPTS[0]).init(jax.random.key(0), 4)


def test_a_corrupt_weights_file_is_named(tmp_path) -> None:
    path = tmp_path / "policy.safetensors"
    path.write_bytes((WEIGHTS / "policy.safetensors").read_bytes()[:1000])
    with pytest.raises(ValueError, match="policy.safetensors"):
        load_default(policy=path)
    with pytest.raises(ValueError, match="no calibration"):
        load_default(reward=WEIGHTS / "policy.safetensors")


def test_text_ends_only_at_the_end_token() -> None:
    assert sum(TOKENIZER.text_ends()) == 1


def test_the_target_names_the_temperature(models) -> None:
    process = Reasoning(*models, PROMPTS[0], temperature=0.0)
    assert process.target.endswith("r = LikelihoodReward")
    assert process.prior().target == "p(x); p = language model at temperature 0"
