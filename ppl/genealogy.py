"""Genealogy: who descends from whom. Ancestors are `(T, N)`: slot at t of the parent at t + 1."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from jurax.ppl import leaves


def lineages(ancestors: Int[Array, "T N"]) -> Int[Array, "T1 N"]:
    """Slot at each time 0..T of the ancestor of each final particle.

    Example:
        >>> import jax.numpy as jnp
        >>> lineages(jnp.array([[0, 0], [1, 0]])).tolist()
        [[0, 0], [1, 0], [0, 1]]
    """
    final = jnp.arange(ancestors.shape[1], dtype=ancestors.dtype)

    def back(slots: Array, parents: Array) -> tuple[Array, Array]:
        earlier = parents[slots]
        return earlier, earlier

    _, slots = jax.lax.scan(back, final, ancestors, reverse=True)
    return jnp.concatenate([slots, final[None]])


def trace(records: PyTree, ancestors: Int[Array, "T N"] | None, num_steps: int) -> PyTree:
    """Records along each lineage: from `(T + 1, N, ...)` to `(N, num_steps + 1, ...)`."""
    kept = jax.tree.map(lambda x: x[: num_steps + 1], records)
    if ancestors is None:
        return jax.tree.map(lambda x: leaves.move_axis(x, 0, 1), kept)
    slots = lineages(ancestors[:num_steps])
    return jax.tree.map(lambda x: leaves.move_axis(leaves.take(x, slots), 0, 1), kept)


def families(ancestors: Int[Array, "T N"] | None, num_particles: int) -> np.ndarray:
    """Family of each final particle by generation, `(G, N)`; generations without a merge drop out.

    Example:
        >>> families(None, 3).tolist()
        [[0, 1, 2]]
    """
    if ancestors is None:
        return np.arange(num_particles)[None]
    return np.unique(np.asarray(lineages(jnp.asarray(ancestors))), axis=0)


def batches(num_chains: int, num_draws: int) -> np.ndarray:
    """Batch of each draw of chains for batch lengths 1, 2, 4, ..., at least 8 a chain, `(G, C S)`.

    Example:
        >>> batches(1, 3).tolist()
        [[0, 1, 2]]
    """
    lengths = [2**k for k in range(30) if k == 0 or 8 * 2**k <= num_draws]
    draws, chains = np.arange(num_draws)[None], np.arange(num_chains)[:, None]
    return np.stack([(draws // k + chains * num_draws).reshape(-1) for k in lengths])
