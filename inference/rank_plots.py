"""Figures of ranks: simulation-based calibration, and chains against one another.

Uniform ranks mean calibration (`jurax.inference.sbc`) or chains that agree (Vehtari et al. 2021,
section 4.3). Grey bands hold 95 % of the bars of uniform ranks, all bars of a panel together.
"""

import math

import matplotlib
import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jurax.inference.plots import COLORS, STYLE
from jurax.inference.sbc import Calibration
from jurax.ppl import Posterior


@matplotlib.rc_context(STYLE)
def calibration_ranks(calibration: Calibration, *, num_bins: int = 16) -> Figure:
    """Histograms of the ranks of every quantity, a panel each, with p-values."""
    p_values = calibration.p_values(num_bins)
    figure, panels = _panels(len(p_values))
    for ax, (name, p_value) in zip(panels, p_values.items(), strict=False):
        rank_histogram(calibration.ranks[name], calibration.num_draws + 1, num_bins, ax=ax)
        ax.set_title(f"{name}: p = {p_value:.2f}", loc="left")
    figure.supxlabel(f"rank of the truth among {calibration.num_draws} draws")
    figure.supylabel("replications")
    return figure


@matplotlib.rc_context(STYLE)
def chain_ranks(posterior: Posterior, name: str, *, num_bins: int = 20) -> Figure:
    """Ranks of the draws of each chain among those of all chains, a panel for each chain."""
    if posterior.num_chains is None:
        raise ValueError("chain_ranks shows chains; these are weighted particles")
    values = np.asarray(posterior.particles[name])
    if values.ndim != 2:
        raise ValueError(f"{name} is no scalar site: its draws have shape {values.shape[2:]}")
    ranks = values.reshape(-1).argsort(kind="stable").argsort(kind="stable").reshape(values.shape)
    figure, panels = _panels(len(ranks))
    for chain, (ax, own) in enumerate(zip(panels, ranks, strict=False)):
        rank_histogram(own, values.size, num_bins, ax=ax)
        ax.set_title(f"chain {chain}", loc="left")
    figure.supxlabel(f"rank of {name} among the draws of all chains")
    figure.supylabel("draws")
    return figure


def rank_histogram(
    ranks: Int[np.ndarray, " R"], num_ranks: int, num_bins: int, *, ax: Axes
) -> Axes:
    """Counts of ranks 0, ..., num_ranks - 1 in bins, over the band of uniform ranks."""
    from scipy.stats import binom

    edges = np.ceil(np.linspace(0, num_ranks, num_bins + 1)).astype(int)
    counts = np.histogram(ranks, edges - 0.5)[0]
    share = np.diff(edges) / num_ranks
    tail = 0.025 / num_bins
    low, high = (binom.ppf(q, len(ranks), share) for q in (tail, 1 - tail))
    middles, widths = (edges[:-1] + edges[1:]) / 2, np.diff(edges)
    ax.bar(middles, high - low, widths, bottom=low, color="#dddddd", zorder=0)
    ax.bar(middles, counts, 0.8 * widths, color=COLORS[0])
    ax.set_xlim(0, num_ranks)
    ax.grid(False, axis="x")
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    return ax


def _panels(num: int) -> tuple[Figure, list[Axes]]:
    """A figure with room for `num` panels, outside of pyplot."""
    columns = min(num, 3)
    rows = math.ceil(num / columns)
    figure = Figure(figsize=(3.6 * columns + 0.6, 2.6 * rows + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for ax in panels[num:]:
        ax.remove()
    return figure, list(panels[:num])
