"""`jurax aggregate`: a file of answers in; labels, workers, a summary, a posterior, figures out.

labels.csv: task, label, probability, p_wrong, entropy in nats; for top-two models with a posterior
also the most probable pair first, second, with p_set and p_order, and q with its 90 % interval.
workers.csv: worker, num_answers, skill, its 90 % interval, agreement with the labels.
summary.json: options, sizes, convergence and, with known labels, scores; written last.
posterior.nc: draws of the top-two model's parameters (three classes or more).
Figures: workers, difficulty, confusable classes, reliability (with known labels).
"""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from jaxtyping import Array

from jurax.inference import NUTS, SVI, infer, plots
from jurax.models.crowd import plots as crowd_plots
from jurax.models.crowd.aggregator import AbstractAggregator
from jurax.models.crowd.agreement import krippendorff_alpha
from jurax.models.crowd.answers import Answers
from jurax.models.crowd.calibration import Calibration, calibration
from jurax.models.crowd.dawid_skene import DawidSkene
from jurax.models.crowd.glad import GLAD
from jurax.models.crowd.kos import KOS
from jurax.models.crowd.m_msr import MMSR
from jurax.models.crowd.mace import MACE
from jurax.models.crowd.majority import MajorityVote, Wawa, ZeroBasedSkill
from jurax.models.crowd.one_coin import OneCoinDawidSkene
from jurax.models.crowd.soft_labels import soft_labels
from jurax.models.crowd.tables import COLUMNS, refuse_twice
from jurax.models.crowd.top_two import TopTwo
from jurax.models.crowd.top_two_posterior import TaskPosterior, read_tasks
from jurax.models.reports import new_folder, write_summary
from jurax.models.tables import as_frame
from jurax.ppl import Posterior

MODELS: dict[str, type[AbstractAggregator]] = {
    "majority": MajorityVote,
    "wawa": Wawa,
    "zero-based-skill": ZeroBasedSkill,
    "one-coin": OneCoinDawidSkene,
    "dawid-skene": DawidSkene,
    "glad": GLAD,
    "mace": MACE,
    "kos": KOS,
    "m-msr": MMSR,
    "top-two": TopTwo,
}
POSTERIORS = ("auto", "nuts", "svi", "none")
NUTS_LIMIT = 3_000  # answers up to which "auto" takes NUTS: about a minute on two cores


@dataclasses.dataclass(frozen=True)
class Options:
    """What was asked for; see `jurax aggregate --help`."""

    model: str = "dawid-skene"
    repeats: str = "error"
    classes: Sequence[str] | None = None
    posterior: str = "auto"
    num_warmup: int = 300
    num_samples: int = 300
    num_chains: int = 2
    seed: int = 0

    def __post_init__(self):
        for name, choices in (("model", MODELS), ("posterior", POSTERIORS)):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be one of {', '.join(choices)}; got {getattr(self, name)!r}"
                )


