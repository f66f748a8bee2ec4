"""Compact watershed: basins of the gradient that are flooded from a regular lattice of markers."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import watershed

from napari_xai_med.options import option
from napari_xai_med.segments.base import register
from napari_xai_med.segments.lattice import lattice_of
from napari_xai_med.segments.part import Part
from napari_xai_med.segments.superpixels import Numbered


@register
@dataclass(frozen=True)
class Watershed(Numbered):
    """Compact watershed of the gradient's magnitude, from markers as far apart along each axis in millimetres.

    scikit-image counts distances to markers in voxels. In a lattice of boxes that changes nothing of their shape in
    millimetres: the plane halfway between two markers is the same.

    References
    ----------
    Neubert & Protzel 2014, Compact watershed and preemptive SLIC, ICPR.
    """

    name: ClassVar[str] = "watershed"
    title: ClassVar[str] = "Compact watershed"
    paper: ClassVar[str] = "Neubert & Protzel 2014, doi:10.1109/ICPR.2014.181"

    compactness: float = option(
        0.03,
        "Step in intensity between neighbouring voxels, as a share of the image's range, that weighs as much as the "
        "distance to the next segment: 0 follows edges, large values make segments rounder.",
        limits=(0.0, 100.0),
    )

    def numbered_groups(self, part: Part) -> NDArray[np.integer]:
        """Basins from 1 on; 0 where the mask has parts without a marker."""
        lattice = lattice_of(part.mask, part.spacing, self.number)
        filled = lattice.filled(part.mask)
        markers = _markers(part, lattice.cells(), filled)
        # Voxels of the same volume, since scikit-image counts in voxels.
        pitch = lattice.pitch / prod(part.spacing) ** (1 / part.mask.ndim)
        return watershed(_steps(part.values), markers, mask=part.mask, compactness=self.compactness / pitch)


def _markers(part: Part, cells: NDArray[np.int32], filled: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The voxel of each filled cell's part of the mask that is nearest to its centre, numbered from 1."""
    index = np.nonzero(part.mask)
    owner = cells[index]
    sizes = np.maximum(np.bincount(owner, minlength=len(filled)), 1)
    distance = np.zeros(len(owner))
    for place, step in zip(index, part.spacing, strict=True):
        centres = np.bincount(owner, place, len(filled)) / sizes
        distance += ((place - centres[owner]) * step) ** 2
    order = np.lexsort((distance, owner))
    owners, first = np.unique(owner[order], return_index=True)
    chosen = order[first][filled[owners]]
    markers = np.zeros(part.mask.shape, np.int32)
    markers[tuple(place[chosen] for place in index)] = np.arange(1, len(chosen) + 1)
    return markers


def _steps(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The gradient's magnitude over all channels, in intensity per voxel: an edge is a step, however far the voxels."""
    squares = np.zeros(values.shape[1:], np.float32)
    for channel in values:
        for axis, n in enumerate(channel.shape):
            if n > 1:
                squares += np.gradient(channel, axis=axis) ** 2
    return np.sqrt(squares)
