"""How alike a map and a mask are as two pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log10, sqrt
from typing import ClassVar

import numpy as np

from napari_xai_med.metrics.base import Meaning, register
from napari_xai_med.metrics.case import Case, Map, Mask
from napari_xai_med.metrics.outcome import Better
from napari_xai_med.metrics.over_masks import (
    CHANCE,
    DECIBEL,
    NO_EVIDENCE,
    Found,
    MaskMetric,
    Number,
    partial_mask,
    same_everywhere,
    share_of,
)
from napari_xai_med.metrics.thresholds import chunks

NOTHING = "a map that marks nothing"
"""The control that is 0 everywhere, which small masks resemble."""

_WINDOW = 7
"""Voxels along each edge of what structural similarity looks at together: scikit-image's default."""

_SLAB = 32
"""Rows of the first axis that are compared at a time; scikit-image needs fifteen arrays of that size."""


@register
@dataclass(frozen=True)
class Similarity(MaskMetric):
    """Similarity: Pearson's correlation, mean squared error, PSNR and SSIM of a map and a mask.

    The map is divided by its maximum, so that both reach from 0 to 1. Small masks are so much like a map that marks
    nothing that this map is a control.

    References
    ----------
    .. [1] Z. Wang et al. Image quality assessment: from error visibility to structural similarity. IEEE Transactions on
       Image Processing 13(4):600-612, 2004.
    """

    name = "similarity"
    title = "Similarity"
    about = "How alike the map, divided by its maximum, and the mask are as pictures."
    paper = "[Wang et al. 2004](https://doi.org/10.1109/TIP.2003.819861) for SSIM"
    quantities: ClassVar[Mapping[str, Meaning]] = {
        "pearson": Meaning(Better.HIGHER, "-1 to 1"),
        "mse": Meaning(Better.LOWER),
        "psnr": Meaning(Better.HIGHER, DECIBEL),
        "ssim": Meaning(Better.HIGHER, "-1 to 1"),
    }

    def compared(self, case: Case, name: str, mask: Mask) -> Found:  # noqa: ARG002  # of it nothing is said in words
        """Sum up squares and products in one pass, and look at small windows for the structure."""
        share = share_of(mask)
        reason = partial_mask(mask) or ("" if case.top else NO_EVIDENCE)
        if reason:
            return Found(dict.fromkeys(self.quantities, reason))
        mean, square, product = moments(case.evidence, mask)
        # A constant map leaves a variance of rounding errors.
        reason = same_everywhere(case)
        spread = sqrt(max(square - mean**2, 0) * share * (1 - share))
        pearson: Number = reason or (product - mean * share) / spread
        error = square - 2 * product + share
        chance = square - 2 * mean * share + share
        numbers = {"pearson": pearson, "mse": error, "psnr": psnr(error), "ssim": ssim(case.evidence, mask)}
        controls: dict[str, Mapping[str, Number]] = {
            CHANCE: {"pearson": 0.0, "mse": chance, "psnr": psnr(chance)},
            NOTHING: {"mse": share, "psnr": psnr(share)},
        }
        return Found(numbers, controls)


def moments(evidence: Map, mask: Mask) -> tuple[float, float, float]:
    """Means of a map divided by its maximum, of its square, and of its product with a mask."""
    top = float(evidence.max())
    total = square = inside = 0.0
    for values, within in chunks(evidence, mask):
        exact = values.astype(np.float64)
        total += float(exact.sum())
        square += float(exact @ exact)
        inside += float(exact[within].sum())
    return total / top / evidence.size, square / top**2 / evidence.size, inside / top / evidence.size


def psnr(error: float) -> Number:
    """Decibels of a mean squared error, of pictures from 0 to 1."""
    return -10 * log10(error) if error > 0 else "The map equals the mask, so that there is no error to compare with."


def ssim(evidence: Map, mask: Mask) -> Number:
    """Structural similarity, in the largest window up to 7 voxels that fits; axes with one voxel are left out.

    scikit-image compares; it does so slab by slab, in a fifteenth of the memory.
    """
    from skimage.metrics import structural_similarity

    values, inside = np.squeeze(evidence), np.squeeze(mask)
    least = min(values.shape, default=0)
    window = min(_WINDOW, least - 1 + least % 2)
    if window < 3:
        return "The image is less than 3 voxels wide."
    top, edge = float(values.max()), window // 2
    total, count = 0.0, 0
    # Windows lie within the image only.
    for start in range(edge, len(values) - edge, _SLAB):
        stop = min(start + _SLAB, len(values) - edge)
        rows = slice(start - edge, stop + edge)
        # In doubles, whose rounding does not grow with the window's sums.
        mean = structural_similarity(values[rows] / top, inside[rows].astype(np.float64), win_size=window, data_range=1)
        total, count = total + float(mean) * (stop - start), count + stop - start
    return total / count
