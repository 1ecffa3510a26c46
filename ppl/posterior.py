"""Posterior: what an algorithm returns, as one pytree.

Draws of Markov chains have the axes (chain, draw) in place of one axis of particles; then
`log_weights` has one axis more, `(*B, C, S)`, and is zero.

Shape letters: B packed problems (absent for one problem), N particles, T steps, C chains, S draws.
"""

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from jurax.ppl import genealogy, storage, weights
from jurax.ppl.cost import Cost
from jurax.ppl.population import STATUS, weighted_mean
from jurax.ppl.process import Layout


class History(eqx.Module):
    """Records of every step and the genealogy that joins them.

    Attributes:
        records: pytree with axes `(*B, T + 1, N, ...)`.
        ancestors: `(*B, T, N)`: slot at time t of the parent of a slot at time t + 1; None if no
            particle was ever resampled.
        layout: how traced records become trajectories; None: as they are.
    """

    records: PyTree
    ancestors: Int[Array, "*B T N"] | None
    layout: Layout | None = eqx.field(static=True, default=None)


class Distribution(eqx.Module):
    """The distribution of a discrete read-out, most probable value first.

    Attributes:
        values: distinct values of the read-out.
        probabilities: their posterior probabilities; they sum to 1 (empty for a dead population).
        standard_errors: Monte Carlo standard errors of the probabilities; NaN where they are
            unknown.
    """

    values: list
    probabilities: np.ndarray
    standard_errors: np.ndarray

    def __str__(self) -> str:
        rows = zip(self.values, self.probabilities, self.standard_errors, strict=True)
        return "\n".join(
            f"{value}: {p:.3f} +- {'?' if np.isnan(se) else f'{se:.3f}'}" for value, p, se in rows
        )


