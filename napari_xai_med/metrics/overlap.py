"""How much of a mask a thresholded map covers, and how much of the map lies in the mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from napari_xai_med.metrics.base import Meaning, register
from napari_xai_med.metrics.case import Case, Mask
from napari_xai_med.metrics.outcome import Better
from napari_xai_med.metrics.over_masks import (
    ALL_MASK,
    CHANCE,
    NO_EVIDENCE,
    NO_MASK,
    SIZE,
    Found,
    MaskMetric,
    Number,
    beside,
    size_of,
)
from napari_xai_med.metrics.thresholds import Counts, Thresholded, or_reason, ratio

NO_MARK = "The map marks nothing at this threshold."


@register
@dataclass(frozen=True)
class Overlap(Thresholded, MaskMetric):
    """Overlap above a threshold: IoU, Dice, precision, recall and their like of a map above a threshold and a mask.

    The control marks as many voxels, but anywhere: its counts are the means of the hypergeometric distribution, and its
    Dice, precision, recall, specificity and accuracy are the exact means; its IoU is that of the mean counts.

    References
    ----------
    .. [1] A. A. Taha, A. Hanbury. Metrics for evaluating 3D medical image segmentation: analysis, selection, and tool.
       BMC Medical Imaging 15:29, 2015.
    """

    name = "binary_overlap"
    title = "Overlap above a threshold"
    about = "How well the voxels above a threshold agree with the mask."
    paper = "[Taha and Hanbury 2015](https://doi.org/10.1186/s12880-015-0068-x)"
    panel = True
    quantities: ClassVar[Mapping[str, Meaning]] = {
        "dice": Meaning(),
        "iou": Meaning(),
        "precision": Meaning(),
        "recall": Meaning(),
        "f1": Meaning(),
        "specificity": Meaning(),
        "pixel_accuracy": Meaning(),
        "coverage": Meaning(Better.NEITHER),
        "hit": Meaning(Better.HIGHER, "0 or 1"),
        "map_size": Meaning(Better.NEITHER, SIZE),
        "mask_size": Meaning(Better.NEITHER, SIZE),
        "overlap_size": Meaning(Better.HIGHER, SIZE),
    }

    def compared(self, case: Case, name: str, mask: Mask) -> Found:
        """Count what is marked in and outside of a mask."""
        if not case.top:
            return Found(dict.fromkeys(self.quantities, NO_EVIDENCE))
        cut = self.cut(case.evidence, case.top)
        counts = Counts.of(case.evidence, mask, cut)
        numbers, chance = _numbers(case, counts), _numbers(case, counts.by_chance)
        compared = {key: chance[key] for key in ("dice", "iou", "precision", "recall", "f1", "specificity")}
        compared |= {key: chance[key] for key in ("pixel_accuracy", "overlap_size")}
        dice, control = numbers["dice"], chance["dice"]
        if isinstance(dice, str) or isinstance(control, str) or counts.inside == counts.voxels:
            return Found(numbers, {CHANCE: compared}, cut.text)
        meaning = "the map marks the mask better than as many voxels anywhere would"
        verdict = beside(dice, control, f"Dice ({cut.text})", name, meaning)
        return Found(numbers, {CHANCE: compared}, cut.text, verdicts=(verdict,))


def _numbers(case: Case, counts: Counts) -> dict[str, Number]:
    """All that four counts tell; a text where it is not defined."""
    outside = counts.voxels - counts.inside
    wrong = counts.marked - counts.both
    none = NO_MASK if not counts.inside else NO_MARK if not counts.marked else ""
    dice: Number = counts.dice if counts.inside else NO_MASK
    return {
        "dice": dice,
        "iou": counts.iou if counts.inside else NO_MASK,
        "precision": none or ratio(counts.both, counts.marked),
        "recall": or_reason(ratio(counts.both, counts.inside), NO_MASK),
        "f1": dice,
        "specificity": or_reason(ratio(outside - wrong, outside), ALL_MASK),
        "pixel_accuracy": (outside - wrong + counts.both) / counts.voxels,
        "coverage": counts.marked / counts.voxels,
        "hit": NO_MASK if not counts.inside else float(counts.both > 0),
        "map_size": size_of(case, counts.marked),
        "mask_size": size_of(case, counts.inside),
        "overlap_size": size_of(case, counts.both) if counts.inside else NO_MASK,
    }
