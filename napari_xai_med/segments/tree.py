"""A binary tree of segments, in which neighbours that look alike join first."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage
from scipy.sparse import csr_array

from napari_xai_med.segments.base import Labels
from napari_xai_med.segments.cleaning import borders, channel_sums
from napari_xai_med.segments.part import scaled

Float = NDArray[np.float64]


def partition_tree(labels: Labels, data: NDArray[np.float32], spacing: Sequence[float]) -> Float:
    """The binary partition tree of a label map, by Ward's criterion between neighbours.

    Own code and not scikit-learn's `AgglomerativeClustering` with a connectivity, which this is tested against: that
    counts each segment once, however large, and joins what is not connected by intensity, wherever it lies.

    Parameters
    ----------
    labels : ndarray of int32, shape (*spatial)
        0 outside of all segments and 1 to n without gaps.
    data : ndarray of float32, shape (C, *spatial)
        The image, whose intensities are scaled as by `scaled`.
    spacing : sequence of float
        Millimetres between voxels along each axis.

    Returns
    -------
    ndarray of float64, shape (n - 1, 4)
        As SciPy's `linkage` gives it: the two clusters that join, of which those below n are segments (label k + 1 is
        cluster k), the height and the number of segments. The height is Ward's distance
        ``sqrt(2 a b / (a + b)) * |difference of the means|`` with a and b voxels, but at least that of the join before:
        where only neighbours join, a later join can be nearer. Parts of the image that don't touch join last, by the
        distance of their centres in millimetres.

    References
    ----------
    Salembier & Garrido 2000, Binary partition tree as an efficient representation for image processing, IEEE TIP 9(4).
    """
    sizes = np.bincount(labels.ravel())[1:]
    inside = labels > 0
    sums = channel_sums(labels, scaled(data, inside))
    rows, roots = _joined(borders(labels, spacing), sizes, sums)
    if len(roots) > 1:
        places = np.stack(np.meshgrid(*map(np.arange, labels.shape), indexing="ij", copy=False))
        centres = channel_sums(labels, places) * np.array(spacing)
        rows = _bridged(rows, roots, sizes, centres)
    tree = np.array(rows, np.float64).reshape(-1, 4)
    tree[:, 2] = np.maximum.accumulate(tree[:, 2])
    return tree


def _joined(graph: csr_array, sizes: NDArray[np.integer], sums: Float) -> tuple[list[list[float]], list[int]]:
    """Join the two nearest neighbours until none are left: rows of the linkage, and the clusters that remain."""
    n = len(sizes)
    weights, totals, members = list(map(float, sizes)), list(sums), [1] * n
    around = [set(graph.indices[a:b].tolist()) for a, b in zip(graph.indptr, graph.indptr[1:], strict=False)]

    def distance(one: int, other: int) -> float:
        a, b = weights[one], weights[other]
        gap = totals[one] / a - totals[other] / b
        return float(np.sqrt(2 * a * b / (a + b) * (gap @ gap)))

    heap = [(distance(one, other), one, other) for one in range(n) for other in around[one] if one < other]
    heapify(heap)
    alive = set(range(n))
    rows: list[list[float]] = []
    while heap:
        height, one, other = heappop(heap)
        if one not in alive or other not in alive:
            continue
        new = n + len(rows)
        alive -= {one, other}
        alive.add(new)
        weights.append(weights[one] + weights[other])
        totals.append(totals[one] + totals[other])
        members.append(members[one] + members[other])
        rows.append([one, other, height, members[new]])
        around.append((around[one] | around[other]) - {one, other})
        for each in around[new]:
            around[each] -= {one, other}
            around[each].add(new)
            heappush(heap, (distance(each, new), each, new))
    return rows, sorted(alive)


def _bridged(
    rows: list[list[float]], roots: list[int], sizes: NDArray[np.integer], centres: Float
) -> list[list[float]]:
    """The rows and those that join what is left by the distance of centres of mass.

    Parameters
    ----------
    centres : ndarray, shape (n, ndim)
        Sums over each segment's voxels of their places in millimetres.
    """
    n = len(sizes)
    weights, totals, members = list(map(float, sizes)), list(centres), [1.0] * n
    for one, other, _, count in rows:
        weights.append(weights[int(one)] + weights[int(other)])
        totals.append(totals[int(one)] + totals[int(other)])
        members.append(count)
    ids, counts = list(roots), [members[root] for root in roots]
    means = np.array([totals[root] / weights[root] for root in roots])
    bridges = []
    for one, other, _, _ in linkage(means, "average"):
        counts.append(counts[int(one)] + counts[int(other)])
        # Their own height is in millimetres; that of the join before takes its place.
        bridges.append([ids[int(one)], ids[int(other)], 0.0, counts[-1]])
        ids.append(n + len(rows) + len(bridges) - 1)
    return rows + bridges
