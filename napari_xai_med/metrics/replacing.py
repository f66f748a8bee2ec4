"""Images without one of their regions: what is put in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import block_reduce

from napari_xai_med.explainers.segment_baselines import inpainted
from napari_xai_med.grid import resample_linear
from napari_xai_med.metrics.case import Map, Mask

_MARGIN = 1
"""Voxels around a region that filling in looks at."""

_FINE = 2**16
"""Voxels that are filled in one by one at most: half a volume takes seconds."""


def _surroundings(data: Map, mask: Mask, spacing: Sequence[float], width: float) -> Map:  # noqa: ARG001  # others need it
    """Filled in from all around, without an edge."""
    result = data.copy()
    (place,) = ndimage.find_objects(mask.astype(np.int8))
    # What lies further away does not count, and a corner is a small part of a volume.
    box = tuple(slice(max(each.start - _MARGIN, 0), each.stop + _MARGIN) for each in place)
    part, inside = data[(slice(None), *box)], mask[box]
    step = ceil((inside.size / _FINE) ** (1 / inside.ndim))
    filled = _coarsely(part, inside, spacing, step) if step > 1 else inpainted(part, inside.astype(np.int32), spacing)
    result[(slice(None), *box)] = np.where(inside, filled, part)
    return result


def _coarsely(data: Map, mask: Mask, spacing: Sequence[float], step: int) -> Map:
    """Filled in on blocks of voxels, of which what is known has a mean: smooth as it is, it loses little by that."""
    blocks = (step,) * mask.ndim
    known = block_reduce(~mask, blocks, np.sum)
    sums = np.stack([block_reduce(np.where(mask, 0, channel), blocks, np.sum) for channel in data])
    wide = [each * step for each in spacing]
    filled = inpainted(sums / np.maximum(known, 1), (known == 0).astype(np.int32), wide)
    # The middle of a block lies between its first and its last voxel.
    matrix = np.diag([1 / step] * mask.ndim + [1.0])
    matrix[:-1, -1] = -(step - 1) / (2 * step)
    return np.stack([resample_linear(channel.astype(np.float32), matrix, mask.shape) for channel in filled])


def _mean(data: Map, mask: Mask, spacing: Sequence[float], width: float) -> Map:  # noqa: ARG001  # others need it
    """The mean of all the rest."""
    rest = data[:, ~mask] if not mask.all() else data.reshape(len(data), -1)
    return np.where(mask, rest.mean(1, dtype=np.float64).reshape(-1, *(1 for _ in mask.shape)), data).astype(np.float32)


def _blurred(data: Map, mask: Mask, spacing: Sequence[float], width: float) -> Map:
    sigma = [width / step for step in spacing]
    return np.where(mask, np.stack([ndimage.gaussian_filter(channel, sigma, mode="nearest") for channel in data]), data)


FILLS: Mapping[str, Callable[[Map, Mask, Sequence[float], float], Map]] = {
    "surroundings": _surroundings,
    "mean": _mean,
    "blur": _blurred,
}


def flattened(data: Map, mask: Mask, like: Mask) -> Map:
    """With one value for all of a region.

    Parameters
    ----------
    data : ndarray of float32, shape (C, *spatial)
    mask : ndarray of bool, shape (*spatial)
    like : ndarray of bool, shape (*spatial)
        Where each channel's median is that value; at least one voxel.
    """
    level = np.median(data[:, like], axis=1)
    return np.where(mask, level.reshape(-1, *(1 for _ in mask.shape)), data).astype(np.float32)


def ball_inside(mask: Mask, count: int, spacing: Sequence[float], random: np.random.Generator) -> NDArray[np.bool_]:
    """So many voxels of a mask, those nearest to one of them that chance chooses.

    Parameters
    ----------
    mask : ndarray of bool, shape (*spatial)
        At least `count` voxels.
    count : int
    spacing : sequence of float
        Millimetres between voxels along each axis.
    random : Generator
    """
    inside = np.flatnonzero(mask)
    centre = np.unravel_index(inside[random.integers(len(inside))], mask.shape)
    distance = np.zeros(mask.shape, np.float32)
    for axis, (n, middle, step) in enumerate(zip(mask.shape, centre, spacing, strict=True)):
        along = np.square((np.arange(n, dtype=np.float32) - middle) * step, dtype=np.float32)
        distance += along.reshape([-1 if k == axis else 1 for k in range(mask.ndim)])
    nearest = inside[np.argpartition(distance.ravel()[inside], count - 1)[:count]]
    chosen = np.zeros(mask.size, bool)
    chosen[nearest] = True
    return chosen.reshape(mask.shape)
