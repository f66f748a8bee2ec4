from __future__ import annotations

from dataclasses import replace
from math import nan

import numpy as np
import pytest
from matplotlib.colors import to_hex

from napari_xai_med.attribution import DISCLAIMER
from napari_xai_med.figures_metrics import draw_plot
from napari_xai_med.metrics.outcome import Curves, Line, Matrix, Violins

X = np.linspace(0, 1, 5)
CURVES = Curves(
    "Deletion", "share removed", "probability", (Line("own", X, X**2), Line("random", X, X, "random")), 0.25
)
VIOLINS = Violins(
    "Repeats", "value", {"a": np.arange(4.0), "one": np.ones(1), "none": np.empty(0), "nan": np.array([nan, 1])}
)
MATRIX = Matrix("Agreement", "correlation", ["a", "b"], ["a", "b"], np.array([[1.0, nan], [nan, 1.0]]))


@pytest.mark.parametrize("plot", [CURVES, VIOLINS, MATRIX], ids=lambda plot: type(plot).__name__)
def test_plots_in_the_viewer_s_colours_say_that_they_are_no_diagnosis(plot: Curves | Violins | Matrix) -> None:
    figure = draw_plot(plot, paper="#101010", ink="#f0f0f0")
    figure.canvas.draw()
    ax = figure.axes[0]
    assert ax.get_title() == plot.title
    assert to_hex(figure.get_facecolor()) == to_hex(ax.get_facecolor()) == "#101010"
    assert figure.get_supxlabel() == DISCLAIMER
    # Drawn again on the same canvas, as a widget does.
    assert draw_plot(plot, figure) is figure
    assert figure.axes[0].get_title() == plot.title


def test_curves_are_drawn_as_they_are() -> None:
    ax = draw_plot(CURVES).axes[0]
    own, random, best = ax.get_lines()
    np.testing.assert_array_equal(own.get_xydata(), np.column_stack([X, X**2]))
    assert own.get_linewidth() > random.get_linewidth()
    assert list(best.get_xdata()) == [0.25, 0.25]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("share removed", "probability")


def test_panels_are_of_one_scale_and_one_that_is_left_over_is_empty() -> None:
    lines = tuple(Line("own", X, k * X, panel=f"panel {k}") for k in range(3))
    figure = draw_plot(replace(CURVES, lines=lines))
    *shown, rest = figure.axes
    assert [ax.get_title() for ax in shown] == ["panel 0", "panel 1", "panel 2"]
    assert len({ax.get_ylim() for ax in shown}) == 1
    assert not rest.get_visible()
    # The next plot has the canvas for itself.
    assert len(draw_plot(CURVES, figure).axes) == 1


def test_groups_without_values_are_left_out_and_cells_without_one_say_so() -> None:
    labels = [label.get_text() for label in draw_plot(VIOLINS).axes[0].get_xticklabels()]
    assert labels == ["a", "one", "nan"]
    assert sorted(text.get_text() for text in draw_plot(MATRIX).axes[0].texts) == ["1.00", "1.00", "n.a.", "n.a."]
