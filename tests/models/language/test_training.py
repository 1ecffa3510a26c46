"""Batches say what they teach; training resumes where it was killed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jurax.models.language import tokenizer
from jurax.models.language.curriculum import (
    Batch,
    Curriculum,
    Progress,
    chain_batch,
    drill_batch,
    next_batch,
    observe,
)
from jurax.models.language.executor import clean_law
from jurax.models.language.regchain import SPLITS, apply, draw_chains, splits_of
from jurax.models.language.train import initial_model
from jurax.models.language.training import Schedule, mean_loss, train
from jurax.models.language.transformer import Transformer, TransformerConfig

CURRICULUM = Curriculum(clean_law(), chain_rows=3, drill_rows=4, drill_steps=2)
CONFIG = TransformerConfig(
    vocab_size=256, num_layers=1, width=8, num_heads=2, num_kv_heads=1, head_size=4, hidden_size=8
)


def test_targets_of_the_drill_are_the_results_and_nothing_else():
    batch = drill_batch(np.random.default_rng(0), CURRICULUM)
    for tokens, weights in zip(batch.tokens, batch.weights, strict=True):
        words = tokenizer.decode(tokens).split()
        targets = np.flatnonzero(weights)
        assert len(targets) == 2 and set(weights[targets]) == {1.0}
        for target in targets:
            assert words[target - 1] == ">"
            x, op, y = words[target - 6], words[target - 5], words[target - 2]
            result = apply(tokenizer.OPERATIONS.index(op), int(x), int(y))
            assert words[target] == str(result)


def test_targets_of_a_chain_are_its_solution():
    batch = chain_batch(np.random.default_rng(0), CURRICULUM, 2)
    for tokens, weights in zip(batch.tokens, batch.weights, strict=True):
        words = tokenizer.decode(tokens).split()
        targets = np.flatnonzero(weights)
        assert words[targets[0] - 2] == "?" and words[targets[0]] == "r1:"
        assert words[targets[-1]] == "<end>"
        assert len(targets) == 2 * 12 + 3 == targets[-1] - targets[0] + 1


@pytest.mark.slow
def test_the_loss_is_that_of_the_weighted_targets():
    model = Transformer(CONFIG, nnx.Rngs(0))
    batch = drill_batch(np.random.default_rng(0), CURRICULUM)
    log_probs = jax.nn.log_softmax(model(jnp.asarray(batch.tokens))[0])
    losses = [
        -log_probs[row, column - 1, batch.tokens[row, column]]
        for row, column in zip(*np.nonzero(batch.weights), strict=True)
    ]
    loss = mean_loss(model, jnp.asarray(batch.tokens), jnp.asarray(batch.weights))
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)


def test_training_uses_no_problem_of_another_split():
    rng = np.random.default_rng(0)
    assert (splits_of(draw_chains(rng, 500, 3, CURRICULUM.split)) == SPLITS.index("train")).all()


def test_bindings_start_as_the_sum_of_name_and_value():
    model = initial_model(seed=0)
    for table in (model.embedding[...], model.head[...]):
        for word in ("A=0", "r1=7", "r8=18"):
            binding, name, value = (table[tokenizer.encode(w)[0]] for w in (word, *word.split("=")))
            np.testing.assert_allclose(binding, 0.7 * (name + value), rtol=1e-5)


def test_lengths_rise_when_the_loss_is_small_and_not_before():
    curriculum = dataclasses.replace(CURRICULUM, window=3, patience=5, lengths=(2, 3))
    chain = Batch(np.zeros((1, 1), np.int32), np.zeros((1, 1), np.float32), "chain")
    progress = Progress(longest=1)
    for loss, longest in [(0.1, 1)] * 4 + [(0.1, 2)] + [(9.0, 2)] * 9 + [(0.1, 2)] * 2 + [(0.1, 3)]:
        observe(curriculum, progress, chain, loss)
        assert progress.longest == longest
    for _ in range(9):
        observe(curriculum, progress, chain, 0.1)
    assert progress.longest == 3


def test_the_drill_becomes_rare_once_it_is_learnt():
    curriculum = dataclasses.replace(CURRICULUM, window=2, drill_shares=(1.0, 0.0))
    progress = Progress(longest=1)
    rng = np.random.default_rng(0)
    batch = next_batch(rng, curriculum, progress)
    assert batch.kind == "drill"
    for loss in (0.1, 0.1, 3.0, 3.0):
        observe(curriculum, progress, batch, loss)
    assert next_batch(rng, curriculum, progress).kind == "chain"


def small_run(num_steps, **options):
    schedule = Schedule(num_steps=12, warmup=2)
    curriculum = dataclasses.replace(CURRICULUM, lengths=(1, 1))
    model = Transformer(CONFIG, nnx.Rngs(0))
    return train(model, curriculum, schedule, stop_after=num_steps, **options)


@pytest.mark.slow
@pytest.mark.rank_promotion("allow")  # optax
def test_a_killed_run_resumes_to_the_same_weights(tmp_path):
    whole = small_run(12)
    small_run(5, checkpoint=tmp_path / "run")
    resumed = small_run(12, checkpoint=tmp_path / "run")
    pairs = zip(*(jax.tree.leaves(nnx.state(m)) for m in (whole, resumed)), strict=True)
    assert all((a == b).all() for a, b in pairs)
    first = jax.tree.leaves(nnx.state(Transformer(CONFIG, nnx.Rngs(0))))
    assert (first[0] != jax.tree.leaves(nnx.state(whole))[0]).any()


@pytest.mark.rank_promotion("allow")  # optax
def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    small_run(1, checkpoint=tmp_path / "run")
    with pytest.raises(ValueError, match="run is a checkpoint of another run"):
        train(
            Transformer(CONFIG, nnx.Rngs(0)),
            CURRICULUM,
            Schedule(num_steps=3),
            checkpoint=tmp_path / "run",
        )


@pytest.mark.rank_promotion("allow")  # optax
def test_a_few_steps_lower_the_loss():
    batch = chain_batch(np.random.default_rng(5), CURRICULUM, 1)
    tokens, weights = jnp.asarray(batch.tokens), jnp.asarray(batch.weights)
    before = mean_loss(Transformer(CONFIG, nnx.Rngs(0)), tokens, weights)
    after = mean_loss(small_run(12), tokens, weights)
    assert after < before
