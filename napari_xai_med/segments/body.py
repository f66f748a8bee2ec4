"""The patient against the air around."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_li
from skimage.measure import label

from napari_xai_med.errors import InputError
from napari_xai_med.segments.part import scaled


def body_mask(data: NDArray[np.float32], *, bright: bool = False) -> NDArray[np.bool_]:
    """Where the body is in CT, MR or a photograph: what Li's threshold parts from the surroundings.

    The largest connected piece on the body's side of the threshold, with holes, such as lungs, filled slice by slice.
    It is cut loose from what touches it in a line only, such as a table.

    Parameters
    ----------
    data : ndarray of float32, shape (C, *spatial)
        In any unit; slices of a volume are those across the first spatial axis, which is axial in display
        orientation.
    bright : bool
        Whether the surroundings are brighter than the body, as in histology.

    Returns
    -------
    ndarray of bool, shape (*spatial)
        At least one voxel.

    Raises
    ------
    InputError
        If the image has one value only.

    References
    ----------
    Li & Tam 1998, An iterative algorithm for minimum cross entropy thresholding, Pattern Recognition Letters 18(8).
    """
    mean = scaled(data, np.ones(data.shape[1:], bool)).mean(0)
    if mean.min() == mean.max():
        raise InputError(
            "No body can be told from its surroundings, since the image has the same value everywhere; choose another "
            "image, or draw the mask."
        )
    if bright:
        mean = mean.max() - mean
    # Li's threshold and not Otsu's: contrast agent and tumours in MR draw that above other tissue.
    threshold = threshold_li(mean)
    # Filled before the pieces are told apart: the skull is black in MR, and only its scalp holds a head together.
    # Opened before that, since a picture's frame would hold everything.
    inside = mean > threshold
    core = _largest(_filled(_opened(inside)))
    # Grown back to what opening took from its border, but no further.
    grown = ndimage.binary_dilation(core, _cross(core.ndim), iterations=2)
    return _filled(core | (inside & grown))


def _filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """With its holes, slice by slice."""
    if mask.ndim == 2:
        return np.asarray(ndimage.binary_fill_holes(mask))
    return np.stack([ndimage.binary_fill_holes(each) for each in mask])


def _cross(ndim: int) -> NDArray[np.bool_]:
    """A voxel and its neighbours in the slice: slices may be too far apart to be neighbours."""
    cross = ndimage.generate_binary_structure(2, 1)
    return cross if ndim == 2 else cross[None]


def _opened(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without what is thinner than three voxels in its slice, unless that is all there is."""
    opened = ndimage.binary_opening(mask, _cross(mask.ndim))
    return opened if opened.any() else mask


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected piece."""
    pieces = label(mask, connectivity=1)
    sizes = np.bincount(pieces.ravel())
    return pieces == 1 + int(np.argmax(sizes[1:]))
