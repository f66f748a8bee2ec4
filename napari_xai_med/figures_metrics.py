"""Figures of what metrics found: curves, violins and matrices."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from math import ceil, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from napari_xai_med.attribution import DISCLAIMER
from napari_xai_med.metrics.outcome import EXPLANATION, Curves, Line, Matrix, Plot, Violins

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = (6.0, 4.2)


def draw_plot(plot: Plot, figure: Figure | None = None, *, paper: str = "white", ink: str = "black") -> Figure:
    """Draw one plot.

    Parameters
    ----------
    plot : Curves, Violins or Matrix
    figure : Figure, optional
        To draw on, such as that of a canvas; a new one by default.
    paper, ink : str
        Colours behind it and of all letters.
    """
    figure = figure or Figure(figsize=_SIZE)
    figure.clear()
    figure.set_layout_engine("constrained")
    figure.set_facecolor(paper)
    panels = list(dict.fromkeys(line.panel for line in plot.lines)) if isinstance(plot, Curves) else []
    if isinstance(plot, Curves) and len(panels) > 1:
        _panels(figure, plot, panels, paper, ink)
    else:
        ax = figure.subplots()
        _paint(ax, plot.title, paper, ink)
        if isinstance(plot, Curves):
            _curves(ax, plot, plot.lines, ink)
            ax.legend(fontsize=8, labelcolor=ink, framealpha=0)
        elif isinstance(plot, Violins):
            _violins(ax, plot, ink)
        else:
            _matrix(ax, plot, ink)
    # Firebrick can hardly be read on a dark paper.
    figure.supxlabel(DISCLAIMER, fontsize=8, color="firebrick" if ink == "black" else ink)
    return figure


def _paint(ax: Axes, title: str, paper: str, ink: str) -> None:
    ax.set_facecolor(paper)
    ax.set_title(title, fontsize=10, color=ink)
    ax.tick_params(colors=ink, labelsize=8)
    for side in ax.spines.values():
        side.set_color(ink)


def _panels(figure: Figure, plot: Curves, panels: list[str], paper: str, ink: str) -> None:
    """Lines by their panels, with one scale and one legend for all."""
    across = ceil(sqrt(len(panels)))
    # Title and legend each take their own margin only if they belong to different figures; so do the labels below.
    inner = figure.add_subfigure(figure.add_gridspec(1, 1)[0, 0])
    inner.set_facecolor(paper)
    grid = inner.subplots(ceil(len(panels) / across), across, sharex=True, sharey=True, squeeze=False)
    for ax, panel in zip_longest(grid.flat, panels):
        if panel is None:
            ax.set_visible(False)
            continue
        _paint(ax, panel, paper, ink)
        _curves(ax, plot, [line for line in plot.lines if line.panel == panel], ink)
        ax.set(xlabel="", ylabel="")
    figure.suptitle(plot.title, fontsize=10, color=ink)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    inner.legend(
        handles, labels, loc="outside upper center", ncols=len(labels), fontsize=8, labelcolor=ink, framealpha=0
    )
    inner.supxlabel(plot.x_label, fontsize=9, color=ink)
    inner.supylabel(plot.y_label, fontsize=9, color=ink)


def _curves(ax: Axes, plot: Curves, lines: Sequence[Line], ink: str) -> None:
    for line in lines:
        own = line.subject == EXPLANATION
        style: dict[str, Any] = {"linewidth": 2.0} if own else {"linewidth": 1.2, "linestyle": "--", "alpha": 0.8}
        if plot.ticks:
            # A single place has no line.
            style |= {"marker": "o", "markersize": 4}
        ax.plot(line.x, line.y, label=line.name, **style)
    if plot.ticks:
        ax.set_xticks(range(len(plot.ticks)), plot.ticks)
        ax.margins(x=0.2)
    if plot.best is not None:
        ax.axvline(plot.best, color=ink, linewidth=0.8, linestyle=":", label=f"best: {plot.best:.3g}")
    ax.set_xlabel(plot.x_label, fontsize=9, color=ink)
    ax.set_ylabel(plot.y_label, fontsize=9, color=ink)


def _violins(ax: Axes, plot: Violins, ink: str) -> None:
    # A violin of no values, or of one, has no shape; matplotlib fails at the first and draws a point at the other.
    groups = {name: values[np.isfinite(values)] for name, values in plot.groups.items()}
    filled = {name: values for name, values in groups.items() if len(values)}
    if filled:
        ax.violinplot(list(filled.values()), showmedians=True)
    for k, values in enumerate(filled.values(), 1):
        ax.scatter(np.full(len(values), k), values, s=8, color=ink, alpha=0.6, zorder=3)
    ax.set_xticks(range(1, len(filled) + 1), list(filled), fontsize=8, rotation=20 if len(filled) > 3 else 0)
    ax.set_ylabel(plot.y_label, fontsize=9, color=ink)


def _matrix(ax: Axes, plot: Matrix, ink: str) -> None:
    shown = ax.imshow(np.asarray(plot.values, float), cmap="viridis", aspect="auto")
    low, high = shown.get_clim()
    for row, column in np.ndindex(np.shape(plot.values)):
        value = float(plot.values[row, column])
        # Letters on dark cells are white and on bright ones black.
        bright = high > low and (value - low) / (high - low) > 0.6
        text = f"{value:.2f}" if np.isfinite(value) else "n.a."
        ax.text(column, row, text, ha="center", va="center", fontsize=8, color="black" if bright else "white")
    ax.set_xticks(range(len(plot.columns)), list(plot.columns), fontsize=8, rotation=20)
    ax.set_yticks(range(len(plot.rows)), list(plot.rows), fontsize=8)
    bar = ax.figure.colorbar(shown, ax=ax, shrink=0.8)
    bar.set_label(plot.value_label, fontsize=8, color=ink)
    bar.ax.tick_params(colors=ink, labelsize=8)
