"""Intensity bands of a map: which voxels lie between shares of its maximum."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.errors import InputError

DEFAULT_EDGES = (0.3, 0.7)
"""The bands of the published comparisons with masks: 0.3 to 0.7, and above 0.7."""


def band_labels(values: NDArray[np.float32], edges: Sequence[float], *, signed: bool) -> NDArray[np.uint8]:
    """Number of the band that each voxel lies in.

    Parameters
    ----------
    values : ndarray of float32
        A map, neither clipped nor normalised.
    edges : sequence of float
        Shares of the map's maximum, rising, from 0 on and below 1. A band reaches from above one edge up to the
        next one, the last to the maximum.
    signed : bool
        Whether values below zero speak against the class; their shares are of the largest absolute value, and they
        have bands of their own.

    Returns
    -------
    ndarray of uint8, shape of `values`
        0 up to the first edge, 1 in the first band and so on; then the bands of values below zero.

    Raises
    ------
    InputError
        If the edges are not such numbers.
    """
    check_edges(edges)
    top = float(np.abs(values).max() if signed else values.max(initial=0))
    share = values / np.float32(top or 1)
    limits = np.asarray(edges, np.float32)
    labels = np.searchsorted(limits, share, side="left").astype(np.uint8)
    if signed:
        against = np.searchsorted(limits, -share, side="left").astype(np.uint8)
        labels = np.where(against > 0, against + np.uint8(len(edges)), labels)
    return labels


def band_names(edges: Sequence[float], *, signed: bool) -> list[str]:
    """What each band holds, from band 1 on."""
    names = [f"{low:g} to {high:g} of the maximum" for low, high in zip(edges, (*edges[1:], 1), strict=True)]
    return [f"for: {name}" for name in names] + [f"against: {name}" for name in names] if signed else names


def check_edges(edges: Sequence[float]) -> None:
    """Raise an `InputError` unless these are rising shares of a maximum."""
    rising = all(low < high for low, high in pairwise(edges))
    if not edges or not rising or not all(0 <= edge < 1 for edge in edges) or len(edges) > 100:
        raise InputError(
            f"{', '.join(f'{edge:g}' for edge in edges) or 'Nothing'} can't be the edges of bands; give rising shares "
            "of the maximum from 0 to below 1, such as 0.3, 0.7."
        )
