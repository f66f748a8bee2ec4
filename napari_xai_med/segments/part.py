"""What segmenters work on: the part of an image that holds the mask, in intensities of one scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_xai_med.errors import InputError

_TAILS = (1.0, 99.0)
"""Percentiles that become 0 and 1: metal, burnt-in text and single hot voxels must not set the scale."""


@dataclass(frozen=True)
class Part:
    """The smallest box of an image that holds a mask.

    Parameters
    ----------
    values : ndarray of float32, shape (C, *box)
        Scaled as by `scaled` and smoothed.
    mask : ndarray of bool, shape (*box)
        At least one voxel.
    spacing : tuple of float
        Millimetres between voxels along each axis.
    place : tuple of slice
        Where the box lies in the image.
    """

    values: NDArray[np.float32]
    mask: NDArray[np.bool_]
    spacing: tuple[float, ...]
    place: tuple[slice, ...]

    @property
    def voxels(self) -> int:
        """How many the mask has."""
        return int(np.count_nonzero(self.mask))


def scaled(data: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Intensities on one scale for CT, MR and photographs.

    The 1st and the 99th percentile of each channel inside of the mask become 0 and 1, and values are clipped to them.
    They are then divided by the root of the number of channels, so that voxels are at most 1 apart (Euclidean), and a
    grey photograph is the same with one channel and with three. Colours are not converted to CIE Lab: an array does
    not tell whether its three channels are red, green and blue or three sequences of MR, and Lab's scale of 100 would
    give options another meaning for these pictures.

    Parameters
    ----------
    data : ndarray of float32, shape (C, *spatial)
        In any unit.
    mask : ndarray of bool, shape (*spatial)
        At least one voxel.

    Returns
    -------
    ndarray of float32, shape (C, *spatial)
        0 in channels that are constant inside of the mask.
    """
    result = np.zeros(data.shape, np.float32)
    for channel, values in zip(data, result, strict=True):
        inside = channel[mask].astype(np.float64)
        low, high = np.percentile(inside, _TAILS)
        if not low < high:
            # More than 98% of it is one value, such as the black around a small object.
            low, high = inside.min(), inside.max()
        if low < high:
            values[...] = np.clip((channel - low) / (high - low), 0.0, 1.0)
    result /= sqrt(len(data))
    return result


def check_mask(mask: NDArray[np.bool_] | None, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """A mask that fits an image; all of it if none is given.

    Raises
    ------
    InputError
        If the shape is another one, or the mask is empty.
    """
    if mask is None:
        return np.ones(shape, bool)
    if mask.shape != shape:
        raise InputError(f"A mask of shape {mask.shape} does not fit an image of shape {shape}; choose another mask.")
    if not mask.any():
        raise InputError("The mask is empty, so there is nothing to cut into segments; choose another mask.")
    return mask.astype(bool, copy=False)


def part_of(
    data: NDArray[np.float32], spacing: Sequence[float], mask: NDArray[np.bool_] | None, smoothing: float = 0.0
) -> Part:
    """The part of an image that a segmenter works on.

    Parameters
    ----------
    data, spacing, mask
        As `Segmenter.segments` gets them.
    smoothing : float
        Standard deviation of a Gaussian, in millimetres; nothing outside of the mask leaks in.
    """
    whole = check_mask(mask, data.shape[1:])
    (place,) = ndimage.find_objects(whole.astype(np.int8))
    inside = whole[place]
    values = scaled(data[(slice(None), *place)], inside)
    if smoothing > 0:
        sigma = [smoothing / step for step in spacing]
        weights = ndimage.gaussian_filter(inside.astype(np.float32), sigma)
        for channel in values:
            blurred = ndimage.gaussian_filter(np.where(inside, channel, 0), sigma)
            channel[...] = np.where(inside, blurred / np.where(inside, weights, 1), 0)
    return Part(values, inside, tuple(float(step) for step in spacing), place)
