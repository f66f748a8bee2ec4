"""Images and the volumes of files as new napari layers.

Nothing here imports napari: new layers are described by the (data, options, type) tuples that napari takes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.grid import Reorientation, display_matrix
from napari_xai_med.image import Image
from napari_xai_med.io.nifti import Volumes
from napari_xai_med.layers import METADATA_KEY, LayerTuple


def volumes_to_layer(volumes: Volumes, name: str, source: str, *, labels: bool = False) -> LayerTuple:
    """A file's volumes as a layer in display orientation, placed in millimetres.

    Parameters
    ----------
    volumes : Volumes
        As read from the file.
    name, source : str
        The layer's name, and the file's path.
    labels : bool
        A labels layer for a mask rather than an image layer.
    """
    turn = Reorientation.between(volumes.grid)
    grid = turn.grid(volumes.grid)
    matrix = display_matrix(grid)
    data, axes = turn.array(volumes.data), "TCZYX"
    for letter, k in (("C", 1), ("T", 0)):
        if data.shape[k] == 1:
            data, axes = data[(slice(None),) * k + (0,)], axes.replace(letter, "")
    extra = len(axes) - 3
    notices = volumes.notices
    if grid.is_oblique:
        notices = (*notices, "The scan is oblique: it is shown along its own axes; its true place is kept and saved.")
    options: dict[str, Any] = {
        "name": name,
        "scale": (1.0,) * extra + tuple(np.diag(matrix)[:3]),
        "translate": (0.0,) * extra + tuple(matrix[:3, 3]),
        "units": ("pixel",) * extra + ("mm",) * 3,
        "axis_labels": tuple({"T": "time", "C": "channel"}.get(a, a.lower()) for a in axes),
        "metadata": {
            METADATA_KEY: {
                "affine": grid.affine.tolist(),
                "display": matrix.tolist(),
                "turn": turn,
                "file_affine": volumes.grid.affine.tolist(),
                "source": source,
                "notices": notices,
            }
        },
    }
    if labels:
        return data.astype(np.uint16 if data.max(initial=0) > 255 else np.uint8), options, "labels"
    options |= {"colormap": "gray", "contrast_limits": percentile_limits(data), "rgb": False}
    return data, options, "image"


def image_to_layer(image: Image) -> LayerTuple:
    """An image as a layer at its place in napari's world."""
    if image.ndim == 3:
        return volumes_to_layer(Volumes(image.data[np.newaxis], image.grid, ()), image.name, image.source)
    data = image.data if len(image.data) > 1 else image.data[0]
    affine = np.eye(data.ndim + 1)
    affine[-3:, -3:] = image.grid.affine
    options: dict[str, Any] = {
        "name": image.name,
        "affine": affine,
        "units": ("pixel",) * (data.ndim - 2) + ("mm",) * 2,
    }
    options |= {"axis_labels": ("channel", "y", "x")[-data.ndim :], "colormap": "gray", "rgb": False}
    return data, options | {"contrast_limits": percentile_limits(data)}, "image"


def percentile_limits(data: NDArray[Any]) -> tuple[float, float]:
    """Contrast limits from the 1st and 99.5th percentile of about a million evenly spaced voxels."""
    step = max(1, int(np.ceil((data.size / 1e6) ** (1 / data.ndim))))
    flat = data[(slice(None, None, step),) * data.ndim]
    low, high = (float(v) for v in np.percentile(flat, (1, 99.5)))
    return (low, high) if high > low else (low, low + 1)


def picture_to_layers(image: Image, mask: Image) -> list[LayerTuple]:
    """A grey 2D image and its mask as an image layer and a labels layer."""
    options: dict[str, Any] = {
        "scale": image.grid.spacing,
        "units": ("mm", "mm"),
        "axis_labels": ("y", "x"),
        "metadata": {METADATA_KEY: {"source": image.source}},
    }
    limits = percentile_limits(image.data)
    picture = options | {"name": image.name, "colormap": "gray", "contrast_limits": limits}
    return [(image.data[0], picture, "image"), (mask.data[0].astype(np.uint8), options | {"name": mask.name}, "labels")]
