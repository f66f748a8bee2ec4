"""Figures of an explanation over its image, for files and reports."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from napari_xai_med.attribution import DISCLAIMER, Attribution, zero_sentence
from napari_xai_med.colours import colours_of, default_colormap
from napari_xai_med.grid import Reorientation
from napari_xai_med.image import PLANES, Image
from napari_xai_med.layers_images import percentile_limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_EDGES = {0: ("R", "L", "A", "P"), 1: ("R", "L", "S", "I"), 2: ("A", "P", "S", "I")}
"""What lies left, right, at the top and at the bottom of an axial, coronal and sagittal view."""


@dataclass(frozen=True)
class _View:
    """One picture: image and map with rows and columns, and how to draw them."""

    image: NDArray[np.float32]
    values: NDArray[np.float32]
    spacing: tuple[float, float]
    axis: int | None
    index: int
    cross: tuple[int, int] | None


def three_views(image: Image, attribution: Attribution) -> Figure:
    """The planes through the map's maximum, or the one slice that was explained.

    Parameters
    ----------
    image : Image
        What was explained.
    attribution : Attribution
        On its grid.

    Returns
    -------
    Figure
        Radiological: the patient's left is at the right of axial and coronal views.
    """
    views = _views(image, attribution)
    figure = Figure(figsize=(1.2 + 4 * len(views), 5.4), layout="constrained", facecolor="white")
    axes = figure.subplots(1, len(views), squeeze=False)[0]
    limits = percentile_limits(image.data)
    name = default_colormap(signed=attribution.signed)
    norm = Normalize(*attribution.display_limits)
    for ax, view in zip(axes, views, strict=True):
        _draw(ax, view, limits, norm, name)
    if not attribution.is_zero:
        figure.colorbar(ScalarMappable(norm, name), ax=list(axes), shrink=0.8, label=attribution.title)
    figure.suptitle(_title(image, attribution), fontsize=11)
    caution = attribution.record.method.get("caution", "")
    told = "\n".join([*wrap(caution, 90), DISCLAIMER])
    figure.supxlabel(told, fontsize=9, color="firebrick")
    return figure


def _title(image: Image, attribution: Attribution) -> str:
    ranked = ", ".join(f"{name} {value:.3f}" for name, value in attribution.prediction.ranked[:4])
    text = f"{image.name}: {attribution.full_title} for {attribution.about}\n{ranked}"
    return f"{text}\n{zero_sentence(attribution.title, attribution.about)}" if attribution.is_zero else text


def _views(image: Image, attribution: Attribution) -> list[_View]:
    if image.ndim == 2:
        spacing = cast("tuple[float, float]", image.grid.spacing)
        return [_View(image.data, attribution.values, spacing, None, 0, None)]
    turn = Reorientation.between(image.grid)
    shown, turned = image.reoriented(turn), attribution.reoriented(turn)
    values = turned.values
    if values.shape != shown.grid.shape:
        axis = next(k for k in range(3) if values.shape[k] != shown.grid.shape[k])
        return [_plane(shown, np.take(values, 0, axis), axis, turned.offset_in(shown.grid)[axis], None)]
    peak = attribution.peak_of(values)
    if attribution.is_zero:
        peak = tuple(np.array(values.shape) // 2)
    return [_plane(shown, np.take(values, peak[k], k), k, int(peak[k]), peak) for k in range(3)]


def _plane(shown: Image, values: NDArray[np.float32], axis: int, index: int, peak: Any) -> _View:
    rest = [k for k in range(3) if k != axis]
    spacing = (shown.grid.spacing[rest[0]], shown.grid.spacing[rest[1]])
    cross = None if peak is None else (int(peak[rest[0]]), int(peak[rest[1]]))
    return _View(np.take(shown.data, index, axis + 1), values, spacing, axis, index, cross)


def _draw(ax: Axes, view: _View, limits: tuple[float, float], norm: Normalize, name: str) -> None:
    drawing: dict[str, Any] = {"aspect": view.spacing[0] / view.spacing[1]}
    if len(view.image) == 3:
        span = limits[1] - limits[0]
        ax.imshow(np.clip((np.moveaxis(view.image, 0, -1) - limits[0]) / span, 0, 1), **drawing)
    else:
        ax.imshow(view.image[0], cmap="gray", vmin=limits[0], vmax=limits[1], **drawing)
    colours = colours_of(name, norm(view.values))
    colours[..., 3] = 0.65 * np.clip(np.abs(view.values) / norm.vmax, 0, 1)
    ax.imshow(colours, interpolation="nearest", **drawing)
    if view.cross is not None:
        ax.axhline(view.cross[0], color="white", linewidth=0.5, alpha=0.5)
        ax.axvline(view.cross[1], color="white", linewidth=0.5, alpha=0.5)
    ax.set_xticks([])
    ax.set_yticks([])
    if view.axis is not None:
        ax.set_title(f"{PLANES[view.axis]} {view.index}", fontsize=10)
        places = ((0.03, 0.5), (0.97, 0.5), (0.5, 0.96), (0.5, 0.04))
        for letter, (x, y) in zip(_EDGES[view.axis], places, strict=True):
            text = ax.text(x, y, letter, color="yellow", transform=ax.transAxes, ha="center", va="center")
            text.set_path_effects([withStroke(linewidth=2, foreground="black")])
