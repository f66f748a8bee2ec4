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
    data, placed = place_on(view, image.data[list(channels)], image.grid)
    matrix, units, labels = placed["affine"], placed["units"], placed["axis_labels"]
    if len(channels) == 1:
        data = data[0]
    else:
        units, labels = ("pixel", *units), ("feature", *labels)
        stacked = np.eye(len(matrix) + 1)
        stacked[1:, 1:] = matrix
        matrix = stacked
    told = {"metadata": {METADATA_KEY: {"preview": True}}, "affine": matrix, "units": units, "axis_labels": labels}
    return data, told | {"name": image.name, "rgb": False, "contrast_limits": _limits(data)}, "image"


def place_on(view: LayerView, data: NDArray[Any], grid: Grid) -> tuple[NDArray[Any], dict[str, Any]]:
    """Channels on a grid of their own as they lie on a layer.

    Parameters
    ----------
    view : LayerView
    data : ndarray, shape ``(C, *grid.shape)``
    grid : Grid
        In the world of `view.image()`.

    Returns
    -------
    (ndarray, dict)
        Channels first, then all axes of the layer; affine, units and axis labels of all axes but that of the channels.
    """
    layer = view.layer
    if grid.ndim == 3:
        turn = turn_on(view, grid)
        data, grid = turn.array(data), turn.grid(grid)
    first = layer.data[0] if layer.multiscale else layer.data
    matrix = np.eye(layer.ndim + 1)
    spatial = [k for k in view.spatial if k < layer.ndim]
    matrix[np.ix_([*spatial, -1], [*spatial, -1])] = np.linalg.inv(view.whole_grid().affine) @ grid.affine
    for k, letter in enumerate(view.axes[: layer.ndim]):
        if letter == "T":
            data, matrix[k, -1] = np.expand_dims(data, k + 1), view.volume
        elif letter == "C":
            # Seen at every channel of the source, without a copy for each.
            data = np.expand_dims(data, k + 1)
            data = np.broadcast_to(data, (*data.shape[: k + 1], first.shape[k], *data.shape[k + 2 :]))
    place = {"affine": _to_world(layer) @ matrix, "units": tuple(layer.units), "axis_labels": tuple(layer.axis_labels)}
    return data, place


def turn_on(view: LayerView, grid: Grid) -> Reorientation:
    """What turns a volume along a layer's own axes, so that napari slices both alike; parameters as for `place_on`."""
    to_source = np.linalg.inv(view.whole_grid().affine) @ grid.affine
    return Reorientation.between(Grid(grid.shape, to_source), ("R", "A", "S"))


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
