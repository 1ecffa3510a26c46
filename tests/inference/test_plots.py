"""Figures: what is drawn, and that nothing global changes."""

import jax
import matplotlib
import numpy as np
import pytest
from matplotlib import _pylab_helpers
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jurax.inference import ParticleFilter, calibration, infer, plots
from jurax.models.state_space import LinearGaussian
from jurax.ppl import Posterior
from jurax.ppl.posterior import Distribution


@pytest.fixture(scope="module")
def posterior() -> Posterior:
    model = LinearGaussian.simulate(jax.random.key(0), num_steps=6)
    return infer(jax.random.key(1), model, ParticleFilter(num_particles=12))


def curve(num: int) -> plots.Curve:
    tokens = 70.0 * 2 ** np.arange(num)
    return plots.Curve(tokens, np.linspace(0.4, 0.8, num), np.full(num, 0.05))


def bins(seed: int) -> calibration.ReliabilityBins:
    probabilities = np.random.default_rng(seed).random(100)
    return calibration.reliability_bins(probabilities, probabilities > 0.5)


def draw_all(posterior: Posterior) -> list[Axes]:
    distribution = Distribution(["8", None, "3"], np.array([0.6, 0.3, 0.1]), np.full(3, 0.02))
    return [
        plots.accuracy_against_tokens({"majority": curve(5), "filter": curve(1)}),
        plots.answer_posterior(distribution, truth="8"),
        plots.reliability_curve({"majority": bins(0), "filter": bins(1)}),
        plots.diversity_path(posterior),
        plots.genealogy(posterior),
    ]


def test_every_plot_returns_labelled_axes(posterior: Posterior) -> None:
    for ax in draw_all(posterior):
        assert isinstance(ax, Axes) and ax.get_ylabel()
        assert ax.get_xlabel() or ax.child_axes[0].get_xlabel()


def test_nothing_global_changes(posterior: Posterior) -> None:
    before, managers = dict(matplotlib.rcParams), dict(_pylab_helpers.Gcf.figs)
    draw_all(posterior)
    assert dict(matplotlib.rcParams) == before and dict(_pylab_helpers.Gcf.figs) == managers


def test_given_axes_are_used() -> None:
    ax = Figure().add_subplot()
    assert plots.accuracy_against_tokens({"majority": curve(3)}, ax=ax) is ax


def test_accuracy_is_drawn_where_it_is() -> None:
    ax = plots.accuracy_against_tokens({"majority": curve(3)})
    x, y = ax.lines[0].get_data()
    assert list(x) == [70, 140, 280] and list(y) == [0.4, 0.6000000000000001, 0.8]
    assert ax.get_xscale() == "log"


def test_bars_are_the_distribution() -> None:
    distribution = Distribution(["8", None], np.array([0.75, 0.25]), np.array([0.1, 0.1]))
    ax = plots.answer_posterior(distribution)
    assert [bar.get_height() for bar in ax.patches] == [0.75, 0.25]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["8", "unfinished"]


def test_counts_stand_under_the_reliability_curve() -> None:
    ax = plots.reliability_curve({"majority": bins(0)})
    below = ax.child_axes[0]
    assert sum(bar.get_height() for bar in below.patches) == 100
    assert sum(int(text.get_text() or 0) for text in below.texts) == 100


def test_a_saved_figure_is_complete(tmp_path, posterior: Posterior) -> None:
    plots.save(plots.diversity_path(posterior), tmp_path / "path.png")
    assert [p.name for p in tmp_path.iterdir()] == ["path.png"]
    assert (tmp_path / "path.png").read_bytes()[:4] == b"\x89PNG"
