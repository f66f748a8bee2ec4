"""Letters, callipers and marks that were written into a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label, regionprops

_STROKE = 0.04
"""Width of the thickest stroke, as a share of the picture's shorter side."""
_SIZES = (0.015, 0.15)
"""Smallest and largest letter, as a share of the shorter side."""
_FEWEST = 6
"""Pixels: of fewer no shape can be seen."""
_CONTRAST = 0.4
"""How much brighter than what is around at a stroke's distance, as a share of the picture's range."""
_BRIGHT = 0.7
"""Letters are written in nearly the brightest grey, as a share of the picture's range."""
_STEP = 0.35
"""How sharply it ends, within three pixels: vessels, ribs and fibres fade."""
_FLAT = (0.1, 0.3)
"""At least the second share of a letter is within the first of its own brightest grey; JPEG blurs thin strokes."""


def burnt_in(plane: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Where bright letters and marks are in a picture.

    Small connected pieces that are far brighter than what is around them, of one grey, and end sharply. White letters
    only: black ones look like air and shadow.

    Parameters
    ----------
    plane : ndarray, shape (rows, columns)
        In any unit.

    Returns
    -------
    ndarray of bool, shape (rows, columns)
        With the pixels around each piece, which are greyer than the piece and still tell what it was.
    """
    low, high = np.percentile(plane, 1), plane.max()
    if not low < high or min(plane.shape) < 2 * _FEWEST:
        return np.zeros(plane.shape, bool)
    values = (plane - low) / (high - low)
    side = min(plane.shape)
    width = max(3, round(_STROKE * side)) | 1
    pieces = label(ndimage.white_tophat(values, size=(width, width)) > _CONTRAST, connectivity=2)
    letters = [piece.label for piece in regionprops(pieces) if _is_letter(piece, pieces, values, side)]
    around: NDArray[np.bool_] = ndimage.binary_dilation(np.isin(pieces, letters), iterations=max(2, side // 200))
    return around


def _is_letter(piece: Any, pieces: NDArray[np.integer], values: NDArray[np.floating], side: int) -> bool:
    """Whether one of scikit-image's regions is as large, bright, flat and sharp as letters are."""
    top, left, bottom, right = piece.bbox
    longest = max(bottom - top, right - left) / side
    if piece.area < _FEWEST or not _SIZES[0] <= longest <= _SIZES[1]:
        return False
    box = (slice(max(top - 3, 0), bottom + 3), slice(max(left - 3, 0), right + 3))
    own = pieces[box] == piece.label
    inside = values[box][own]
    ring = ndimage.binary_dilation(own, iterations=3) & ~ndimage.binary_dilation(own)
    if not ring.any():
        return False
    brightest = np.percentile(inside, 90)
    flat = float((inside > brightest - _FLAT[0]).mean())
    step = np.median(inside) - np.percentile(values[box][ring], 90)
    return bool(brightest > _BRIGHT and flat > _FLAT[1] and step > _STEP)
