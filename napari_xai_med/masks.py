"""Whether an image is a mask, and where it marks something."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.errors import InputError

_WHOLE = 1e-3
"""Files that scale their values give 1.0000001 for 1."""
_MOST = 256
"""Different values of a mask in a file; scans have thousands, and labels of all organs about a hundred."""


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
        If they are no mask's: some are not whole numbers or below zero, or numbers that came as floats, as those of all
        files, have more than 256 different values.
    """
    if values.dtype.kind in "bu" or (values.dtype.kind == "i" and values.min(initial=0) >= 0):
        return values != 0
    numbers = np.asarray(values)
    whole = np.rint(numbers)
    # NaN and infinity are not near anything.
    with np.errstate(invalid="ignore"):
        broken = ~(np.abs(numbers - whole) <= _WHOLE)
    if broken.any():
        wrong = f"values that are not whole numbers, such as {numbers[broken][0]:g}"
    elif (lowest := numbers.min(initial=0)) < -_WHOLE:
        wrong = f"values below zero, such as {lowest:g}"
    elif numbers.max(initial=0) >= _MOST and (count := len(np.unique(whole))) > _MOST:
        wrong = f"{count} different values, more than the {_MOST} that a mask in a file may have"
    else:
        return whole != 0
    raise InputError(
        f"{called(name)} is not a mask, since it has {wrong}; a mask holds whole numbers, 0 for the background."
    )
