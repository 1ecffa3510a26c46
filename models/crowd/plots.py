"""Figures of crowds: workers with intervals, difficulty of tasks, classes that are confused.

As in `inference/plots.py`, functions draw on given axes or on new ones, and return them.
"""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from jurax.inference.plots import COLORS, STYLE, axes_or_new

MANY = 40  # workers whose names can still be read


@matplotlib.rc_context(STYLE)
def worker_skills(workers: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Skills, sorted, with 90 % intervals where there are any.

    Args:
        workers: columns `skill` and, optionally, `skill_lower` and `skill_upper`, by worker.
        ax: axes to draw on.
    """
    ax = axes_or_new(ax, size=(7.2, 5.4))
    table = workers.sort_values("skill")
    place = np.arange(len(table))
    if "skill_lower" in table and table["skill_lower"].notna().any():
        ends = table["skill_lower"], table["skill_upper"]
        ax.hlines(place, *ends, color=COLORS[0], alpha=0.5, label="90% interval")
        ax.legend(loc="lower right")
    ax.plot(table["skill"], place, ".", color=COLORS[0])
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel("skill (1: always informed or right)")
    if len(table) <= MANY:
        ax.set_yticks(place, [str(name) for name in table.index], fontsize=9)
        ax.set_ylabel("worker")
    else:
        ax.set_ylabel(f"rank among {len(table)} workers")
    return ax


@matplotlib.rc_context(STYLE)
def task_difficulty(labels: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """How sure the labels are, and, for top-two models, how confusing the tasks.

    Args:
        labels: column `p_wrong` and, optionally, `q`, by task.
        ax: axes to draw on.
    """
    ax = axes_or_new(ax)
    if "q" in labels and labels["q"].notna().any():
        values, bins = labels["q"], np.linspace(0.5, 1, 26)
        ax.set_xlabel("confusion probability q (1/2: a coin flip between two answers)")
    else:
        values, bins = labels["p_wrong"], np.linspace(0, 1, 26)
        ax.set_xlabel("probability that the label is wrong")
    ax.hist(values, bins=bins, color=COLORS[0])  # pyright: ignore[reportArgumentType]
    ax.set_ylabel("tasks")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


@matplotlib.rc_context(STYLE)
def confused_classes(counts: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Expected number of tasks by right answer and most confusing answer.

    Args:
        counts: right answer x confusing answer.
        ax: axes to draw on.
    """
    ax = axes_or_new(ax, size=(6.4, 5.4))
    values = counts.to_numpy(float).copy()
    np.fill_diagonal(values, np.nan)
    image = ax.imshow(values, cmap="viridis")
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.85)
    bar.set_label("expected number of tasks")
    names = [str(name) for name in counts.columns]
    rotation = 45 if max(map(len, names)) > 3 else 0
    ax.set_xticks(range(len(names)), names, rotation=rotation)
    ax.set_yticks(range(len(names)), names)
    ax.grid(visible=False)
    ax.set_xlabel("most confusing answer h")
    ax.set_ylabel("right answer g")
    if len(names) <= 8:
        middle = (np.nanmin(values) + np.nanmax(values)) / 2
        for row, column in zip(*np.nonzero(~np.isnan(values)), strict=True):
            color = "white" if values[row, column] < middle else "black"
            text = f"{values[row, column]:.0f}"
            ax.text(column, row, text, ha="center", va="center", color=color, fontsize=10)
    return ax
