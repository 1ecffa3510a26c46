"""Figures of posteriors and of comparisons. Functions take data and return the axes they drew on.

Without `ax` a figure is made outside of pyplot, so that nothing stays open and no setting changes;
`ax.figure` shows it in a notebook and `save(ax, path)` writes it.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.transforms import offset_copy

from jurax.inference import diagnostics
from jurax.inference.calibration import ReliabilityBins
from jurax.ppl import Posterior
from jurax.ppl.posterior import Distribution

# Okabe and Ito 2008: told apart by readers with any colour vision.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLE = {
    "font.size": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "legend.fontsize": 12,
}


class Curve(NamedTuple):
    """Accuracy of a method at one or more budgets.

    Attributes:
        tokens: decoded tokens for each problem, discarded ones included.
        accuracy: share of problems solved.
        standard_error: of the accuracy.
    """

    tokens: Float[np.ndarray, " K"]
    accuracy: Float[np.ndarray, " K"]
    standard_error: Float[np.ndarray, " K"]


@matplotlib.rc_context(STYLE)
def accuracy_against_tokens(
    curves: Mapping[str, Curve],
    *,
    level: float = 0.95,
    colors: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Accuracy against decoded tokens on a logarithmic axis, with normal intervals.

    Methods are drawn a few points apart, so that intervals at equal tokens stay legible.

    Args:
        curves: a curve for each method, by its label.
        level: coverage of the intervals.
        colors: colours by label; by default one after the other.
        ax: axes to draw on.
    """
    ax = axes_or_new(ax)
    ax.set_xscale("log", base=2)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    for position, (label, curve, color, marker) in enumerate(styled(curves, colors)):
        aside = 4 * (position - (len(curves) - 1) / 2)
        ax.errorbar(
            curve.tokens,
            curve.accuracy,
            yerr=z * np.nan_to_num(curve.standard_error),
            label=label,
            color=color,
            marker=marker,
            capsize=3,
            markersize=7,
            linewidth=1.8,
            elinewidth=1.1,
            transform=offset_copy(ax.transData, ax.figure, x=aside, units="points"),
        )
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    tokens = np.concatenate([curve.tokens for curve in curves.values()])
    ends = [
        c.accuracy + sign * z * np.nan_to_num(c.standard_error)
        for c in curves.values()
        for sign in (-1, 1)
    ]
    ax.set_xlim(tokens.min() / 1.3, tokens.max() * 1.3)
    ax.set_ylim(
        max(0.0, np.concatenate(ends).min() - 0.04), min(1.0, np.concatenate(ends).max() + 0.04)
    )
    ax.set_xlabel("decoded tokens per problem, discarded ones included")
    ax.set_ylabel(f"problems solved ({level:.0%} intervals)")
    ax.legend(loc="lower right")
    return ax


@matplotlib.rc_context(STYLE)
def answer_posterior(
    distribution: Distribution,
    *,
    truth: object = None,
    max_values: int = 8,
    ax: Axes | None = None,
) -> Axes:
    """Posterior probability of each answer, with its Monte Carlo error as a bar.

    Args:
        distribution: what `posterior.distribution(process.answer)` returned.
        truth: the true answer where it is known; its bar is filled.
        max_values: less probable answers are left out.
        ax: axes to draw on.
    """
    ax = axes_or_new(ax)
    values = distribution.values[:max_values]
    labels = ["unfinished" if value is None else str(value) for value in values]
    known = truth is not None
    ax.bar(
        range(len(values)),
        distribution.probabilities[:max_values],
        yerr=distribution.standard_errors[:max_values],
        color=[COLORS[2] if known and value == truth else "#9fb8cc" for value in values],
        error_kw={"capsize": 3, "elinewidth": 1.2},
        edgecolor="#333333",
        linewidth=0.8,
    )
    ax.set_xticks(range(len(values)), labels)
    ax.set_ylim(bottom=0)
    ax.grid(axis="x", visible=False)
    ax.set_xlabel("answer" + (" (green: the true one)" if known else ""))
    ax.set_ylabel("posterior probability (bar: one\nMonte Carlo standard error)")
    return ax


