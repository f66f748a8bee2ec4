"""Quickshift: each pixel joins the nearest one in a denser place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import quickshift

from napari_xai_med.options import option
from napari_xai_med.segments.base import register
from napari_xai_med.segments.part import Part
from napari_xai_med.segments.superpixels import Superpixels

_LIGHTNESS = 100.0
"""White in CIE Lab: `ratio` then means what it does for scikit-image and LIME, which convert to it."""


@register
@dataclass(frozen=True)
class Quickshift(Superpixels):
    """Quickshift of scikit-image, in pixels of whatever spacing: for slices of long pixels take SLIC.

    References
    ----------
    Vedaldi & Soatto 2008, Quick shift and kernel methods for mode seeking, ECCV.
    """

    name: ClassVar[str] = "quickshift"
    title: ClassVar[str] = "Quickshift"
    paper: ClassVar[str] = "Vedaldi & Soatto 2008, doi:10.1007/978-3-540-88693-8_52"
    dims: ClassVar[frozenset[int]] = frozenset({2})

    kernel_size: float = option(4.0, "Width of the Gaussian in pixels: larger gives fewer segments.", limits=(1, 20))
    max_dist: float = option(
        10.0, "Longest link between pixels, in pixels and intensity: larger gives fewer segments.", limits=(0.1, 1000)
    )
    ratio: float = option(
        0.5, "Weight of intensity, whose range is 100, against place: larger follows edges.", limits=(0.0, 1.0)
    )

    def groups(self, part: Part) -> NDArray[np.integer]:
        """Modes of the density; what surrounds the mask takes part as it is."""
        return quickshift(
            np.moveaxis(part.values, 0, -1) * _LIGHTNESS,
            ratio=self.ratio,
            kernel_size=self.kernel_size,
            max_dist=self.max_dist,
            convert2lab=False,
        )
