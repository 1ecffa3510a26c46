"""BradleyTerry: candidates ranked from battles.

Shape letters: C candidates, O outcomes, D draws, P parameters, J judges.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from jurax.models.judging import davidson
from jurax.models.judging.battle_cards import battle_cards
from jurax.models.judging.preferences import Preferences
from jurax.models.judging.ranking import Ranking

TIES = ("davidson", "half", "drop")
INTERVALS = ("posterior", "sandwich", "bootstrap")
FIXED = 1e6  # precision of a parameter that is not fitted
ELO = 400 / np.log(10)


@dataclasses.dataclass(frozen=True)
class BradleyTerry:
    """Strengths of candidates from battles: P(a beats b) = sigmoid(s_a - s_b) where nobody ties.

    Args:
        ties: "davidson", an outcome of its own (see `davidson`); "half" a win for each; "drop".
        judge_aware: not yet available.
        position: fit the advantage of the place shown first.
        prior_scale: sd of the normal prior of strengths, in logits; it keeps undefeated candidates
            finite and is weak beside a few dozen battles.
        intervals: "posterior" (normal, at the mode), "sandwich" (holds for battles of any law) or
            "bootstrap" (battles drawn again).
        scale: "logit", or "elo": 1000 + 400 s / log 10.
        num_draws: draws of the strengths, or rounds of the bootstrap.

    Example:
        >>> import jax
        >>> table = {"model_a": ["x"] * 30 + ["y"] * 30, "model_b": ["y"] * 30 + ["z"] * 30,
        ...          "winner": ["model_a"] * 24 + ["model_b"] * 6 + ["tie"] * 10 + ["model_a"] * 20}
        >>> ranking = BradleyTerry().fit(jax.random.key(0), table)
        >>> list(ranking.leaderboard()["candidate"])
        ['x', 'y', 'z']
    """

    ties: str = "davidson"
    judge_aware: bool = False
    position: bool = False
    prior_scale: float | int = 5.0
    intervals: str = "sandwich"
    scale: str = "logit"
    num_draws: int = 2000

    def __post_init__(self):
        for name, choices in (
            ("ties", TIES),
            ("intervals", INTERVALS),
            ("scale", ("logit", "elo")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be one of {', '.join(choices)}; got {getattr(self, name)!r}"
                )
        if not self.prior_scale > 0:
            raise ValueError(f"prior_scale must be a number > 0, got {self.prior_scale}")
        if self.judge_aware:
            raise NotImplementedError("judge_aware=True is not yet available")

    def fit(self, key: Array, df: Any, gold: Any = None, self_map: Any = None) -> Ranking:
        """Fit strengths and draw from their law; consumes `key`.

        Args:
            key: random key.
            df: preferences, as in `Preferences`, or one of these.
            gold: belongs to scores; must be None.
            self_map: belongs to scores; must be None.

        Raises:
            ValueError: for tables that hold no preferences.
        """
        if gold is not None or self_map is not None:
            raise ValueError("gold and self_map belong to scores; BradleyTerry takes preferences")
        battles = df if isinstance(df, Preferences) else Preferences(df)
        counts = self.counts(battles)
        precision, center = self._prior(counts)
        if self.intervals == "bootstrap":
            draws = bootstrap(key, counts, precision, center, self.num_draws)
        else:
            robust = self.intervals == "sandwich"
            draws = normal_draws(key, counts, precision, center, robust, self.num_draws)
        strengths = np.asarray(draws[:, :-2], float)
        strengths = strengths - strengths.mean(axis=1, keepdims=True)
        if self.scale == "elo":
            strengths = 1000 + ELO * strengths
        return Ranking(
            candidates=battles.candidates,
            draws=strengths,
            **coverage(battles),
            cards=battle_cards(battles),
            target=f"Bradley-Terry, ties {self.ties}, intervals {self.intervals}, of {battles!r}",
            refit=functools.partial(self._refit, key, battles),
        )

    def _refit(self, key: Array, battles: Preferences, **changes) -> Ranking:
        return dataclasses.replace(self, **changes).fit(key, battles)

    def counts(self, battles: Preferences) -> Float[Array, "C C O"]:
        """n[i, j, o]: i shown first, j second; o: i wins, tie, j wins."""
        size = battles.num_candidates
        straight = battles.shown_first > 0
        shown = np.where(straight, battles.first, battles.second)
        other = np.where(straight, battles.second, battles.first)
        place = 1 - battles.outcome * battles.shown_first
        code = (shown * size + other) * 3 + place
        counts = np.bincount(code, minlength=3 * size**2).reshape(size, size, 3).astype(float)
        if self.ties == "half":
            counts[..., [0, 2]] += counts[..., [1]] / 2
        if self.ties != "davidson":
            counts[..., 1] = 0
        if not counts.any():
            raise ValueError("every battle is a tie: nothing is left with ties='drop'")
        return jnp.asarray(counts)

    def _prior(self, counts: Float[Array, "C C O"]) -> tuple[Array, Array]:
        """Precision and mean of strengths, place advantage and log tie propensity."""
        size = counts.shape[0]
        tied = bool(counts[..., 1].sum() > 0)
        weak = 1 / self.prior_scale**2
        precision = [weak] * size + [weak if self.position else FIXED, weak if tied else FIXED]
        center = [0.0] * (size + 1) + [0.0 if tied else davidson.NO_TIES]
        return jnp.array(precision), jnp.array(center)


def bootstrap(
    key: Array,
    counts: Float[Array, "C C O"],
    precision: Float[Array, " P"],
    center: Float[Array, " P"],
    num_rounds: int,
) -> Float[Array, "D P"]:
    """Modes of battles drawn again: multinomial counts, fitted side by side."""
    rng = np.random.default_rng(np.asarray(jax.random.bits(key, (4,))))
    cells = np.asarray(counts, float)
    seen = np.flatnonzero(cells)
    shares = cells.flat[seen] / cells.sum()
    rounds = np.zeros((num_rounds, cells.size), np.float32)
    rounds[:, seen] = rng.multinomial(round(cells.sum()), shares, size=num_rounds)
    return modes(jnp.asarray(rounds.reshape(num_rounds, *cells.shape)), precision, center)


@jax.jit
def modes(
    rounds: Float[Array, "D C C O"], precision: Float[Array, " P"], center: Float[Array, " P"]
) -> Float[Array, "D P"]:
    """The fit of every round, some at a time."""
    return jax.lax.map(
        lambda counts: davidson.fit(counts, precision, center).parameters, rounds, batch_size=20
    )


@functools.partial(jax.jit, static_argnames=("robust", "num_draws"))
def normal_draws(
    key: Array,
    counts: Float[Array, "C C O"],
    precision: Float[Array, " P"],
    center: Float[Array, " P"],
    robust: bool,
    num_draws: int,
) -> Float[Array, "D P"]:
    """Draws of the normal law at the mode."""
    found = davidson.fit(counts, precision, center)
    covariance = jnp.linalg.inv(found.information)
    if robust:
        covariance = davidson.sandwich(found, counts)
    values, vectors = jnp.linalg.eigh(covariance)
    noise = jax.random.normal(key, (num_draws, values.size))
    root = vectors * jnp.sqrt(jnp.maximum(values, 0.0))[None, :]
    return found.parameters[None, :] + noise @ root.T


def coverage(battles: Preferences) -> dict[str, np.ndarray]:
    """Battles and judges of each candidate."""
    size = battles.num_candidates
    both = np.concatenate([battles.first, battles.second])
    items = pd.Series(np.tile(battles.item, 2)).groupby(both).nunique()
    judges = pd.Series(np.tile(battles.judge, 2)).groupby(both).nunique()
    return {
        "num_items": items.reindex(range(size)).to_numpy(),
        "num_judges": judges.reindex(range(size)).to_numpy(),
    }
