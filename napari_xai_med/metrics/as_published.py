"""Numbers as two published theses computed them, each beside what its name promises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.metrics.base import Family, Meaning, register
from napari_xai_med.metrics.case import Case, Mask
from napari_xai_med.metrics.outcome import Better
from napari_xai_med.metrics.over_masks import NO_EVIDENCE, NO_MASK, Found, MaskMetric, Number
from napari_xai_med.metrics.overlap import NO_MARK
from napari_xai_med.metrics.similarity import NOTHING
from napari_xai_med.metrics.thresholds import KINDS, Counts, Thresholded, or_reason, ratio
from napari_xai_med.options import option

LINES = (
    "share_of_identical_lines and mse_of_intersection compare the mask with its own intersection with the map, and "
    "count everything outside the mask as agreement: a map that marks nothing scores almost as high. Look at dice."
)
SIGMOID = (
    "iou_after_sigmoid takes the sigmoid of a map of zeros and ones, which is 0.5 and 0.73 and never 0: every map "
    "marks everything, and all methods score alike. Look at iou."
)
COLUMNS = (
    "column_macro_precision, recall and f1 take each column of the image for a class of its own and count those "
    "without mask or map as 0: they depend on how the image is turned. Look at precision, recall and f1."
)


@dataclass(frozen=True)
class AsPublished(MaskMetric):
    """What numbers as published share: they are told, and are part of no panel."""

    family: ClassVar[Family] = Family.AS_PUBLISHED


@register
@dataclass(frozen=True)
class IdenticalLines(Thresholded, AsPublished):
    """Identical lines: the "DICE" and the MSE of a published comparison of Grad-CAM with masks of COVID-19.

    Of the lines along the image's last axis, the share in which the mask equals its intersection with the map; and the
    mean squared error of both. A map that marks nothing is the control.

    References
    ----------
    .. [1] F. Makraduli. Explainability pipelines for an end-to-end understanding of 3D Covid-19 CT scans. Imperial
       College London, 2021.
    """

    name = "identical_lines"
    title = "Identical lines"
    about = 'What was published as "DICE" and MSE of a thresholded 3D Grad-CAM, beside the true Dice.'
    paper = "[Makraduli 2021](https://github.com/fm1320/ICL)"
    quantities: ClassVar[Mapping[str, Meaning]] = {
        "share_of_identical_lines": Meaning(),
        "mse_of_intersection": Meaning(Better.LOWER),
        "dice": Meaning(),
    }

    threshold: str = option("absolute", "As of overlap; a value of the map, as it was published.", choices=KINDS)
    lower: float = option(0.7, "Voxels above it are marked.", limits=(0.0, None))

    def compared(self, case: Case, name: str, mask: Mask) -> Found:  # noqa: ARG002  # of it nothing is said in words
        """Compare a mask with its intersection with the map."""
        if not mask.any() or not case.top:
            return Found(dict.fromkeys(self.quantities, NO_EVIDENCE if mask.any() else NO_MASK))
        cut = self.cut(case.evidence, case.top)
        numbers = identical_lines(cut.marked(case.evidence), mask)
        control = identical_lines(np.zeros_like(mask), mask)
        return Found(numbers, {NOTHING: control}, cut.text, notices=(LINES,))


def identical_lines(marked: Mask, mask: Mask) -> dict[str, float]:
    """The three numbers of `IdenticalLines`; the mask is not empty."""
    both = marked & mask
    missed = both != mask
    return {
        "share_of_identical_lines": 1 - float(missed.any(-1).mean()),
        "mse_of_intersection": float(missed.mean()),
        "dice": 2 * np.count_nonzero(both) / (np.count_nonzero(marked) + np.count_nonzero(mask)),
    }


@dataclass(frozen=True)
class Histopathology(Thresholded, AsPublished):
    """What the numbers of the histopathology thesis share: a map above 0.3 of its maximum."""

    lower: float = option(0.3, "Voxels above it are marked.", limits=(0.0, None))
    paper = "a thesis on explanations of histopathology classifiers"


@register
@dataclass(frozen=True)
class IoUAfterSigmoid(Histopathology):
    """IoU after a sigmoid: of a map of zeros and ones, with 1 added to both of its parts.

    That is a loss for networks that segment, whose outputs need the sigmoid, on a map that does not.
    """

    name = "iou_after_sigmoid"
    title = "IoU after a sigmoid"
    about = "The IoU of a segmentation loss that expects a network's raw outputs, on a binary map, beside the true IoU."
    quantities: ClassVar[Mapping[str, Meaning]] = {"iou_after_sigmoid": Meaning(), "iou": Meaning()}

    def compared(self, case: Case, name: str, mask: Mask) -> Found:  # noqa: ARG002  # of it nothing is said in words
        """Count once, for both."""
        if not case.top:
            return Found(dict.fromkeys(self.quantities, NO_EVIDENCE))
        cut = self.cut(case.evidence, case.top)
        counts = Counts.of(case.evidence, mask, cut)
        nothing = Counts(0, counts.inside, 0, counts.voxels)
        return Found(_ious(counts), {NOTHING: _ious(nothing)}, cut.text, notices=(SIGMOID,))


def _ious(counts: Counts) -> dict[str, Number]:
    # The sigmoids of 1 and 0.
    high, low = 1 / (1 + np.exp(-1.0)), 0.5
    both = high * counts.both + low * (counts.inside - counts.both)
    total = high * counts.marked + low * (counts.voxels - counts.marked) + counts.inside
    smooth = float((both + 1) / (total - both + 1))
    return {"iou_after_sigmoid": smooth, "iou": counts.iou if counts.inside else NO_MASK}


@register
@dataclass(frozen=True)
class ColumnMacro(Histopathology):
    """Column macro: precision, recall and F1 with the columns of an image as classes of their own.

    That is what scikit-learn does with two-dimensional arrays and ``average="macro"``.

    References
    ----------
    .. [1] F. Pedregosa et al. Scikit-learn: machine learning in Python. Journal of Machine Learning Research
       12:2825-2830, 2011.
    """

    name = "column_macro"
    title = "Column macro"
    about = "Precision, recall and F1 averaged over image columns, beside those over all pixels."
    quantities: ClassVar[Mapping[str, Meaning]] = dict.fromkeys(
        ("column_macro_precision", "column_macro_recall", "column_macro_f1", "precision", "recall", "f1"), Meaning()
    )

    def compared(self, case: Case, name: str, mask: Mask) -> Found:  # noqa: ARG002  # of it nothing is said in words
        """Ask scikit-learn as the thesis did, and count."""
        flat = np.squeeze(mask)
        reason = "" if flat.ndim == 2 else "Columns of pixels are of a 2D image."
        reason = reason or (NO_MASK if not mask.any() else "" if case.top else NO_EVIDENCE)
        if reason:
            return Found(dict.fromkeys(self.quantities, reason))
        cut = self.cut(case.evidence, case.top)
        counts = Counts.of(case.evidence, mask, cut)
        by_column = column_macro(cut.marked(np.squeeze(case.evidence)), flat)
        numbers: dict[str, Number] = dict(by_column)
        numbers |= {
            "precision": or_reason(ratio(counts.both, counts.marked), NO_MARK),
            "recall": ratio(counts.both, counts.inside),
            "f1": counts.dice,
        }
        # The same picture lying on its side.
        turned = column_macro(cut.marked(np.squeeze(case.evidence)).T, flat.T)
        return Found(numbers, {"the image turned by 90 degrees": turned}, cut.text, notices=(COLUMNS,))


def column_macro(marked: NDArray[Any], mask: NDArray[Any]) -> dict[str, float]:
    """Precision, recall and F1 of scikit-learn, of 2D arrays; columns without a value count as 0."""
    from sklearn.metrics import precision_recall_fscore_support

    found = precision_recall_fscore_support(mask, marked, average="macro", zero_division=0)
    return {
        f"column_macro_{key}": float(value) for key, value in zip(("precision", "recall", "f1"), found, strict=False)
    }
