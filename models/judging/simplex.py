"""Simplex: candidates ranked from judge scores whose judges are not taken at their word.

A candidate is a point of the simplex of true levels, a judge a set of points in the simplex of
given levels; judge scores alone show mixtures of the second weighted by the first (Vossler et al.
2026, arXiv 2505.21972, section 2). `Simplex` puts priors on both and reports what is left to know.

    score_c = sum_m value_m pi[c, m]

Shape letters: D draws, C candidates, J judges, M levels, S draws of a chain, K chains.
"""

import dataclasses
import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from jurax.inference import NUTS, infer
from jurax.models.judging.judge_cards import score_cards
from jurax.models.judging.judge_law import rows_of
from jurax.models.judging.ranking import Ranking, with_discrepancy
from jurax.models.judging.scores import Scores
from jurax.models.judging.simplex_program import DRIFT_MEDIAN, Knobs, simplex_program
from jurax.ppl import Posterior, bind
from jurax.ppl.program import Program
from jurax.ppl.storage import import_arviz

LIKELIHOODS = ("joint", "marginal")
# Errors of nine judges on TriviaQA correlate by .26 and .29 (two passes).
DEPENDENCE = 0.25
# With two levels and a judge better than random the order can be known (theorem 1); with more it
# cannot from scores alone (theorem 2), and what judges share is added as a quarter of the spread.
DISCREPANCY = {True: 0.0, False: 0.25}
MOST_R_HAT, LEAST_ESS = 1.01, 400.0
MOST_DRIFT = 1.0  # logits; on TriviaQA two broken judges have 2 and 4, the others below 0.6


@dataclasses.dataclass(frozen=True)
class Simplex:
    """The simplex model of judge scores.

    Args:
        levels: all scores that could be given, worst first; default: those that occur.
        likelihood: "joint", of whole items, judges erring independently given the true level; or
            "marginal", of score counts alone.
        drift: how much a judge's leniency differs between candidates, in logits: a number for all
            judges (0: a judge treats all alike), or "learn" for each judge.
        discrepancy: sd, as a share of the spread of candidates' scores, of what all judges get
            wrong together; added to draws after the fit, less where gold is known. Default: 0 with
            two levels, 0.25 with more.
        collapse: "binary" or a number joins the levels to two (see `Scores`).
        dependence: correlation rho of judges' mistakes: the scores of n judges count as those of
            n / (1 + (n - 1) rho). 0 takes them for independent.
        quality: median log distance, in logits, between locations of neighbouring levels: how well
            judges are expected to tell them apart.
        self_judging: "mask" or "keep" cells in which a judge scores itself.
        repeats: as in `Scores`.
        num_samples, num_warmup, num_chains: of NUTS.

    Example:
        >>> import jax, numpy as np, pandas as pd
        >>> rng = np.random.default_rng(0)
        >>> good = rng.random((2, 60)) < np.array([[0.9], [0.3]])  # candidate, item
        >>> rows = [
        ...     (item, "ab"[c], f"judge {j}", int(good[c, item] ^ (rng.random() < 0.15)))
        ...     for c in range(2) for item in range(60) for j in range(3)
        ... ]
        >>> table = pd.DataFrame(rows, columns=["item", "candidate", "judge", "score"])
        >>> ranking = Simplex(drift=0).fit(jax.random.key(0), table)
        >>> ranking.leaderboard()[["candidate", "rank_lower", "rank_upper"]].values.tolist()
        [['a', 1, 1], ['b', 2, 2]]
    """

    levels: Sequence | None = None
    likelihood: str = "joint"
    drift: float | int | str = "learn"
    discrepancy: float | int | None = None
    collapse: str | float | int | None = None
    dependence: float | int = DEPENDENCE
    quality: float | int = 0.7
    self_judging: str = "mask"
    repeats: str = "error"
    num_samples: int = 500
    num_warmup: int = 300
    num_chains: int = 4

    def __post_init__(self):
        if self.likelihood not in LIKELIHOODS:
            raise ValueError(f"likelihood must be 'joint' or 'marginal', got {self.likelihood!r}")
        if isinstance(self.drift, str) and self.drift != "learn":
            raise ValueError(f"drift must be a number >= 0 or 'learn', got {self.drift!r}")
        for name in ("drift", "discrepancy", "dependence"):
            value = getattr(self, name)
            if not isinstance(value, str) and value is not None and not value >= 0:
                raise ValueError(f"{name} must be a number >= 0, got {value!r}")
        if self.dependence > 1:
            raise ValueError(f"dependence is a correlation, at most 1; got {self.dependence}")

    def read(self, table: Any, gold: Any = None, self_map: Mapping | None = None) -> Scores:
        """The table as this model sees it."""
        return Scores(
            table,
            levels=self.levels,
            gold=gold,
            self_map=self_map,
            self_judging=self.self_judging,
            collapse=self.collapse,
            repeats=self.repeats,
        )

    def program(self, scores: Scores) -> Program:
        """The model with its data, for `infer` and any sampler of programs."""
        learn = self.drift == "learn"
        knobs = Knobs(
            drift=jnp.asarray(DRIFT_MEDIAN if learn else self.drift, float),
            quality=jnp.asarray(self.quality, float),
            dependence=jnp.asarray(self.dependence, float),
        )
        if self.likelihood == "marginal" and (scores.gold >= 0).any():
            raise ValueError("gold belongs to items: use likelihood='joint'")
        joint = self.likelihood == "joint"
        data = rows_of(scores) if joint else jnp.asarray(scores.counts(), float)
        return bind(simplex_program, data, knobs, scores.num_levels, learn)

    def fit(
        self, key: Array, df: Any, gold: Any = None, self_map: Mapping | None = None
    ) -> Ranking:
        """Draw from the posterior and rank; consumes `key`.

        Args:
            key: random key.
            df: scores, as in `Scores`.
            gold: true scores of some answers (columns item, candidate, gold): they enter the fit.
            self_map: judge -> candidate that it is.

        Returns:
            A `Ranking`; warns where the chains do not agree, and names the knob to tighten.

        Raises:
            ValueError: for tables that hold no scores (see `Scores`).
        """
        scores = self.read(df, gold, self_map)
        key_run, key_rest = jax.random.split(key)
        algorithm = NUTS(
            self.num_samples,
            self.num_warmup,
            self.num_chains,
            target_acceptance=0.85,
            start="laplace",
        )
        posterior = sample(key_run, self.program(scores), algorithm)
        chains = np.asarray(posterior.particles["prevalence"]) @ scores.values
        notes = advice(chains, int(posterior.info["divergences"]))
        for note in notes:
            warnings.warn(note, stacklevel=2)
        draws = self._with_discrepancy(key_rest, chains.reshape(-1, scores.num_candidates), scores)
        return Ranking(
            candidates=scores.candidates,
            draws=draws,
            **coverage(scores),
            limits=(float(scores.values[0]), float(scores.values[-1])),
            cards=with_drift(score_cards(scores), posterior),
            posterior=posterior,
            target=self._describe(scores),
            notes=tuple(notes),
            refit=functools.partial(self._refit, key, df, gold, self_map),
        )

    def _refit(self, key: Array, df: Any, gold: Any, self_map: Mapping | None, **changes):
        return dataclasses.replace(self, **changes).fit(key, df, gold, self_map)

    def _with_discrepancy(
        self, key: Array, draws: Float[np.ndarray, "D C"], scores: Scores
    ) -> Float[np.ndarray, "D C"]:
        """Add what judges get wrong together, to the part of a candidate that has no gold."""
        size = self.discrepancy
        if size is None:
            size = DISCREPANCY[scores.num_levels == 2]
        number = np.bincount(scores.pair_candidate, minlength=scores.num_candidates)
        known = np.bincount(scores.pair_candidate[scores.gold >= 0], minlength=len(number))
        seed = np.asarray(jax.random.bits(key, (2,)))
        return with_discrepancy(draws, size * (1 - known / number), np.random.default_rng(seed))

    def _describe(self, scores: Scores) -> str:
        return (
            f"simplex model of {scores!r}: {self.likelihood} likelihood, drift {self.drift}, "
            f"dependence {self.dependence:g}"
        )


