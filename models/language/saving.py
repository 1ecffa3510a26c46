"""Weights on disk: safetensors, with the configuration in the header. No pickles, no code."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from jurax.models.language.transformer import Transformer, TransformerConfig

FORMAT = "jurax-transformer-1"


def save_model(
    path: str | Path,
    model: Transformer,
    metadata: dict[str, str] | None = None,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> None:
    """Write the weights, the configuration and `metadata` (texts) to one file.

    The file appears at once under its name: it is written beside it and renamed.
    """
    path = Path(path)
    config = json.dumps(dataclasses.asdict(model.config))
    header = {"format": FORMAT, "config": config, **(metadata or {})}
    tensors = {name: np.asarray(x.astype(dtype)) for name, x in _named(nnx.state(model)).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    temporary.write_bytes(save(tensors, metadata=header))
    os.replace(temporary, path)


def load_model(
    path: str | Path, dtype: jax.typing.DTypeLike = jnp.float32
) -> tuple[Transformer, dict[str, str]]:
    """Read what `save_model` wrote: (model in `dtype`, metadata).

    Raises:
        ValueError: the file is missing, damaged, of another format, its tensors do not fit its
            configuration, or are not finite; the message names the file and what was expected.
    """
    path = Path(path)
    tensors, header = _read(path)
    if header.get("format") != FORMAT:
        raise ValueError(f"{path} has format {header.get('format')!r}; expected {FORMAT!r}")
    try:
        config = TransformerConfig(**json.loads(header["config"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} has no valid transformer configuration: {error}") from error
    model = nnx.eval_shape(lambda: Transformer(config, nnx.Rngs(0)))
    graphdef, state = nnx.split(model)
    _check(path, {name: x.shape for name, x in _named(state).items()}, tensors)
    state = jax.tree_util.tree_map_with_path(
        lambda keys, _: jnp.asarray(tensors[_name(keys)]).astype(dtype), state
    )
    metadata = {k: v for k, v in header.items() if k not in ("format", "config")}
    return nnx.merge(graphdef, state), metadata


def _read(path: Path) -> tuple[dict[str, jax.Array], dict[str, str]]:
    try:
        # framework "flax" knows bfloat16; NumPy does not.
        with safe_open(path, framework="flax") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise ValueError(
            f"{path} is not a readable safetensors file written by save_model: {error}"
        ) from error


def _check(path: Path, expected: dict[str, tuple], tensors: dict[str, jax.Array]) -> None:
    for name, shape in expected.items():
        if name not in tensors:
            raise ValueError(f"{path} lacks the tensor {name!r} of shape {tuple(shape)}")
        if tuple(tensors[name].shape) != tuple(shape):
            found = tuple(tensors[name].shape)
            raise ValueError(f"{path}: {name!r} has shape {found}; expected {tuple(shape)}")
        if not bool(jnp.all(jnp.isfinite(tensors[name]))):
            raise ValueError(
                f"{path}: {name!r} holds NaN or infinite weights; its training diverged or the "
                "file is damaged. Load an earlier checkpoint"
            )
    extra = sorted(set(tensors) - set(expected))
    if extra:
        raise ValueError(f"{path} has tensors that its configuration does not know: {extra[:3]}")


def _named(state: Any) -> dict[str, Any]:
    return {_name(keys): x for keys, x in jax.tree_util.tree_flatten_with_path(state)[0]}


def _name(keys: tuple) -> str:
    """Path of a parameter; the last key, `value`, is that of `nnx.Param` itself."""
    names = [str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in keys]
    return ".".join(names[:-1] if names[-1] == "value" else names)
