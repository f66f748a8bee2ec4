"""A figure of what each channel of an image contributes to each class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from napari_xai_med.attribution import DISCLAIMER
from napari_xai_med.channel_values import ChannelContributions
from napari_xai_med.colours import AGAINST, SUPPORTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 3
_LETTERS = 28
_ROOM = (0.05, 0.4)
_ROUNDING = 1e-6


def channel_bars(
    found: ChannelContributions,
    figure: Figure | None = None,
    *,
    columns: int = _COLUMNS,
    paper: str = "white",
    ink: str = "black",
) -> Figure:
    """A bar for each channel and class: green supports the class, red speaks against it.

    Parameters
    ----------
    found : ChannelContributions
    figure : Figure, optional
        To draw on, such as that of a canvas; a new one by default.
    columns : int
        Classes side by side at most.
    paper, ink : str
        Colours behind the bars and of all letters.
    """
    count = len(found.classes)
    columns = min(count, columns)
    rows = -(-count // columns)
    figure = figure or Figure(figsize=(2 + 3.6 * columns, bars_height(found, columns)))
    figure.clear()
    figure.set_layout_engine("constrained")
    figure.set_facecolor(paper)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    low, high = min(found.values.min(), 0), max(found.values.max(), 0)
    span = float(high - low) or 1.0
    # Room for the numbers where there are bars.
    limits = low - _ROOM[int(low < 0)] * span, high + _ROOM[int(high > 0)] * span
    for k, ax in enumerate(axes.ravel()):
        if k >= count:
            ax.set_axis_off()
            continue
        _draw(ax, found, k, ink)
        ax.set_facecolor(paper)
        ax.set_xlim(*limits)
    figure.suptitle(f"Contributions of channels\nwithout them: {found.baseline}", fontsize=10, color=ink)
    quantity = found.record.request["quantity"].replace("_", "-")
    told = f"{quantity}: green supports, red speaks against\n{DISCLAIMER}"
    # Firebrick can hardly be read on a dark paper.
    figure.supxlabel(told, fontsize=8, color="firebrick" if ink == "black" else ink)
    return figure


def bars_height(found: ChannelContributions, columns: int) -> float:
    """Inches that the bars need from top to bottom."""
    return -(-len(found.classes) // columns) * (0.9 + 0.32 * len(found.channels)) + 1.4


def _draw(ax: Axes, found: ChannelContributions, k: int, ink: str) -> None:
    values = found.values[k]
    # Without what only rounding leaves.
    values = np.where(np.abs(values) > _ROUNDING * np.abs(found.values).max(), values, 0)
    places = np.arange(len(values))
    ax.barh(places, values, color=[SUPPORTS if value >= 0 else AGAINST for value in values])
    for place, value in zip(places, values, strict=True):
        ax.annotate(
            f"{value:+.3g}" if value else "0",
            (value, place),
            (3 if value >= 0 else -3, 0),
            textcoords="offset points",
            ha="left" if value >= 0 else "right",
            va="center",
            fontsize=8,
            color=ink,
        )
    ax.set_yticks(places, [_short(name) for name in found.channels], fontsize=8)
    # The first channel stands at the top; the axes are shared, so that only one of them is turned.
    if not ax.yaxis_inverted():
        ax.invert_yaxis()
    ax.axvline(0, color=ink, linewidth=0.8)
    ax.tick_params(colors=ink, labelsize=8)
    for side in ax.spines.values():
        side.set_color(ink)
    ends = f"{found.of_baseline[k]:.3g} → {found.of_image[k]:.3g}"
    ax.set_title(f"{_short(found.classes[k])}\n{ends}", fontsize=9, color=ink)


def _short(name: str) -> str:
    """Cut in the middle: names of files often begin alike."""
    half = _LETTERS // 2
    return name if len(name) <= _LETTERS else f"{name[: half - 1]}…{name[-half:]}"