@eqx.filter_jit
def sample(key: Array, program: Program, algorithm: NUTS) -> Posterior:
    """One compilation for tables of a shape, whatever the knobs."""
    return infer(key, program, algorithm)


def with_drift(cards: pd.DataFrame, posterior: Posterior) -> pd.DataFrame:
    """Cards with a warning for judges whose leniency depends on who is judged."""
    if "drift_scale" not in posterior.particles:
        return cards
    drift = np.asarray(posterior.particles["drift_scale"]).mean(axis=(0, 1))
    found = [
        f"treats candidates unequally (drift {size:.1f} logits)" if size > MOST_DRIFT else ""
        for size in drift
    ]
    both = ["; ".join(filter(None, pair)) for pair in zip(cards["warning"], found, strict=True)]
    return cards.assign(warning=both)


def coverage(scores: Scores) -> dict[str, np.ndarray]:
    """Items and judges of each candidate."""
    rated = np.zeros((scores.num_candidates, scores.num_judges), bool)
    rated[scores.pair_candidate[scores.pair], scores.judge] = True
    items = np.bincount(scores.pair_candidate, minlength=scores.num_candidates)
    return {"num_items": items, "num_judges": rated.sum(axis=1)}


def advice(chains: Float[np.ndarray, "K S C"], divergences: int) -> list[str]:
    """Whether the chains agree on the scores, and which knob helps where they do not."""
    az = import_arviz()
    data = az.convert_to_dataset({"score": chains})
    found = []
    if chains.shape[0] > 1:
        r_hat = float(az.rhat(data)["score"].max())
        ess = float(az.ess(data)["score"].min())
        if not (r_hat <= MOST_R_HAT and ess >= LEAST_ESS):
            found.append(
                f"candidate scores have R-hat {r_hat:.3f} and bulk ESS {ess:.0f} (wanted: at most "
                f"{MOST_R_HAT}, at least {LEAST_ESS:.0f}): raise num_samples, or fix drift=0.3"
            )
    if divergences:
        found.append(f"{divergences} divergent draws: raise num_warmup, or fix drift=0.3")
    return found
