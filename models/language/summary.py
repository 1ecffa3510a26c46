"""The figures of a run: `summary.json`, `accuracy.png`, `calibration.png` and the printed table.

`summary.json` holds `methods`, with an entry for each method:

    accuracy, standard_error          share of problems answered right; problems are the units
    decoded_tokens, reward_tokens     for each problem, mean; discarded tokens included
    seconds                           all problems together, without compilation
    compile_seconds                   all shapes together
    ece, ece_standard_error           expected calibration error of the chosen answer's probability
    ece_floor                         mean ECE of a calibrated predictor with these probabilities
    brier, log_score                  see `jurax.inference.calibration`
    num_problems, num_known           problems; those whose true answer is known
    num_particles, target, status     what was run; how many problems ended in which state

Where no true answer is known, what needs one is null, and no figure is drawn. `differences` holds
the paired difference of accuracies to each other method, with its standard error. `units` repeats
the units, `run` what determined the result.
"""

import collections
import json
from collections.abc import Mapping
from typing import Any

import jax
from rich import box
from rich.table import Table

from jurax.inference import calibration, plots
from jurax.inference.comparison import bootstrap_standard_error, mean_with_error, paired_difference
from jurax.models.language import pools
from jurax.models.language.outcome import Outcome
from jurax.models.language.run_folder import RunFolder

LABELS = {
    "greedy": "greedy",
    "majority": "majority",
    "best_of_n": "best of N",
    "particle_filter": "particle filter",
}
COLORS = dict(zip(LABELS.values(), (plots.COLORS[3], *plots.COLORS[:3]), strict=True))
UNITS = {
    "accuracy": "share of problems",
    "standard_error": "share of problems",
    "decoded_tokens": "tokens per problem, discarded ones included",
    "reward_tokens": "tokens per problem read by the reward model, prompt included",
    "seconds": "wall-clock seconds for all problems, compilation left out",
    "compile_seconds": "wall-clock seconds",
    "ece": "probability",
    "ece_floor": "probability",
    "brier": "squared probability, smaller is better",
    "log_score": "nats per problem, larger is better",
}
COLUMNS = (
    ("accuracy", "accuracy", "{:.1%}"),
    ("standard\nerror", "standard_error", "{:.1%}"),
    ("decoded\ntokens", "decoded_tokens", "{:,.0f}"),
    ("reward\ntokens", "reward_tokens", "{:,.0f}"),
    ("seconds", "seconds", "{:.1f}"),
    ("ECE", "ece", "{:.3f}"),
    ("ECE\nfloor", "ece_floor", "{:.3f}"),
)
CAPTION = "tokens for each problem, discarded ones included; seconds for all, without compiling"
BOOTSTRAP_SEED = 0


def summarize(outcomes: Mapping[str, Outcome], run: dict[str, Any]) -> dict[str, Any]:
    """The content of `summary.json`."""
    largest = max(outcome.setting.num_particles for outcome in outcomes.values())
    clip = calibration.clip_bound(largest)
    return {
        "methods": {name: entry(outcome, clip) for name, outcome in outcomes.items()},
        "differences": differences(outcomes),
        "units": {**UNITS, "log_score_clip": clip, "ece_bins": calibration.NUM_BINS},
        "run": run,
    }


def entry(outcome: Outcome, clip: float) -> dict[str, Any]:
    """The entry of one method."""
    states = collections.Counter(line["status"] for line in outcome.lines)
    return {
        **scores(outcome, clip),
        "decoded_tokens": outcome.spent("decoded_tokens"),
        "reward_tokens": outcome.spent("reward_tokens"),
        "seconds": outcome.seconds,
        "compile_seconds": outcome.compile_seconds,
        "num_problems": len(outcome.lines),
        "num_known": int(outcome.known.sum()),
        "num_particles": outcome.setting.num_samples,
        "target": outcome.target,
        "status": dict(states),
    }