class Posterior(eqx.Module):
    """Weighted particles with their evidence, diagnostics and cost.

    Attributes:
        particles: pytree with axes `(*B, N, ...)`, for chains `(*B, C, S, ...)`; for programs a
            dict by site name.
        log_weights: unnormalised log weights, `(*B, N)`, for chains `(*B, C, S)`. Used once: 0
            after a final resampling.
        log_evidence: log Zhat, final weights included, `(*B,)`; NaN where it is not estimated.
        info: arrays by name, such as `ess` `(*B, T)`, `ancestors` `(*B, T, N)`, `resampled`,
            `num_steps` (extensions made) and `status` (codes of `STATUS`).
        cost: what the run spent.
        history: records of every step, or None.
        target: the density that the particles represent, or the name of a heuristic.
    """

    particles: PyTree
    log_weights: Float[Array, "*BN"]
    log_evidence: Float[Array, "*B"]
    info: dict[str, Any]
    cost: Cost
    history: History | None = None
    target: str = eqx.field(static=True, default="")

    # ------------------------------------------------------------ summaries

    @property
    def num_chains(self) -> int | None:
        """C for draws of Markov chains, None for particles."""
        is_chains = self.log_weights.ndim == self.log_evidence.ndim + 2
        return self.log_weights.shape[-2] if is_chains else None

    @property
    def ess(self) -> Float[Array, "*B"]:
        """Effective sample size of the final weights, in particles.

        For chains the number of draws: how much these are worth depends on the function, see
        `jurax.inference.diagnostics.summary`.
        """
        return weights.effective_sample_size(self._flat_weights())

    @property
    def status(self) -> str | list[str]:
        """The state of the run in words, a list for packed problems."""
        codes = np.asarray(self.info.get("status", 0))
        words = [STATUS[int(code)] for code in codes.reshape(-1)]
        return words if codes.ndim else words[0]

    def normalized(self) -> Float[Array, "*BN"]:
        """W_i = w_i / sum_j w_j, in the shape of `log_weights`."""
        return weights.normalized(self._flat_weights()).reshape(self.log_weights.shape)

    def expectation(self, f: Callable[[PyTree], PyTree]) -> PyTree:
        """sum_i W_i f(x_i) for a traceable function of one particle."""
        return weighted_mean(f, self._flat_particles(), weights.normalized(self._flat_weights()))

    def distribution(self, f: Callable[[PyTree], Hashable]) -> Distribution:
        """The posterior distribution of a discrete read-out, with Monte Carlo errors.

        P(v) = sum_i W_i 1{f(x_i) = v}. The standard error sums the weighted deviations of each
        family of particles with a common ancestor, SE^2 = sum_e (sum_{i in e} W_i (1{f(x_i) = v}
        - P(v)))^2 (Chan and Lai 2013), and takes the generation with the largest value, since
        older generations have too few families (Olsson and Douc 2019). For chains, batches of
        successive draws take the place of families, and their lengths that of generations. It is
        NaN where a single particle has all the weight, which says nothing about its error, and
        where the run was resampled and was too large to keep its ancestors: run with history=True.

        Args:
            f: plain Python function of one particle, for instance `process.answer`.

        Raises:
            ValueError: for packed problems; take one by `posterior[i]` first.
        """
        self._single("distribution")
        values = [read_out(f, row) for row in self._rows()]
        return summarize(values, np.asarray(self.normalized()).reshape(-1), self._families())

    def sample(self, key: Array, n: int) -> PyTree:
        """Draw `n` particles with replacement, equally weighted; consumes `key`.

        Raises:
            ValueError: for packed problems and for a dead population.
        """
        self._single("sample")
        index = storage.draw_rows(key, self._flat_weights(), n)
        return jax.tree.map(lambda x: x[index], self._flat_particles())

    def trajectories(self) -> PyTree:
        """Records of the ancestors of each final particle, axes `(N, T + 1, ...)`.

        For programs a dict by site name, stacked over the steps as NumPyro stacks them.

        The trajectories carry the final weights. Steps that were not needed are left out.

        Raises:
            ValueError: if the run kept no history.
        """
        self._single("trajectories")
        if self.history is None:
            raise ValueError(
                "this run kept no history, so there is nothing to trace back; run the algorithm "
                "again with history=True, for instance ParticleFilter(..., history=True)"
            )
        num_steps = int(self.info["num_steps"])
        traced = genealogy.trace(self.history.records, self.history.ancestors, num_steps)
        return arrange(traced, self.particles, self.history.layout)

    # ------------------------------------------------------------ storage

    def to_arviz(self, *, key: Array | None = None):
        """Export equally weighted draws to ArviZ (chain, draw, ...), with diagnostics.

        Weighted particles are resampled once with `key` (default `jax.random.key(0)`); beside each
        draw, `log_weights` of `sample_stats` is the weight by which it was drawn, not one to use
        again. If a history was kept, draws are whole trajectories. Chains are exported as they are.
        """
        self._single("to_arviz")
        return storage.to_arviz(self, jax.random.key(0) if key is None else key)

    def save(self, path: str | Path) -> None:
        """Write arrays, target and versions to one file (NumPy archive, no pickles), atomically."""
        storage.save(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> "Posterior":
        """Read a posterior that `save` wrote; named containers come back as dicts."""
        return storage.load(cls, History, Path(path))

    # ------------------------------------------------------------ packed problems

    def __getitem__(self, index: int) -> "Posterior":
        """Problem `index` of a packed run, counted from the end where negative."""
        if self.log_evidence.ndim == 0:
            raise IndexError("this posterior holds one problem; there is nothing to index")
        if not -len(self) <= index < len(self):
            raise IndexError(f"this posterior holds {len(self)} problems, got index {index}")
        return jax.tree.map(lambda x: x[index] if jnp.ndim(x) else x, self)

    def __len__(self) -> int:
        """Number of packed problems."""
        if self.log_evidence.ndim == 0:
            raise TypeError("this posterior holds one problem and has no length")
        return self.log_evidence.shape[0]

    def __repr__(self) -> str:
        batch = self.log_evidence.shape
        return f"Posterior({self._size()}, batch {batch}, target={self.target!r})"

    def _repr_html_(self) -> str:
        from html import escape

        rows = {"target": self.target, "size": self._size()}
        if self.log_evidence.ndim == 0:
            rows |= {
                "log evidence": f"{float(self.log_evidence):.3f}",
                "effective sample size": f"{float(self.ess):.1f}",
                "status": self.status,
            }
        body = "".join(f"<tr><th>{k}</th><td>{escape(str(v))}</td></tr>" for k, v in rows.items())
        return f"<table>{body}</table>"

    def _size(self) -> str:
        length = self.log_weights.shape[-1]
        if self.num_chains is None:
            return f"{length} particles"
        return f"{self.num_chains} chains of {length} draws"

    def _flat_weights(self) -> Float[Array, "*B N"]:
        """Log-weights with chains and draws on one axis."""
        return self.log_weights.reshape(*self.log_evidence.shape, -1)

    def _flat_particles(self) -> PyTree:
        """Particles with chains and draws on one axis."""
        if self.num_chains is None:
            return self.particles
        batch, rank = self.log_evidence.shape, self.log_weights.ndim
        return jax.tree.map(lambda x: x.reshape(*batch, -1, *x.shape[rank:]), self.particles)

    def _single(self, method: str) -> None:
        if self.log_evidence.ndim > 0:
            raise ValueError(
                f"{method} works on one problem; this posterior packs {len(self)}: use posterior[i]"
            )

    def _rows(self):
        particles = jax.tree.map(np.asarray, self._flat_particles())
        for i in range(self._flat_weights().shape[-1]):
            yield jax.tree.map(lambda x, i=i: x[i], particles)

    def _families(self) -> np.ndarray | None:
        if self.num_chains is not None:
            return genealogy.batches(*self.log_weights.shape)
        ancestors = self.info.get("ancestors")
        if ancestors is None and np.any(self.info.get("resampled", False)):
            return None
        return genealogy.families(ancestors, self.log_weights.shape[-1])


def arrange(traced: PyTree, particles: PyTree, layout: Layout | None) -> PyTree:
    """Rename and cut traced records as `layout` says."""
    if layout is None:
        return traced
    parts = {
        "steps": lambda source: traced[source][:, 1:],
        "initial": lambda source: traced[source][:, 0],
        "final": lambda source: particles[source],
    }
    return {name: parts[part](source) for name, source, part in layout}


def read_out(f: Callable, row: PyTree) -> Hashable:
    """Apply a read-out to one particle; array scalars become Python scalars, arrays tuples."""
    value = f(row)
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        array = np.asarray(value)
        return array.item() if array.ndim == 0 else tuple(array.reshape(-1).tolist())
    return value


def summarize(
    values: Sequence[Hashable], normalized: np.ndarray, families: np.ndarray | None
) -> Distribution:
    """Group equal values; `families` holds the family of each particle by generation, `(G, N)`.

    Without families (None), and from a single particle, the standard errors are unknown.
    """
    distinct = list(dict.fromkeys(v for v, w in zip(values, normalized, strict=True) if w > 0))
    index = {value: k for k, value in enumerate(distinct)}
    member = np.zeros((len(distinct), len(values)))
    for i, value in enumerate(values):
        if value in index:
            member[index[value], i] = 1.0
    # Weights of float32 add up to 1 within 1e-7 only; probabilities must not exceed 1.
    normalized = normalized.astype(np.float64) / max(normalized.sum(dtype=np.float64), 1e-300)
    probabilities = np.minimum(member @ normalized, 1.0)
    deviations = normalized * (member - probabilities[:, None])
    unknown = families is None or np.count_nonzero(normalized) < 2
    variance = np.full(len(distinct), np.nan if unknown else 0.0)
    for family in () if families is None else families:
        totals = np.zeros((len(distinct), len(values)))
        np.add.at(totals, (slice(None), family), deviations)
        variance = np.maximum(variance, (totals**2).sum(axis=1))
    order = np.argsort(-probabilities, kind="stable")
    return Distribution(
        values=[distinct[k] for k in order],
        probabilities=probabilities[order],
        standard_errors=np.sqrt(variance)[order],
    )
