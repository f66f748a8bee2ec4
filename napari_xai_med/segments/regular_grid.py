"""Boxes of the same size, which know nothing of what is in the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.segments.base import register
from napari_xai_med.segments.lattice import lattice_of
from napari_xai_med.segments.part import Part
from napari_xai_med.segments.superpixels import Numbered


@register
@dataclass(frozen=True)
class RegularGrid(Numbered):
    """Squares, or cubes, that are as long along each axis in millimetres, as far as voxels allow."""

    name: ClassVar[str] = "grid"
    title: ClassVar[str] = "Regular grid"

    def numbered_groups(self, part: Part) -> NDArray[np.integer]:
        """The cell of each voxel."""
        return lattice_of(part.mask, part.spacing, self.number).cells()
