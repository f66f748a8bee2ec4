"""Agreement with a mask over all thresholds, and the threshold at which it is best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.metrics.base import Meaning, register
from napari_xai_med.metrics.case import Case, Map, Mask
from napari_xai_med.metrics.outcome import Better, Curves, Float, Line
from napari_xai_med.metrics.over_masks import CHANCE, NO_EVIDENCE, NO_MASK, Found, MaskMetric
from napari_xai_med.metrics.thresholds import chunks
from napari_xai_med.options import option


@register
@dataclass(frozen=True)
class ThresholdCurve(MaskMetric):
    """Curve over all thresholds: Dice, IoU, precision and recall at shares of the map's maximum.

    The control marks at each threshold as many voxels, but anywhere.

    References
    ----------
    .. [1] A. A. Taha, A. Hanbury. Metrics for evaluating 3D medical image segmentation: analysis, selection, and tool.
       BMC Medical Imaging 15:29, 2015.
    """

    name = "threshold_curve"
    title = "Curve over all thresholds"
    about = "How the agreement with the mask depends on the threshold, and where Dice is best."
    paper = "[Taha and Hanbury 2015](https://doi.org/10.1186/s12880-015-0068-x)"
    quantities: ClassVar[Mapping[str, Meaning]] = {
        "best_dice": Meaning(),
        "best_threshold": Meaning(Better.NEITHER, "0 to 1 of the maximum"),
        "mean_dice": Meaning(),
    }

    steps: int = option(256, "How many thresholds, at even distances from 0 to the maximum.", limits=(2, 65536))

    def compared(self, case: Case, name: str, mask: Mask) -> Found:
        """Count how many voxels are above each threshold, in one pass."""
        evidence = case.evidence
        if not mask.any() or not evidence.any():
            return Found(dict.fromkeys(self.quantities, NO_EVIDENCE if mask.any() else NO_MASK))
        marked, both = above(evidence, mask, self.steps)
        inside, voxels = np.count_nonzero(mask), mask.size
        shares = np.arange(self.steps) / self.steps
        dice, chance = 2 * both / (marked + inside), 2 * marked * (inside / voxels) / (marked + inside)
        best = int(dice.argmax())
        lines = (
            Line("Dice", shares, dice),
            Line("IoU", shares, both / (marked + inside - both)),
            Line("precision", shares, both / marked),
            Line("recall", shares, both / inside),
            Line(f"Dice {CHANCE}", shares, chance, CHANCE),
        )
        numbers = {"best_dice": dice[best], "best_threshold": shares[best], "mean_dice": dice.mean()}
        control = {
            "best_dice": chance.max(),
            "best_threshold": shares[chance.argmax()],
            "mean_dice": chance.mean(),
        }
        plot = Curves(f"Agreement with {name}", "threshold as share of the maximum", "", lines, float(shares[best]))
        notice = "The best threshold was found with the mask in hand; on images without one it would be another."
        return Found(numbers, {CHANCE: control}, plots=(plot,), notices=(notice,))


def above(evidence: Map, mask: Mask, steps: int) -> tuple[Float, Float]:
    """How many voxels are above k / `steps` of the maximum, for k from 0 on: at all, and in the mask.

    Parameters
    ----------
    evidence : ndarray of float32
        With a value above zero.
    mask : ndarray of bool
    steps : int
    """
    top = evidence.max()
    counts: NDArray[np.int64] = np.zeros(2 * (steps + 1), np.int64)
    for values, inside in chunks(evidence, mask):
        # A value above k / steps of the maximum is in bin k + 1 or later; the bins of both kinds take turns.
        bins = np.ceil(values / top * steps).astype(np.int64)
        bins *= 2
        bins += inside
        counts += np.bincount(bins, minlength=counts.size)
    # From the highest bin down; nothing is above the last one.
    sums = counts.reshape(-1, 2)[::-1].cumsum(0)[::-1][1:].astype(np.float64)
    return sums.sum(1), sums[:, 1]
