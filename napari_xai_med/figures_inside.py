"""Figures of what is inside of a network: a contact sheet of a layer's feature maps."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from napari_xai_med.attribution import DISCLAIMER
from napari_xai_med.image import Image
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
