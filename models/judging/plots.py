"""Figures of rankings. Functions take a `Ranking` and return the axes they drew on."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from jurax.inference.plots import COLORS, STYLE, axes_or_new
from jurax.models.judging.ranking import Ranking

MOST_TICKS = 16
MOST_NUMBERS = 12  # candidates up to which cells of a heat map hold their number


@matplotlib.rc_context(STYLE)
def leaderboard(ranking: Ranking, *, ax: Axes | None = None, label: str = "score") -> Axes:
    """Scores with their 50 % (thick) and 95 % (thin) intervals, the best on top."""
    table = ranking.leaderboard().iloc[::-1]
    ax = axes_or_new(ax, (7.0, 1.2 + 0.35 * len(table)))
    rows = np.arange(len(table))
    for level, width in ((95, 1.5), (50, 5.0)):
        ax.hlines(
            rows, table[f"lower_{level}"], table[f"upper_{level}"], COLORS[0], linewidth=width
        )
    ax.plot(table["score"], rows, "o", color="white", markeredgecolor=COLORS[0], markersize=6)
    ax.set_yticks(rows, [str(name) for name in table["candidate"]])
    ax.set_xlabel(f"{label}, with 50 % and 95 % intervals")
    ax.grid(visible=False, axis="y")
    return ax


@matplotlib.rc_context(STYLE)
def rank_probabilities(ranking: Ranking, *, ax: Axes | None = None) -> Axes:
    """P(candidate has rank r), the best on top."""
    table = ranking.rank_probabilities()
    size = len(table)
    ax = axes_or_new(ax, (2.5 + 0.5 * size, 1.5 + 0.4 * size))
    image = ax.imshow(table.to_numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    ax.figure.colorbar(image, ax=ax, label="probability")
    ax.set_yticks(range(size), [str(name) for name in table.index])
    step = 1 + size // MOST_TICKS
    ax.set_xticks(range(0, size, step), [str(rank) for rank in table.columns[::step]])
    ax.grid(visible=False)
    ax.set_xlabel("rank (1 is best)")
    if size <= MOST_NUMBERS:
        for (row, column), value in np.ndenumerate(table.to_numpy()):
            if value >= 0.01:
                color = "white" if value > 0.5 else "black"
                ax.text(column, row, f"{value:.2f}", ha="center", va="center", color=color, size=9)
    return ax
