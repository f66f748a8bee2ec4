"""Where an explanation and masks agree, as one label map whose colours mix like light."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.errors import InputError

MOST_MASKS = 2
_GREEN, _RED, _BLUE = (0, 1, 0), (1, 0, 0), (0, 0, 1)
_OWN = (_GREEN, _RED, _BLUE)
"""Of the explanation, the first and the second mask: green and red together are yellow."""


def overlay_labels(explained: NDArray[np.bool_], masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """One number for each way in which an explanation and up to two masks can overlap.

    Parameters
    ----------
    explained : ndarray of bool
        Where the explanation is above its threshold.
    masks : sequence of ndarray of bool, same shape

    Returns
    -------
    ndarray of uint8, same shape
        The sum of 1 where the explanation is, 2 where the first mask is and 4 where the second one is.

    Raises
    ------
    InputError
        If there are no masks, or more than two.
    """
    if not 1 <= len(masks) <= MOST_MASKS:
        raise InputError(f"An overlay shows one or two masks, not {len(masks)}; choose them.")
    labels = explained.astype(np.uint8)
    for k, mask in enumerate(masks, 1):
        labels |= mask.astype(np.uint8) << np.uint8(k)
    return labels


def overlay_colours(count: int) -> list[tuple[float, float, float]]:
    """The colour of each label, 1 and up: yellow both, green the explanation only, red the mask only, blue a second."""
    return [
        tuple(max(own[channel] for own, there in zip(_OWN, bits, strict=False) if there) for channel in range(3))  # type: ignore[misc]  # three channels
        for bits in _bits(count)
    ]


def overlay_names(masks: Sequence[str]) -> list[str]:
    """What each label means, 1 and up, with the masks' names."""
    names = ("explanation", *masks)
    found = []
    for bits in _bits(len(masks)):
        there = [name for name, bit in zip(names, bits, strict=True) if bit]
        found.append(" and ".join(there) + (" only" if len(there) == 1 else ""))
    return found


def overlay_sizes(labels: NDArray[np.uint8], count: int, spacing: Sequence[float]) -> list[float]:
    """The size of each label, 1 and up: mL of a volume, mm2 of a picture; its unit is that of `spacing`."""
    voxel = prod(spacing) / (1000 if len(spacing) == 3 else 1)
    counts = np.bincount(labels.ravel(), minlength=2 ** (count + 1))
    return [float(each) * voxel for each in counts[1:]]


def _bits(count: int) -> list[tuple[int, ...]]:
    """Which of explanation and masks each label stands for."""
    return [bits[::-1] for bits in product((0, 1), repeat=count + 1)][1:]
