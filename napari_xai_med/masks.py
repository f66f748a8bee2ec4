"""Whether an image is a mask, and where it marks something."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.errors import InputError

_WHOLE = 1e-3
"""Files that scale their values give 1.0000001 for 1."""
_MOST = 256
"""Different values of a mask; scans have thousands, and labels of all organs about a hundred."""


def called(name: str) -> str:
    """How to call a mask of a name at the beginning of a sentence: not "The mask mask 2"."""
    return f"The {name}" if name.split(" ")[0] == "mask" else f"The mask {name}"


def marked(values: NDArray[np.generic], name: str) -> NDArray[np.bool_]:
    """Where a mask is not 0.

    Parameters
    ----------
    values : ndarray
        Whole numbers, of any type.
    name : str
        What the mask is called in sentences.

    Returns
    -------
    ndarray of bool

    Raises
    ------
    InputError
        If they are no mask's: some are not whole numbers or below zero, or there are more than 256 different ones, as
        in a scan.
    """
    numbers = np.asarray(values, np.uint8 if values.dtype == bool else None)
    whole = numbers if numbers.dtype.kind in "iu" else np.rint(numbers)
    # NaN is not near anything.
    if (broken := ~(np.abs(numbers - whole) <= _WHOLE)).any():
        wrong = f"values that are not whole numbers, such as {numbers[broken][0]:g}"
    elif (lowest := numbers.min(initial=0)) < -_WHOLE:
        wrong = f"values below zero, such as {lowest:g}"
    elif numbers.max(initial=0) >= _MOST and (count := len(np.unique(whole))) > _MOST:
        wrong = f"{count} different values, as a scan has"
    else:
        return whole != 0
    raise InputError(
        f"{called(name)} is not a mask, since it has {wrong}; a mask holds whole numbers, 0 for the background."
    )
