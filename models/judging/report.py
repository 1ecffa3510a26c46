"""`jurax rank`: a file of scores or preferences in; leaderboard, judges, posterior, figures out.

leaderboard.csv and leaderboard.md: see `Ranking.leaderboard`; judges.csv: see `Ranking.judges`;
superiority.csv: P(row better than column); posterior.nc: draws of all sites (scores only);
leaderboard.png, ranks.png; summary.json: options, sizes, convergence and notes; written last.
"""

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import pandas as pd

from jurax.inference import plots
from jurax.models.judging import plots as ranking_plots
from jurax.models.judging import preferences, scores
from jurax.models.judging.bradley_terry import BradleyTerry
from jurax.models.judging.ranking import Ranking
from jurax.models.judging.simplex import Simplex
from jurax.models.reports import new_folder, write_summary
from jurax.models.tables import as_frame


@dataclasses.dataclass(frozen=True)
class Options:
    """What was asked for; see `jurax rank --help`."""

    likelihood: str = "joint"
    drift: float | str = "learn"
    discrepancy: float | None = None
    dependence: float = 0.25
    collapse: str | None = None
    repeats: str = "error"
    ties: str = "davidson"
    intervals: str = "sandwich"
    seed: int = 0


def rank(
    table: Any,
    output: str | Path,
    options: Options,
    *,
    gold: Any = None,
    self_map: Mapping | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Rank candidates and write the output folder.

    Args:
        table: scores (columns item, candidate, judge, score) or preferences (model_a, model_b,
            winner; item and judge where known).
        output: a new or empty folder.
        options: of the model.
        gold: true scores of some answers (columns item, candidate, gold).
        self_map: judge -> candidate that it is.
        say: called with what is being done.

    Returns:
        The content of `summary.json`.

    Raises:
        ValueError: for bad tables, options or a folder that is in use; nothing is written then.
    """
    folder = new_folder(output)
    frame = as_frame(table, "the table", scores.COLUMNS)
    kind = kind_of(frame)
    say(f"ranking from {len(frame)} {kind}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        model = model_of(kind, options)
        found = model.fit(jax.random.key(options.seed), frame, gold, self_map)
    content = {
        "kind": kind,
        "target": found.target,
        **dataclasses.asdict(options),
        "num_candidates": len(found.candidates),
        "posterior_status": None if found.posterior is None else found.posterior.status,
        "tiers": {str(name): int(tier) for name, tier in found.tiers().items()},
        "warnings": list(dict.fromkeys(str(warning.message) for warning in caught)),
    }
    write(folder, found, content)
    return content


def kind_of(frame: pd.DataFrame) -> str:
    """Which of the two kinds of table this is.

    Raises:
        ValueError: if it is neither or both.
    """
    is_scores = set(scores.COLUMNS) <= set(frame.columns)
    is_preferences = set(preferences.COLUMNS) <= set(frame.columns)
    if is_scores == is_preferences:
        raise ValueError(
            f"the table must have either the columns {', '.join(scores.COLUMNS)} (scores) or "
            f"{', '.join(preferences.COLUMNS)} (preferences); it has "
            f"{', '.join(map(str, frame.columns)) or 'none'}"
        )
    return "scores" if is_scores else "preferences"


def model_of(kind: str, options: Options) -> Simplex | BradleyTerry:
    """The model for this kind of table."""
    if kind == "preferences":
        return BradleyTerry(ties=options.ties, intervals=options.intervals, position=True)
    return Simplex(
        likelihood=options.likelihood,
        drift=options.drift,
        discrepancy=options.discrepancy,
        dependence=options.dependence,
        collapse=number_or_text(options.collapse),
        repeats=options.repeats,
    )


def number(text: str, name: str) -> float:
    """A number, or a message that names the option."""
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{name} must be a number, got {text!r}") from error


def pairs(texts: Sequence[str]) -> dict[str, str]:
    """judge=candidate, split."""
    lacking = [text for text in texts if "=" not in text]
    if lacking:
        raise ValueError(f"--self must be judge=candidate, got {lacking[0]!r}")
    return {text.partition("=")[0]: text.partition("=")[2] for text in texts}


def number_or_text(text: str | None) -> str | float | None:
    """A number where the text is one."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def write(folder: Path, found: Ranking, content: dict[str, Any]) -> None:
    """All files; the summary is the last."""
    folder.mkdir(parents=True, exist_ok=True)
    found.to_csv(folder / "leaderboard.csv")
    (folder / "leaderboard.md").write_text(found.to_markdown(), encoding="utf-8")
    found.judges().to_csv(folder / "judges.csv", index=False)
    found.superiority().to_csv(folder / "superiority.csv")
    if found.posterior is not None:
        found.posterior.save(folder / "posterior.nc")
    label = "score" if content["kind"] == "scores" else "strength (logits)"
    plots.save(ranking_plots.leaderboard(found, label=label), folder / "leaderboard.png")
    plots.save(ranking_plots.rank_probabilities(found), folder / "ranks.png")
    write_summary(folder, content)
