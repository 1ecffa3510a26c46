"""Posteriors on disk and in ArviZ. Files are NumPy archives: no pickles, no code."""

import importlib.metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import jax
import jax.core
import numpy as np

from jurax.ppl import leaves, npz

FORMAT = "jurax-posterior-1"
PLAIN = "".join(chr(i) for i in range(32, 127) if chr(i) not in "/%")  # written as they are
PACKAGES = ("jurax", "jax", "equinox", "numpyro")


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of a pytree by path; containers are recorded by names and positions.

    A "/" within a name is written as "%2F", as in addresses.
    """
    found, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join([prefix, *map(_name, path)]): leaf for path, leaf in found}


def unflatten(arrays: dict[str, Any], prefix: str) -> Any:
    """Rebuild nested dicts from paths; a single array comes back bare, nothing as None."""
    if prefix in arrays:
        return arrays[prefix]
    tree: dict[str, Any] = {}
    for path, array in arrays.items():
        if path.startswith(prefix + "/"):
            node = tree
            *parents, last = path[len(prefix) + 1 :].split("/")
            for name in parents:
                node = node.setdefault(unquote(name), {})
            node[unquote(last)] = array
    return tree or None


def save(posterior: Any, path: Path) -> None:
    """Write arrays, target, layout and versions."""
    arrays = {}
    for name in ("particles", "log_weights", "log_evidence", "info", "cost", "history"):
        arrays |= flatten(getattr(posterior, name), name)
    layout = posterior.history and posterior.history.layout
    header = {
        "format": FORMAT,
        "target": posterior.target,
        "versions": versions(),
        "layout": layout,
        "objects": [name for name, leaf in arrays.items() if leaves.is_host(leaf)],
    }
    arrays = {name: leaves.encode(leaf) for name, leaf in arrays.items()}
    npz.write(path, arrays, header, compress=True)


def load(posterior_class: type, history_class: type, path: Path) -> Any:
    """Read what `save` wrote; a file of another kind is refused by name."""
    from jurax.ppl.cost import Cost

    arrays, header = npz.read(path, "a posterior written by Posterior.save")
    found = header.get("format") if isinstance(header, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path} has format {found!r}; expected {FORMAT!r}")
    lacking = {"log_weights", "log_evidence"} - set(arrays)
    if lacking or "target" not in header:
        raise ValueError(f"{path} is damaged: it lacks {sorted(lacking) or 'its target'}")
    objects = header.get("objects", ())
    arrays = {
        name: leaves.decode_objects(x) if name in objects else jax.numpy.asarray(x)
        for name, x in arrays.items()
    }
    history = unflatten(arrays, "history")
    layout = header.get("layout") and tuple(map(tuple, header["layout"]))
    return posterior_class(
        particles=unflatten(arrays, "particles"),
        log_weights=arrays["log_weights"],
        log_evidence=arrays["log_evidence"],
        info=unflatten(arrays, "info") or {},
        cost=Cost(**(unflatten(arrays, "cost") or {})),
        history=history and history_class(history.get("records"), history.get("ancestors"), layout),
        target=header["target"],
    )


def to_arviz(posterior: Any, key: jax.Array) -> Any:
    """Equally weighted draws and diagnostics as an ArviZ object (0.x or 1.x)."""
    import arviz

    groups = _groups_of_chains(posterior) if posterior.num_chains else _groups(posterior, key)
    major = int(importlib.metadata.version("arviz").split(".")[0])
    data = arviz.from_dict(groups) if major >= 1 else arviz.from_dict(**groups)
    attributes = {
        "target": posterior.target,
        "log_evidence": float(posterior.log_evidence),
        "inference_library": "jurax",
    }
    dataset = data["posterior"] if major >= 1 else data.posterior
    dataset.attrs.update(attributes)
    return data


def _groups(posterior: Any, key: jax.Array) -> dict[str, dict[str, np.ndarray]]:
    """Particles, resampled once, as one chain."""
    num = posterior.log_weights.shape[-1]
    draws = posterior.trajectories() if posterior.history is not None else posterior.particles
    index = draw_rows(key, posterior.log_weights, num)
    drawn = _named(jax.tree.map(lambda x: x[index], draws))
    return {
        "posterior": {name: x[None] for name, x in drawn.items()},
        "sample_stats": {"log_weights": np.asarray(posterior.log_weights[index])[None]},
    }


def _groups_of_chains(posterior: Any) -> dict[str, dict[str, np.ndarray]]:
    """Chains as they are, and every entry of the info that has an entry for each draw."""
    shape = posterior.log_weights.shape
    stats = {n: np.asarray(x) for n, x in posterior.info.items() if np.shape(x)[:2] == shape}
    return {"posterior": _named(posterior.particles), "sample_stats": stats}


def draw_rows(key: jax.Array, log_weights: jax.Array, num: int) -> jax.Array:
    """Rows drawn by their weights; a dead population has none to draw."""
    is_dead = jax.numpy.all(jax.numpy.isneginf(log_weights))
    if not isinstance(is_dead, jax.core.Tracer) and bool(is_dead):
        raise ValueError("every weight is zero (see posterior.status): there is nothing to draw")
    return jax.random.categorical(key, log_weights, shape=(num,))


def versions() -> dict[str, str]:
    """Versions of the packages that shaped a result."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


def _named(tree: Any) -> dict[str, np.ndarray]:
    found = flatten(tree).items()
    return {unquote(path.strip("/").replace("/", ".")) or "x": np.asarray(x) for path, x in found}


def _name(entry: Any) -> str:
    for attribute in ("name", "key", "idx"):
        if hasattr(entry, attribute):
            return quote(str(getattr(entry, attribute)), safe=PLAIN)
    return quote(str(entry), safe=PLAIN)
