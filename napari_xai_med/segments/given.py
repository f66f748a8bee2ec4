"""Segments that the user drew, or that another program found."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.errors import InputError
from napari_xai_med.segments.base import Segments
from napari_xai_med.segments.part import check_mask


def given_segments(
    labels: NDArray[np.integer], mask: NDArray[np.bool_] | None = None, *, background: bool = False
) -> Segments:
    """Segments by labels, such as of organs, which need not be connected.

    Parameters
    ----------
    labels : ndarray of int or bool, shape (*spatial)
        Any numbers, with gaps, on the grid of the image.
    mask : ndarray of bool, shape (*spatial), optional
        Where segments may be; everywhere by default.
    background : bool
        Whether 0 stands for one more segment, and not for what is outside of all.

    Returns
    -------
    Segments
        In the order of the labels; the fact `original` holds the label of each.

    Raises
    ------
    InputError
        If the labels are no whole numbers, the mask does not fit them, or no segment is left.
    """
    if labels.dtype.kind not in "iub":
        raise InputError(f"Labels of type {labels.dtype} are no whole numbers; choose a layer of labels.")
    inside = check_mask(mask, labels.shape)
    counts = inside if background else inside & (labels != 0)
    if not counts.any():
        raise InputError("There is no label other than 0 inside of the mask; draw at least one segment.")
    original, numbers = np.unique(labels[counts], return_inverse=True)
    result = np.zeros(labels.shape, np.int32)
    result[counts] = numbers.ravel() + 1
    return Segments(result, {"original": [int(each) for each in original], "made": len(original)})
