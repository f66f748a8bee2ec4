"""Images in the world of a napari layer as layers that lie exactly on it, whatever their own grid.

As in `napari_xai_med.layers`, nothing here imports napari.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.grid import Float, Grid, Reorientation
from napari_xai_med.image import Image
from napari_xai_med.layers import METADATA_KEY, LayerTuple, LayerView


def layer_on(view: LayerView, image: Image, channels: Sequence[int]) -> LayerTuple:
    """Channels of an image as a layer on another one: a single one as an image, several with a slider.

    Parameters
    ----------
    view : LayerView
        The layer that it is to lie on.
    image : Image
        In the world of `view.image()`, on a grid of its own.
    channels : sequence of int

    Returns
    -------
    (ndarray, dict, str)
        As napari takes it; it is marked as no image that could be classified.
    """
    layer = view.layer
    first = layer.data[0] if layer.multiscale else layer.data
    source = view.grid(tuple(first.shape[k] for k in view.spatial))
    to_source = np.linalg.inv(source.affine) @ image.grid.affine
    if image.ndim == 3:
        # Along the layer's own axes, so that napari slices both alike.
        turn = Reorientation.between(Grid(image.grid.shape, to_source), ("R", "A", "S"))
        image = image.reoriented(turn)
        to_source = np.linalg.inv(source.affine) @ image.grid.affine
    data: NDArray[Any] = image.data[list(channels)]
    matrix = np.eye(layer.ndim + 1)
    spatial = [k for k in view.spatial if k < layer.ndim]
    matrix[np.ix_([*spatial, -1], [*spatial, -1])] = to_source
    for k, letter in enumerate(view.axes[: layer.ndim]):
        if letter == "T":
            data, matrix[k, -1] = np.expand_dims(data, k + 1), view.volume
        elif letter == "C":
            # Seen at every channel of the source, without a copy for each.
            data = np.expand_dims(data, k + 1)
            data = np.broadcast_to(data, (*data.shape[: k + 1], first.shape[k], *data.shape[k + 2 :]))
    matrix = _to_world(layer) @ matrix
    units, labels = tuple(layer.units), tuple(layer.axis_labels)
    if len(channels) == 1:
        data = data[0]
    else:
        units, labels = ("pixel", *units), ("feature", *labels)
        stacked = np.eye(layer.ndim + 2)
        stacked[1:, 1:] = matrix
        matrix = stacked
    told = {"metadata": {METADATA_KEY: {"preview": True}}, "affine": matrix, "units": units, "axis_labels": labels}
    return data, told | {"name": image.name, "rgb": False, "contrast_limits": _limits(data)}, "image"


def _to_world(layer: Any) -> Float:
    """Index to napari's world for all axes of a layer, in its own units."""
    corners = np.eye(layer.ndim + 1)[:, : layer.ndim]
    world = np.array([layer.data_to_world(corner) for corner in corners], float)
    matrix = np.eye(layer.ndim + 1)
    matrix[:-1, -1] = world[-1]
    matrix[:-1, :-1] = (world[:-1] - world[-1]).T
    return matrix


def _limits(data: NDArray[Any]) -> tuple[float, float]:
    low, high = float(data.min()), float(data.max())
    return (low, high) if high > low else (low, low + 1)
