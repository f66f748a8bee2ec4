"""SLIC: k-means of place and intensity, each centre looking only at its surroundings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.options import option
from napari_xai_med.segments.base import register
from napari_xai_med.segments.lattice import lattice_of
from napari_xai_med.segments.part import Part
from napari_xai_med.segments.superpixels import Numbered

_REACH = 1.5
"""How far centres look along each axis, in distances between them: 1 in the paper, 2 in scikit-image."""


@register
@dataclass(frozen=True)
class Slic(Numbered):
    """SLIC superpixels and supervoxels: k-means over place in millimetres and intensity.

    The distance of a voxel from a centre is the root of ``(intensity / compactness)**2 + (place / pitch)**2``, as in
    scikit-image; intensities are those of `scaled` and the pitch is the distance between neighbouring centres at the
    start. Own code and not scikit-image's, which this is tested against: that lays its first centres and takes its
    pitch in voxels, so that pixels of 1 x 4 mm give segments of 1 to 4 whatever spacing it is told, and compactness
    depends on the unit; inside of a mask it draws random centres, which makes its pitch half as long (compactness
    twice as strong) and takes three times as long.

    References
    ----------
    Achanta et al. 2012, SLIC superpixels compared to state-of-the-art superpixel methods, IEEE TPAMI 34(11).
    """

    name: ClassVar[str] = "slic"
    title: ClassVar[str] = "SLIC"
    paper: ClassVar[str] = "Achanta et al. 2012, doi:10.1109/TPAMI.2012.120"

    compactness: float = option(
        0.2,
        "Difference in intensity, as a share of the image's range, that weighs as much as the distance to the next "
        "segment: small values follow edges, large ones make segments rounder.",
        limits=(0.001, 100.0),
    )
    iterations: int = option(10, "Rounds of k-means; 5 are enough for a first look.", limits=(1, 100))

    def numbered_groups(self, part: Part) -> NDArray[np.integer]:
        """Clusters from 1 on; 0 for the few voxels that no centre reaches."""
        lattice = lattice_of(part.mask, part.spacing, self.number)
        seeds = lattice.filled(part.mask)
        # Cells that hold too little of the mask start none: their voxels go to the centres around.
        numbers = np.where(seeds, np.cumsum(seeds), 0).astype(np.int32)
        labels = np.where(part.mask, numbers[lattice.cells()], 0)
        space = _Space.of(part, lattice.pitch, self.compactness)
        count = int(np.count_nonzero(seeds))
        for _ in range(self.iterations):
            space.assign(labels, *space.centres(labels, count))
        return labels


@dataclass(frozen=True)
class _Space:
    """Place and intensity in units that count the same.

    Parameters
    ----------
    values : ndarray of float32, shape (C, *shape)
        Intensities over compactness.
    axes : tuple of ndarray of float32
        Voxels' places along each axis, over the pitch.
    mask : ndarray of bool, shape (*shape)
    """

    values: NDArray[np.float32]
    axes: tuple[NDArray[np.float32], ...]
    mask: NDArray[np.bool_]

    @classmethod
    def of(cls, part: Part, pitch: float, compactness: float) -> _Space:
        axes = (np.arange(n) * step / pitch for n, step in zip(part.mask.shape, part.spacing, strict=True))
        return cls(part.values / np.float32(compactness), tuple(axis.astype(np.float32) for axis in axes), part.mask)

    def centres(self, labels: NDArray[np.int32], count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean places, shape (count, ndim), and intensities, shape (count, C), of labels 1 to `count`."""
        flat = labels.ravel().astype(np.intp)
        sizes = np.bincount(flat, minlength=count + 1)
        places = np.meshgrid(*self.axes, indexing="ij", copy=False)
        sums = [np.bincount(flat, each.ravel(), count + 1) for each in (*places, *self.values)]
        means = (np.stack(sums, 1) / np.maximum(sizes, 1)[:, None]).astype(np.float32)[1:]
        # A centre that lost its last voxel is nowhere, and reaches none again.
        means[sizes[1:] == 0] = np.inf
        return means[:, : len(self.axes)], means[:, len(self.axes) :]

    def assign(self, labels: NDArray[np.int32], places: NDArray[np.float32], intensities: NDArray[np.float32]) -> None:
        """Give each voxel that a centre reaches the label of the nearest, in place; the others keep theirs."""
        ndim = len(self.axes)
        nearest = np.where(self.mask, np.float32(np.inf), np.float32(-np.inf))
        first = np.stack([np.searchsorted(x, c - _REACH) for x, c in zip(self.axes, places.T, strict=True)], 1)
        last = np.stack([np.searchsorted(x, c + _REACH) for x, c in zip(self.axes, places.T, strict=True)], 1)
        # One centre after the other: a window of voxels stays in the processor's cache.
        for number, (low, high) in enumerate(zip(first.tolist(), last.tolist(), strict=True), start=1):
            window = tuple(map(slice, low, high))
            distance = np.zeros([b - a for a, b in zip(low, high, strict=True)], np.float32)
            for axis, (x, centre, here) in enumerate(zip(self.axes, places[number - 1], window, strict=True)):
                distance += ((x[here] - centre) ** 2).reshape([-1 if k == axis else 1 for k in range(ndim)])
            for channel, mean in zip(self.values, intensities[number - 1], strict=True):
                distance += np.square(channel[window] - mean)
            nearer = distance < nearest[window]
            np.copyto(nearest[window], distance, where=nearer)
            np.copyto(labels[window], np.int32(number), where=nearer)
