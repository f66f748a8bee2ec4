"""Cells of a regular lattice that are as long along each axis in millimetres, not in voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, prod

import numpy as np
from numpy.typing import NDArray

_FULL = 0.25
"""A cell counts if it holds this share of what cells hold on average, of those that hold anything."""

_STEPS = 24
"""Of the search for the cells' length: halves a range of 1 to 10^6 to less than a thousandth."""


@dataclass(frozen=True)
class Lattice:
    """Boxes that fill an image.

    Parameters
    ----------
    counts : tuple of int
        How many along each axis.
    shape : tuple of int
        Voxels of the image along each axis.
    pitch : float
        Millimetres from one cell to the next, as near as voxels allow.
    """

    counts: tuple[int, ...]
    shape: tuple[int, ...]
    pitch: float

    def cells(self) -> NDArray[np.int32]:
        """The number of the cell of each voxel, from 0, shape (*shape)."""
        axes = [np.arange(n) * count // n for n, count in zip(self.shape, self.counts, strict=True)]
        return np.ravel_multi_index(np.ix_(*axes), self.counts).astype(np.int32)

    def held(self, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        """How many voxels of a mask each cell holds, shape (cells,)."""
        sums: NDArray[np.generic] = mask
        for axis, (n, count) in enumerate(zip(self.shape, self.counts, strict=True)):
            starts = -(-np.arange(count) * n // count)
            sums = np.add.reduceat(sums, starts, axis, dtype=np.int64)
        return np.asarray(sums, np.int64).ravel()

    def filled(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which cells hold enough of a mask to become a segment, shape (cells,)."""
        held = self.held(mask)
        return (held > 0) & (held >= _FULL * held[held > 0].mean())


def lattice_of(mask: NDArray[np.bool_], spacing: Sequence[float], number: int) -> Lattice:
    """The lattice whose cells inside of a mask are nearest to a number.

    Parameters
    ----------
    mask : ndarray of bool
        Of any shape, also a line or single voxels.
    spacing : sequence of float
        Millimetres between voxels along each axis.
    number : int
        From 1 to the mask's voxels.
    """
    lengths = [n * step for n, step in zip(mask.shape, spacing, strict=True)]
    whole = bool(mask.all())

    def with_pitch(pitch: float) -> Lattice:
        counts = (min(max(round(length / pitch), 1), n) for length, n in zip(lengths, mask.shape, strict=True))
        return Lattice(tuple(counts), mask.shape, pitch)

    def found(lattice: Lattice) -> int:
        return prod(lattice.counts) if whole else int(np.count_nonzero(lattice.filled(mask)))

    low, high = log(min(spacing) / 2), log(2 * max(lengths))
    # The length of a cube (square) with the mean volume is right if the mask is compact.
    pitch = log(prod(spacing) * np.count_nonzero(mask) / number) / mask.ndim
    best, difference = with_pitch(np.exp(pitch)), np.inf
    for _ in range(_STEPS):
        lattice = with_pitch(float(np.exp(pitch)))
        count = found(lattice)
        if abs(count - number) < difference:
            best, difference = lattice, abs(count - number)
        if not difference:
            break
        low, high = (pitch, high) if count > number else (low, pitch)
        pitch = (low + high) / 2
    return best