def aggregate(
    table: Any,
    output: str | Path,
    options: Options,
    *,
    truth: Any = None,
    gold: Any = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Fit a model to answers and write the output folder.

    Args:
        table: answers, as for `Answers`.
        output: a new or empty folder.
        options: the model and how to fit it.
        truth: known labels (columns task, label) to score against; the fit does not see them.
        gold: known labels that the fit does see; those tasks are not scored.
        say: called with what is being done.

    Returns:
        The content of `summary.json`.

    Raises:
        ValueError: for bad tables, options or a folder that is in use; nothing is written then.
    """
    folder = new_folder(output)
    table = as_frame(table, "answers", COLUMNS)
    answers = Answers(table, options.repeats, matching(options.classes, table))
    known, scored = labels_of(gold), labels_of(truth)
    say(f"fitting {options.model} to {answers!r}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = MODELS[options.model](seed=options.seed).fit(answers, gold=known)
    key_run, key_read = jax.random.split(jax.random.key(options.seed))
    posterior, algorithm = sampled(key_run, model, answers, known, options, say)
    found = None if posterior is None else read_tasks(key_read, posterior, answers, known)
    probas = soft_labels(model if found is None else found, "label")
    scores = None
    if scored is not None:
        unseen = scored if known is None else scored[~scored.index.isin(known.index)]
        scores = calibration(probas, unseen)
    content = {
        **dataclasses.asdict(options),
        "posterior": algorithm,
        **sizes(answers),
        **convergence(model, posterior),
        "scores": None if scores is None else score_lines(scores),
        "warnings": [str(warning.message) for warning in caught],
    }
    write(folder, model, probas, found, posterior, scores, content)
    return content


def matching(classes: Sequence[str] | None, table: pd.DataFrame) -> list | None:
    """The classes of the command line in the type of the table's labels."""
    if classes is None:
        return None
    if "label" in table and pd.api.types.is_numeric_dtype(table["label"]):
        return [pd.to_numeric(name) for name in classes]
    return list(classes)


def labels_of(table: Any) -> pd.Series | None:
    """Labels by task, from a frame or file with the columns task and label."""
    if table is None:
        return None
    frame = as_frame(table, "known labels", ("task", "label"))
    lacking = [name for name in ("task", "label") if name not in frame]
    if lacking:
        raise ValueError(f"known labels need the columns task and label; {lacking[0]} is missing")
    labels = pd.Series(frame["label"].to_numpy(), frame["task"].to_numpy()).dropna()
    refuse_twice(labels, "known labels name")
    return labels


def sampled(
    key: Array,
    model: AbstractAggregator,
    answers: Answers,
    known: pd.Series | None,
    options: Options,
    say: Callable[[str], None],
) -> tuple[Posterior | None, str]:
    """The posterior of the top-two model and who drew it; None for the others."""
    kind = options.posterior
    if not isinstance(model, TopTwo) or answers.num_classes < 3 or kind == "none":
        return None, "none"
    if kind == "auto":
        kind = "nuts" if len(answers) <= NUTS_LIMIT else "svi"
    algorithm: Any = SVI(num_samples=options.num_samples)
    if kind == "nuts":
        algorithm = NUTS(options.num_samples, options.num_warmup, options.num_chains)
    say(f"sampling the posterior by {kind.upper()}")
    return infer(key, model.program(answers, known), algorithm), kind


def sizes(answers: Answers) -> dict[str, Any]:
    """Counts, and agreement beyond chance where it is defined."""
    try:
        alpha = krippendorff_alpha(answers)
    except ValueError:
        alpha = None
    return {
        "num_answers": len(answers),
        "num_tasks": answers.num_tasks,
        "num_workers": answers.num_workers,
        "labels": [str(name) for name in answers.classes],
        "num_repeated": answers.num_repeated,
        "krippendorff_alpha": alpha,
    }


def convergence(model: AbstractAggregator, posterior: Posterior | None) -> dict[str, Any]:
    """Iterations of the fit, and the state of the posterior."""
    found = model.estimate_
    iterative = found.num_iterations > 0
    return {
        "iterations": found.num_iterations,
        "converged": found.num_iterations < model.n_iter if iterative else None,
        "log_likelihood_per_answer": number(found.log_likelihood),
        "class_shares": {str(k): float(v) for k, v in model.priors_.items()},
        "posterior_status": None if posterior is None else posterior.status,
    }


def number(value: float) -> float | None:
    """JSON has no NaN."""
    return float(value) if np.isfinite(value) else None


def score_lines(scores: Calibration) -> dict[str, Any]:
    """The scores without the bins."""
    return {
        field.name: getattr(scores, field.name)
        for field in dataclasses.fields(scores)
        if field.name != "bins"
    }


def label_table(
    model: AbstractAggregator, probas: pd.DataFrame, found: TaskPosterior | None
) -> pd.DataFrame:
    """The content of labels.csv, by task."""
    rows, best = probas.to_numpy(), probas.to_numpy().argmax(axis=1)
    if found is None:
        best = model.best_
    columns = {
        "label": probas.columns.take(best),
        "probability": rows[np.arange(len(rows)), best],
        "p_wrong": 1 - rows[np.arange(len(rows)), best],
        "entropy": -(rows * np.log(np.maximum(rows, 1e-30))).sum(axis=1),
    }
    table = pd.DataFrame(columns, probas.index)
    if found is not None:
        return table.join(
            found.tasks[["first", "second", "p_set", "p_order", "q", "q_lower", "q_upper"]]
        )
    if model.estimate_.pairs is not None:
        return table.assign(second=model.second_, q=model.confusion_)  # pyright: ignore
    return table


def worker_table(
    model: AbstractAggregator, labels: pd.Series, found: TaskPosterior | None
) -> pd.DataFrame:
    """The content of workers.csv, by worker."""
    answers = model.answers_
    chosen = answers.classes.get_indexer(pd.Index(labels))
    agrees = pd.Series(chosen[answers.task] == answers.label).groupby(answers.worker)
    table = pd.DataFrame({"num_answers": agrees.size(), "skill": 0.0, "agreement": agrees.mean()})
    table.index = model.skills_.index
    if found is None:
        return table.assign(skill=model.skills_)
    inside = found.workers.rename(
        columns={"p": "skill", "p_lower": "skill_lower", "p_upper": "skill_upper"}
    )
    return table.drop(columns="skill").join(inside)


def write(
    folder: Path,
    model: AbstractAggregator,
    probas: pd.DataFrame,
    found: TaskPosterior | None,
    posterior: Posterior | None,
    scores: Calibration | None,
    content: dict[str, Any],
) -> None:
    """All files; the summary is the last."""
    labels = label_table(model, probas, found)
    workers = worker_table(model, labels["label"], found)
    folder.mkdir(parents=True, exist_ok=True)
    labels.to_csv(folder / "labels.csv")
    workers.to_csv(folder / "workers.csv")
    if posterior is not None:
        posterior.save(folder / "posterior.nc")
    plots.save(crowd_plots.worker_skills(workers), folder / "workers.png")
    plots.save(crowd_plots.task_difficulty(labels), folder / "difficulty.png")
    pairs = model.estimate_.pairs if found is None else found.pairs
    if pairs is not None:
        counts = pd.DataFrame(pairs.sum(axis=0), probas.columns, probas.columns)
        plots.save(crowd_plots.confused_classes(counts), folder / "confusable.png")
    if scores is not None:
        curve = plots.reliability_curve({content["model"]: scores.bins})
        plots.save(curve, folder / "reliability.png")
    write_summary(folder, content)
