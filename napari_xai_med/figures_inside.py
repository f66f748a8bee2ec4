"""Figures of what is inside of a network: a contact sheet of a layer's feature maps, and a drawing of a class."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from napari_xai_med.activation_maximisation import Drawing
from napari_xai_med.attribution import DISCLAIMER
from napari_xai_med.grid import Reorientation
from napari_xai_med.image import PLANES, Image
from napari_xai_med.inside import by_strength, central_slices

MOST = 144
"""Channels on a sheet; of more, those that are the most active."""


def contact_sheet(maps: Image) -> Figure:
    """The central slices of all channels, the most active first, each in its own range of greys.

    Parameters
    ----------
    maps : Image
        As `napari_xai_med.feature_maps` gives it.
    """
    order, (slices, aspect) = by_strength(maps)[:MOST], central_slices(maps)
    columns = int(np.ceil(np.sqrt(len(order))))
    rows = -(-len(order) // columns)
    figure = Figure(figsize=(1.1 * columns + 1, 1.25 * rows + 1.2), layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.set_axis_off()
    for ax, channel in zip(axes, order, strict=False):
        ax.imshow(slices[channel], cmap="gray", interpolation="nearest", aspect=aspect)
        ax.set_title(str(channel), fontsize=7, pad=2)
    more = "" if len(order) == len(maps.data) else f", the {len(order)} most active ones"
    figure.suptitle(f"{maps.name}\n{len(maps.data)} channels{more}", fontsize=10)
    figure.supxlabel(DISCLAIMER, fontsize=9, color="firebrick")
    return figure


def drawing_sheet(drawing: Drawing) -> Figure:
    """The planes through the middle of a drawing, or the whole of a flat one, of each channel."""
    image = drawing.image
    shown = image if image.ndim == 2 else image.reoriented(Reorientation.between(image.grid))
    cuts = [k for k in range(3) if shown.grid.shape[k] == 1] or [0, 1, 2] if image.ndim == 3 else [None]
    rows = len(shown.data)
    figure = Figure(figsize=(1 + 4 * len(cuts), 1.4 + 4 * rows), layout="constrained", facecolor="white")
    limits = float(shown.data.min()), float(shown.data.max())
    for axes, channel in zip(figure.subplots(rows, len(cuts), squeeze=False), shown.data, strict=True):
        for ax, cut in zip(axes, cuts, strict=True):
            values = channel if cut is None else channel.take(channel.shape[cut] // 2, cut)
            tall, wide = (step for k, step in enumerate(shown.grid.spacing) if k != cut)
            picture = ax.imshow(values, cmap="gray", vmin=limits[0], vmax=limits[1], aspect=tall / wide)
            ax.set_title("" if cut is None else f"{PLANES[cut]}, in the middle", fontsize=9)
            ax.set_axis_off()
    figure.colorbar(picture, ax=figure.axes, shrink=0.7, label="value that the network gets")
    ranked = sorted(drawing.probabilities.items(), key=lambda item: -item[1])[:4]
    told = ", ".join(f"{name} {value:.3f}" for name, value in ranked)
    scores = f"logit from {drawing.score_before:.2f} to {drawing.score_after:.2f}"
    figure.suptitle(f"{image.name}, {scores}\n{told}", fontsize=10)
    figure.supxlabel(f"{drawing.sentence} {DISCLAIMER}", fontsize=8, color="firebrick")
    return figure
