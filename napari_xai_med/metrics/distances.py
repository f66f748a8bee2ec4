"""How far what a map marks and a mask lie from each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from napari_xai_med.metrics.base import Meaning, register
from napari_xai_med.metrics.case import Case, Mask
from napari_xai_med.metrics.outcome import Better
from napari_xai_med.metrics.over_masks import LENGTH, NO_EVIDENCE, NO_MASK, Found, MaskMetric
from napari_xai_med.metrics.overlap import NO_MARK
from napari_xai_med.metrics.surfaces import Surface
from napari_xai_med.metrics.thresholds import Thresholded


@register
@dataclass(frozen=True)
class Distances(Thresholded, MaskMetric):
    """Surface distances: Hausdorff's, its 95th percentile, and the mean, of a map above a threshold and a mask.

    They are those of MONAI: the percentile is the larger one of both directions, the mean that of all points of both
    surfaces.

    References
    ----------
    .. [1] D. P. Huttenlocher, G. A. Klanderman, W. J. Rucklidge. Comparing images using the Hausdorff distance. IEEE
       Transactions on Pattern Analysis and Machine Intelligence 15(9):850-863, 1993.
    .. [2] T. Heimann et al. Comparison and evaluation of methods for liver segmentation from CT datasets. IEEE
       Transactions on Medical Imaging 28(8):1251-1265, 2009.
    """

    name = "distances"
    title = "Surface distances"
    about = "How far the border of what the map marks is from that of the mask."
    paper = (
        "[Huttenlocher et al. 1993](https://doi.org/10.1109/34.232073), "
        "[Heimann et al. 2009](https://doi.org/10.1109/TMI.2009.2013851)"
    )
    quantities: ClassVar[Mapping[str, Meaning]] = dict.fromkeys(
        ("hausdorff", "hausdorff_95", "mean_surface_distance"), Meaning(Better.LOWER, LENGTH)
    )

    def compared(self, case: Case, name: str, mask: Mask) -> Found:  # noqa: ARG002  # of it nothing is said in words
        """Measure from each surface to the other."""
        if not mask.any() or not case.top:
            return Found(dict.fromkeys(self.quantities, NO_EVIDENCE if mask.any() else NO_MASK))
        cut = self.cut(case.evidence, case.top)
        marked = cut.marked(case.evidence)
        if not marked.any():
            return Found(dict.fromkeys(self.quantities, NO_MARK), at=cut.text)
        ours, theirs = Surface.of(marked, case.spacing), Surface.of(mask, case.spacing)
        ways = ours.distances_to(theirs), theirs.distances_to(ours)
        numbers = {
            "hausdorff": max(float(way.max()) for way in ways),
            "hausdorff_95": max(float(np.percentile(way, 95)) for way in ways),
            "mean_surface_distance": float(np.concatenate(ways).mean()),
        }
        return Found(numbers, at=cut.text)