@matplotlib.rc_context(STYLE)
def reliability_curve(
    curves: Mapping[str, ReliabilityBins],
    *,
    colors: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Share of right answers against stated probability; below, the problems in each bin.

    Args:
        curves: bins of each method, by its label, with the same edges.
        colors: colours by label; by default one after the other.
        ax: axes to draw on; a panel of counts is put under it.
    """
    ax = axes_or_new(ax, size=(7.2, 7.0))
    below = ax.inset_axes((0, -0.32, 1, 0.27), sharex=ax)
    ax.plot([0, 1], [0, 1], color="#888888", linestyle="--", linewidth=1.2, label="calibrated")
    for position, (label, bins, color, marker) in enumerate(styled(curves, colors)):
        full = bins.counts > 0
        middle, share = bins.probability[full], bins.frequency[full]
        spread = np.clip([share - bins.low[full], bins.high[full] - share], 0, None)
        ax.errorbar(
            middle, share, yerr=spread, label=label, color=color, marker=marker, capsize=3,
            markersize=7, linewidth=1.8, elinewidth=1.1,
        )  # fmt: skip
        width = np.diff(bins.edges) / (len(curves) + 0.5)
        left = bins.edges[:-1] + (position + 0.25) * width
        drawn = below.bar(left, bins.counts, width, align="edge", color=color)
        numbers = [str(count) if count else "" for count in bins.counts]
        below.bar_label(drawn, numbers, fontsize=9, padding=1)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.02)
    ax.tick_params(labelbottom=False)
    ax.set_ylabel("share of right answers (95% intervals)")
    ax.legend(loc="upper left")
    below.margins(y=0.2)
    below.grid(axis="x", visible=False)
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    below.set_xlabel("stated probability of the chosen answer")
    below.set_ylabel("problems")
    return ax


@matplotlib.rc_context(STYLE)
def diversity_path(posterior: Posterior, *, ax: Axes | None = None) -> Axes:
    """Effective sample size and distinct ancestors of the final population, step by step.

    Dotted vertical lines mark resamplings. For one problem: take `posterior[i]` of packed ones.
    """
    ax = axes_or_new(ax)
    sizes, ancestors = diagnostics.ess_path(posterior), diagnostics.unique_ancestors(posterior)
    steps = np.arange(1, len(sizes) + 1)
    for step in steps[diagnostics.resampling_times(posterior)]:
        ax.axvline(step - 0.5, color="#999999", linestyle=":", linewidth=1.4)
    ax.plot(steps, sizes, color=COLORS[0], marker="o", label="effective sample size")
    ax.plot(
        np.arange(len(ancestors)), ancestors, color=COLORS[1], marker="s",
        label="distinct ancestors of the final particles",
    )  # fmt: skip
    ax.set_ylim(0, 1.08 * posterior.log_weights.shape[-1])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("step (dotted: resampling before it)")
    ax.set_ylabel("particles")
    ax.legend(loc="best")
    return ax


@matplotlib.rc_context(STYLE)
def genealogy(posterior: Posterior, *, ax: Axes | None = None) -> Axes:
    """Who descends from whom: all moves in grey, ancestors of the final population in colour."""
    ax = axes_or_new(ax)
    slots = diagnostics.lineages(posterior)
    times = np.arange(len(slots))
    parents = posterior.info.get("ancestors")
    for time in times[:-1]:
        own = np.arange(slots.shape[1])
        origin = own if parents is None else np.asarray(parents)[time]
        ax.plot([time, time + 1], [origin, own], color="#cccccc", linewidth=0.8, zorder=1)
    weights = np.asarray(posterior.normalized())
    widths = 0.8 + 3.0 * weights / max(weights.max(), 1e-30)
    for lineage, width in zip(slots.T, widths, strict=True):
        ax.plot(times, lineage, color=COLORS[0], linewidth=width, alpha=0.75, zorder=2)
    ends = np.full(len(weights), times[-1])
    ax.scatter(ends, slots[-1], s=12 * widths**2, color=COLORS[0], zorder=3)
    ax.grid(visible=False)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("step")
    ax.set_ylabel("particle (width: final weight)")
    return ax


def save(ax: Axes, path: str | Path) -> None:
    """Write the figure of `ax` as PNG; the file appears at once, complete."""
    path = Path(path)
    temporary = path.with_name(path.name + ".partial")
    ax.get_figure(root=True).savefig(temporary, format="png", dpi=150, bbox_inches="tight")
    os.replace(temporary, path)


@matplotlib.rc_context(STYLE)
def axes_or_new(ax: Axes | None, size: tuple[float, float] = (7.2, 4.8)) -> Axes:
    """The given axes, or those of a new figure that pyplot does not know."""
    if ax is not None:
        return ax
    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    new = figure.add_subplot()
    new.tick_params(labelsize=12)  # ticks are made when drawing, outside of the style
    return new


def styled(curves: Mapping[str, object], colors: Mapping[str, str] | None):
    """Label, data, colour and marker of each curve."""
    for i, (label, data) in enumerate(curves.items()):
        color = COLORS[i % len(COLORS)] if colors is None else colors[label]
        yield label, data, color, MARKERS[i % len(MARKERS)]
