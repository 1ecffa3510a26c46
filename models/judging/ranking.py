"""Ranking: draws of candidates' scores, read as people read leaderboards.

Ranks: 1 is best, rank = 1 + number of candidates with a higher score in the same draw, so that what
candidates share (items, judges) cancels. Intervals of ranks hold the middle 95 % of rank draws,
ends included; intervals of scores are central.

Shape letters: D draws, C candidates, J judges.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy import stats

from jurax.ppl import Posterior

SETTLED = 1  # a rank interval with at most this difference of its ends


@dataclasses.dataclass(frozen=True)
class Ranking:
    """What a fitted model says of candidates and judges.

    Attributes:
        candidates: names.
        draws: scores, higher is better, one row for each draw of the posterior `(D, C)`; draws of
            one row belong together.
        num_items: items on which a candidate was scored or compared.
        num_judges: judges that did so.
        limits: lowest and highest possible score; intervals are cut there.
        cards: one row for each judge: see `judges`.
        posterior: the draws of all sites, or None for likelihood methods.
        target: what was fitted, in words.
        notes: what a reader should know: warnings of the data and of the sampler.
        refit: `(**changes) -> Ranking`: the same data under other assumptions.

    Example:
        >>> import numpy as np, pandas as pd
        >>> draws = np.array([[3.0, 2.0, 1.0], [3.0, 1.0, 2.0]])
        >>> ranking = Ranking(pd.Index(["a", "b", "c"]), draws, np.full(3, 9), np.full(3, 2))
        >>> ranking.leaderboard()[["candidate", "expected_rank", "p_best"]].values.tolist()
        [['a', 1.0, 1.0], ['b', 2.5, 0.0], ['c', 2.5, 0.0]]
    """

    candidates: pd.Index
    draws: Float[np.ndarray, "D C"]
    num_items: Int[np.ndarray, " C"]
    num_judges: Int[np.ndarray, " C"]
    limits: tuple[float, float] = (-np.inf, np.inf)
    cards: pd.DataFrame | None = None
    posterior: Posterior | None = None
    target: str = ""
    notes: tuple[str, ...] = ()
    refit: Callable[..., "Ranking"] | None = None

    @functools.cached_property
    def ranks(self) -> Int[np.ndarray, "D C"]:
        """Rank of each candidate in each draw; equal scores share the better rank."""
        return stats.rankdata(-self.draws, method="min", axis=1).astype(int)

    def leaderboard(self) -> pd.DataFrame:
        """One row for each candidate, best expected rank first.

        score: posterior mean; lower_50, upper_50, lower_95, upper_95: central intervals of the
        score; expected_rank; rank_lower, rank_upper: 95 % interval of the rank, which holds the
        whole number next to expected_rank; p_best, p_top3: probabilities; num_items, num_judges;
        status: "settled" where the interval holds at most two ranks, else "tentative".
        """
        ranks = self.ranks
        expected = ranks.mean(axis=0)
        lower, upper = np.quantile(ranks, [0.025, 0.975], axis=0, method="inverted_cdf")
        middle = np.round(expected).astype(int)
        lower, upper = np.minimum(lower, middle), np.maximum(upper, middle)
        table = pd.DataFrame({"candidate": self.candidates, "score": self.draws.mean(axis=0)})
        for level in (50, 95):
            tail = (100 - level) / 200
            ends = np.quantile(self.draws, [tail, 1 - tail], axis=0).clip(*self.limits)
            table[f"lower_{level}"], table[f"upper_{level}"] = ends
        table["score"] = table["score"].clip(*self.limits)
        table["expected_rank"] = expected
        table["rank_lower"], table["rank_upper"] = lower.astype(int), upper.astype(int)
        table["p_best"] = (ranks == 1).mean(axis=0)
        table["p_top3"] = (ranks <= 3).mean(axis=0)
        table["num_items"], table["num_judges"] = self.num_items, self.num_judges
        table["status"] = np.where(upper - lower <= SETTLED, "settled", "tentative")
        return table.iloc[self._order].reset_index(drop=True)

    def rank_probabilities(self) -> pd.DataFrame:
        """P(candidate has rank r): rows candidates, best first, columns ranks 1, ..., C."""
        ranks = self.ranks
        places = np.arange(1, len(self.candidates) + 1)
        shares = (ranks[:, :, None] == places).mean(axis=0)
        return pd.DataFrame(shares, self.candidates, places).iloc[self._order]

    def superiority(self) -> pd.DataFrame:
        """P(row's score > column's score), best first; NaN on the diagonal."""
        above = (self.draws[:, :, None] > self.draws[:, None, :]).mean(axis=0)
        np.fill_diagonal(above, np.nan)
        table = pd.DataFrame(above, self.candidates, self.candidates)
        return table.iloc[self._order, self._order]

    def tiers(self, probability: float = 0.95) -> pd.Series:
        """Number of the tier of each candidate, best first.

        A tier ends below a candidate when every one above beats every one below with at least this
        probability, pair by pair.

        Raises:
            ValueError: if probability lies outside (0.5, 1].
        """
        if not 0.5 < probability <= 1:
            raise ValueError(f"probability must lie in (0.5, 1], got {probability}")
        above = self.superiority().to_numpy()
        size = len(above)
        tier = np.ones(size, int)
        for place in range(1, size):
            apart = bool(np.all(above[:place, place:] >= probability))
            tier[place] = tier[place - 1] + apart
        return pd.Series(tier, self.candidates[self._order], name="tier")

    def judges(self) -> pd.DataFrame:
        """One row for each judge; columns that a model or a table knows nothing of are NaN.

        judge, num_scores, leniency (mean score minus that of all judges on the same answers),
        agreement (with the other judges), failure_rate, position_bias, tie_rate, self_preference,
        warning.

        Raises:
            ValueError: if the ranking was made by hand, without judges.
        """
        if self.cards is None:
            raise ValueError("this ranking holds no judges")
        return self.cards.copy()

    def to_markdown(self) -> str:
        """The leaderboard as a table in Markdown."""
        table = self.leaderboard()
        cells = table.map(lambda x: f"{x:.3f}" if isinstance(x, float) else str(x))
        lines = [" | ".join(table.columns), " | ".join(["---"] * len(table.columns))]
        lines += [" | ".join(row).replace("\n", " ") for row in cells.to_numpy()]
        return "\n".join(f"| {line} |" for line in lines) + "\n"

    def to_csv(self, path: str | Path) -> None:
        """Write the leaderboard."""
        self.leaderboard().to_csv(path, index=False)

    def _repr_html_(self) -> str:
        return self.leaderboard().round(3).to_html(index=False)

    def __repr__(self) -> str:
        table = self.leaderboard()
        columns = ["candidate", "score", "expected_rank", "rank_lower", "rank_upper", "status"]
        return f"{self.target}\n{table[columns].round(2).to_string(index=False)}"

    @property
    def _order(self) -> Any:
        """Best expected rank first, the higher score first among equals."""
        return np.lexsort((-self.draws.mean(axis=0), self.ranks.mean(axis=0)))


def with_discrepancy(
    draws: Float[np.ndarray, "D C"], size: Float[np.ndarray, " C"], rng: np.random.Generator
) -> Float[np.ndarray, "D C"]:
    """Draws plus independent N(0, (size_c * sd)^2), sd that of posterior means between candidates.

    What all judges get wrong about a candidate together is in no score; this adds it after the fit.
    """
    spread = size * draws.mean(axis=0).std()
    return draws + spread * rng.standard_normal(draws.shape)
