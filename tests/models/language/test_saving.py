"""Weights on disk: a round trip, and each way in which a file can be wrong."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from jurax.models.language.saving import load_model, save_model
from jurax.models.language.transformer import Transformer, TransformerConfig

CONFIG = TransformerConfig(vocab_size=11, num_layers=1, width=8, head_size=2, hidden_size=8)


@pytest.fixture
def model():
    return Transformer(CONFIG, nnx.Rngs(0))


@pytest.fixture
def path(tmp_path, model):
    save_model(tmp_path / "model.safetensors", model, {"note": "hello"})
    return tmp_path / "model.safetensors"


def leaves(model):
    return jax.tree.leaves(nnx.state(model))


def rewrite(path, change):
    """Save the same tensors and header after `change(tensors, header)`."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = dict(file.metadata())
    change(tensors, header)
    save_file(tensors, path, metadata=header)


def test_the_round_trip_keeps_everything(path, model):
    loaded, metadata = load_model(path)
    assert loaded.config == CONFIG and metadata == {"note": "hello"}
    for a, b in zip(leaves(model), leaves(loaded), strict=True):
        np.testing.assert_array_equal(a, b)
    assert path.stat().st_mode & 0o044  # readable for all where the user's mask allows it


def test_bfloat16_files_and_models(tmp_path, model):
    save_model(tmp_path / "half", model, dtype=jnp.bfloat16)
    full, half = load_model(tmp_path / "half")[0], load_model(tmp_path / "half", jnp.bfloat16)[0]
    assert leaves(full)[0].dtype == jnp.float32 and leaves(half)[0].dtype == jnp.bfloat16
    for a, b in zip(leaves(model), leaves(full), strict=True):
        # bfloat16 has 8 significant bits.
        np.testing.assert_allclose(a, b, rtol=2**-8)


def test_a_missing_or_damaged_file_is_named(tmp_path, path):
    with pytest.raises(ValueError, match="nowhere.safetensors"):
        load_model(tmp_path / "nowhere.safetensors")
    for damage in (b"", b"no tensors", path.read_bytes()[:200]):
        (tmp_path / "bad").write_bytes(damage)
        with pytest.raises(ValueError, match="bad is not a readable safetensors file"):
            load_model(tmp_path / "bad")


def drop_a_tensor(tensors, header):
    del tensors["norm.scale"]


def add_a_tensor(tensors, header):
    tensors["extra"] = np.zeros(3)


def reshape_a_tensor(tensors, header):
    tensors["norm.scale"] = np.zeros(5, np.float32)


def spoil_a_tensor(tensors, header):
    tensors["norm.scale"][3] = np.nan


def change_the_format(tensors, header):
    header["format"] = "other"


def change_the_configuration(tensors, header):
    header["config"] = json.dumps({**json.loads(header["config"]), "colour": 3})


def drop_the_configuration(tensors, header):
    del header["config"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_a_tensor, "lacks the tensor 'norm.scale' of shape \\(8,\\)"),
        (add_a_tensor, "does not know: \\['extra'\\]"),
        (reshape_a_tensor, "'norm.scale' has shape \\(5,\\); expected \\(8,\\)"),
        (spoil_a_tensor, "'norm.scale' holds NaN or infinite weights"),
        (change_the_format, "format 'other'; expected 'jurax-transformer-1'"),
        (change_the_configuration, "no valid transformer configuration"),
        (drop_the_configuration, "no valid transformer configuration"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(path, change, message):
    rewrite(path, change)
    with pytest.raises(ValueError, match=f"model.safetensors.*{message}"):
        load_model(path)
