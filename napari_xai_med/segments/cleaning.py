"""Segments that are connected, inside of a mask, not too small and numbered without gaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from skimage.measure import label

from napari_xai_med.segments.base import Labels
from napari_xai_med.segments.part import Part


def cleaned(raw: NDArray[np.integer], part: Part, minimum: float) -> Labels:
    """Connected pieces of segments, the small ones merged into a neighbour.

    Also for what libraries give: scikit-image's SLIC, for one, can give two pieces that don't touch the same label
    (scikit-image #8295).

    Parameters
    ----------
    raw : ndarray of int, shape as the part's mask
        Not negative. 0 inside of the mask stands for one more segment.
    part : Part
    minimum : float
        In voxels. A smaller piece is merged into the neighbour that it shares the largest border with, in
        millimetres; among equals into the one whose mean intensity is nearest. A piece without neighbours stays, so
        that each voxel of the mask belongs to a segment.

    Returns
    -------
    ndarray of int32
        0 outside of the mask and 1 to n without gaps inside, in the order of the first voxels. Voxels of a segment
        are connected by their faces.
    """
    pieces = label(np.where(part.mask, raw + 1, 0), background=0, connectivity=1).astype(np.int32)
    sizes = np.bincount(pieces.ravel())[1:]
    if not (sizes < minimum).any():
        return pieces
    # 0 stays 0.
    numbers = np.concatenate([[0], 1 + _merged(_Graph.of(pieces, part), minimum)]).astype(np.int32)
    return numbers[pieces]


def borders(labels: Labels, spacing: Sequence[float]) -> csr_array:
    """Which segments touch, and along how much.

    Parameters
    ----------
    labels : ndarray of int32
        0 for none, 1 to n.
    spacing : sequence of float
        Millimetres between voxels along each axis.

    Returns
    -------
    sparse array, shape (n, n)
        Symmetric; the area of all faces (the length of all edges in 2D) between two segments in mm2 (mm), at their
        labels minus 1.
    """
    n = int(labels.max(initial=0))
    first, second, areas = [], [], []
    for axis, step in enumerate(spacing):
        lines = np.moveaxis(labels, axis, 0)
        here, there = lines[:-1], lines[1:]
        touch = (here != there) & (here > 0) & (there > 0)
        first.append(here[touch] - 1)
        second.append(there[touch] - 1)
        areas.append(np.full(len(first[-1]), prod(spacing) / step))
    one, other, area = np.concatenate(first), np.concatenate(second), np.concatenate(areas)
    half = coo_array((area, (one, other)), shape=(n, n)).tocsr()
    return (half + half.T).tocsr()


def channel_sums(labels: Labels, values: NDArray[np.floating] | NDArray[np.integer]) -> NDArray[np.float64]:
    """Sums of each channel over each segment, shape (n, C), without the background's."""
    n = int(labels.max(initial=0))
    flat = labels.ravel()
    return np.stack([np.bincount(flat, channel.ravel(), n + 1)[1:] for channel in values], axis=1)


@dataclass(frozen=True)
class _Graph:
    """Pieces, the borders between them, their sizes in voxels and the sums of their intensities."""

    borders: csr_array
    sizes: NDArray[np.int64]
    sums: NDArray[np.float64]

    @classmethod
    def of(cls, pieces: Labels, part: Part) -> _Graph:
        return cls(borders(pieces, part.spacing), np.bincount(pieces.ravel())[1:], channel_sums(pieces, part.values))

    def joined(self, groups: NDArray[np.integer]) -> _Graph:
        """The graph of groups of pieces."""
        n, count = len(groups), int(groups.max()) + 1
        member = csr_array((np.ones(n), (np.arange(n), groups)), shape=(n, count))
        between = (member.T @ self.borders @ member).tocoo()
        apart = between.row != between.col
        kept = (between.data[apart], (between.row[apart], between.col[apart]))
        sizes = np.bincount(groups, self.sizes, count).astype(np.int64)
        return _Graph(coo_array(kept, shape=(count, count)).tocsr(), sizes, member.T @ self.sums)

    def targets(self, minimum: float) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
        """Pieces that are too small, as far as they have neighbours, and the neighbour that each goes to."""
        edges = self.borders.tocoo()
        small = self.sizes[edges.row] < minimum
        row, col, area = edges.row[small], edges.col[small], edges.data[small]
        means = self.sums / self.sizes[:, None]
        apart = np.linalg.norm(means[row] - means[col], axis=1)
        order = np.lexsort((col, apart, -area, row))
        first = np.unique(row[order], return_index=True)[1]
        return row[order][first], col[order][first]


def _merged(graph: _Graph, minimum: float) -> NDArray[np.int64]:
    """The number of each piece's group, from 0, when no small piece is left that has a neighbour."""
    numbers = np.arange(len(graph.sizes))
    while True:
        small, into = graph.targets(minimum)
        if not len(small):
            return numbers
        n = len(graph.sizes)
        links = coo_array((np.ones(len(small)), (small, into)), shape=(n, n))
        groups = connected_components(links, directed=False)[1]
        numbers, graph = groups[numbers], graph.joined(groups)