def scores(outcome: Outcome, clip: float) -> dict[str, float | None]:
    """What needs the true answers; None where there is none."""
    names = (
        "accuracy",
        "standard_error",
        "ece",
        "ece_standard_error",
        "ece_floor",
        "brier",
        "log_score",
    )
    if not outcome.known.any():
        return dict.fromkeys(names)
    stated, correct = outcome.probabilities, outcome.correct
    key_floor, key_error = jax.random.split(jax.random.key(BOOTSTRAP_SEED))
    ece = calibration.expected_calibration_error
    values = (
        *mean_with_error(correct),
        ece(stated, correct),
        bootstrap_standard_error(key_error, ece, stated, correct),
        calibration.calibration_floor(key_floor, stated),
        calibration.brier_score(stated, correct),
        calibration.log_score(stated, correct, clip=clip),
    )
    return dict(zip(names, values, strict=True))


def differences(outcomes: Mapping[str, Outcome]) -> dict[str, dict[str, float]]:
    """Paired differences of accuracy: the last method less each other one."""
    *others, last = outcomes.items()
    found = {}
    for name, outcome in others:
        if outcome.known.any():
            gain = paired_difference(last[1].correct, outcome.correct)
            found[f"{last[0]} - {name}"] = {
                "accuracy": gain.value,
                "standard_error": gain.standard_error,
            }
    return found


def write_results(
    folder: RunFolder,
    outcomes: Mapping[str, Outcome],
    run: dict[str, Any],
    extra: Mapping[str, list[Outcome]] | None = None,
) -> dict[str, Any]:
    """Write the figures and, last, `summary.json`; return its content.

    Args:
        folder: where to.
        outcomes: by method.
        run: what determined them.
        extra: runs of the same methods with fewer particles, for the accuracy curve.
    """
    if next(iter(outcomes.values())).known.any():
        draw_accuracy(folder, outcomes, extra or {})
        draw_calibration(folder, outcomes)
    folder.finish(summarize(outcomes, run))
    return read_summary(folder)


def read_summary(folder: RunFolder) -> dict[str, Any]:
    """The summary of a complete run."""
    return json.loads((folder.path / "summary.json").read_text(encoding="utf-8"))


def draw_accuracy(
    folder: RunFolder, outcomes: Mapping[str, Outcome], extra: Mapping[str, list[Outcome]]
) -> None:
    """`accuracy.png`: pooling methods at every power of two, others where they were run."""
    curves = {}
    for name, outcome in outcomes.items():
        if name in pools.POOLED:
            curves[LABELS[name]] = pools.pooled_curve(outcome)
        else:
            curves[LABELS[name]] = pools.curve([*extra.get(name, []), outcome])
    ax = plots.accuracy_against_tokens(curves, colors=COLORS)
    plots.save(ax, folder.path / "accuracy.png")


def draw_calibration(folder: RunFolder, outcomes: Mapping[str, Outcome]) -> None:
    """`calibration.png`: the methods that state probabilities, or the only method."""
    stating = [name for name in outcomes if name in ("majority", "particle_filter")]
    bins, colors = {}, {}
    for name in stating or outcomes:
        score = scores(outcomes[name], clip=0.5)
        label = f"{LABELS[name]} (ECE {score['ece']:.3f}, floor {score['ece_floor']:.3f})"
        bins[label] = calibration.reliability_bins(
            outcomes[name].probabilities, outcomes[name].correct
        )
        colors[label] = COLORS[LABELS[name]]
    plots.save(plots.reliability_curve(bins, colors=colors), folder.path / "calibration.png")


def table(content: dict[str, Any]) -> Table:
    """The summary as a table for the terminal."""
    shown = Table(
        box=box.SIMPLE_HEAD, collapse_padding=True, caption=CAPTION, caption_justify="left"
    )
    shown.add_column("method", no_wrap=True)
    for heading, _, _ in COLUMNS:
        shown.add_column(heading, justify="right")
    for name, figures in content["methods"].items():
        shown.add_row(LABELS[name], *(number(figures[key], form) for _, key, form in COLUMNS))
    return shown


def number(value: float | None, form: str) -> str:
    """A number in a form, or a dash where there is none."""
    return "-" if value is None else form.format(value)
