"""Felzenszwalb's graph-based segments: regions that differ more from each other than inside."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import felzenszwalb

from napari_xai_med.options import option
from napari_xai_med.segments.base import register
from napari_xai_med.segments.part import Part
from napari_xai_med.segments.superpixels import Superpixels


@register
@dataclass(frozen=True)
class Felzenszwalb(Superpixels):
    """Felzenszwalb's efficient graph-based segmentation, by scikit-image: few large segments and many small ones.

    References
    ----------
    Felzenszwalb & Huttenlocher 2004, Efficient graph-based image segmentation, IJCV 59(2).
    """

    name: ClassVar[str] = "felzenszwalb"
    title: ClassVar[str] = "Felzenszwalb"
    paper: ClassVar[str] = "Felzenszwalb & Huttenlocher 2004, doi:10.1023/B:VISI.0000022288.19776.77"
    dims: ClassVar[frozenset[int]] = frozenset({2})

    scale: float = option(100.0, "Larger gives fewer and larger segments.", limits=(0.0, None))

    def groups(self, part: Part) -> NDArray[np.integer]:
        """Regions before the small ones are merged, which is done for all segmenters alike."""
        with warnings.catch_warnings():
            # It asks whether more than three channels are meant; they are.
            warnings.simplefilter("ignore", RuntimeWarning)
            return felzenszwalb(np.moveaxis(part.values, 0, -1), scale=self.scale, sigma=0, min_size=0)
