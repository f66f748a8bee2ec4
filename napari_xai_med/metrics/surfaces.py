"""Distances between the surfaces of parts of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.metrics.case import Mask
from napari_xai_med.metrics.outcome import Float

Indices = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Surface:
    """The voxels of a part that touch what is not the part, or the image's border.

    Own code in place of MONAI's, which makes a distance map of the whole box around both parts: a tree of the surface
    alone takes seconds for volumes where that takes minutes. The edge is MONAI's, and so are the distances.

    Parameters
    ----------
    points : ndarray of float64, shape (voxels, ndim)
        In millimetres along the array's axes.
    spacing : sequence of float
    """

    points: Float
    spacing: Sequence[float]

    @classmethod
    def of(cls, part: Mask, spacing: Sequence[float]) -> Surface:
        """The surface of a part that is not empty."""
        from scipy.ndimage import binary_erosion

        box = box_of(part)
        # Within its box the part ends where the box does: outside is not the part, as MONAI has it at the border.
        inside = np.ascontiguousarray(part[box])
        edge = np.argwhere(inside & ~binary_erosion(inside)) + [side.start for side in box]
        return cls(edge.astype(np.float64) * spacing, spacing)

    def distances_to(self, other: Surface) -> Float:
        """How far each point is from another surface."""
        from scipy.spatial import cKDTree

        return np.asarray(cKDTree(other.points, balanced_tree=False, compact_nodes=False).query(self.points)[0])

    def distances_from(self, indices: Indices, part: Mask) -> Float:
        """How far voxels are from the part that this is the surface of; 0 inside."""
        start = Surface(indices.astype(np.float64) * self.spacing, self.spacing)
        return np.where(part[tuple(indices.T)], 0.0, start.distances_to(self))


def box_of(part: Mask) -> tuple[slice, ...]:
    """The smallest box around a part that is not empty."""
    sides = []
    for axis in range(part.ndim):
        found = np.flatnonzero(part.any(tuple(k for k in range(part.ndim) if k != axis)))
        sides.append(slice(int(found[0]), int(found[-1]) + 1))
    return tuple(sides)


def places(random: np.random.Generator, shape: Sequence[int], number: int) -> Indices:
    """So many voxels of an image, drawn with replacement; shape (number, ndim)."""
    return np.stack([random.integers(0, length, number) for length in shape], axis=1)
