"""Segments as a table."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_xai_med.segments.base import Labels

if TYPE_CHECKING:
    from napari_xai_med.explainers.base import Parts


def segments_table(
    labels: Labels,
    data: NDArray[np.float32],
    spacing: Sequence[float] | None = None,
    count: int = 0,
    original: Sequence[int] = (),
) -> pd.DataFrame:
    """Size, intensity and place of each segment.

    Parameters
    ----------
    labels : ndarray of int32, shape (*spatial)
        0 outside of all segments and 1 to n without gaps.
    data : ndarray of float32, shape (C, *spatial)
        The image.
    spacing : sequence of float, optional
        Millimetres between voxels along each axis; None for pictures whose spacing is not known.
    count : int
        Number of segments, of which some may have no voxel; the largest label by default.
    original : sequence of int
        What each segment is called in the label map that it comes from.

    Returns
    -------
    DataFrame
        Row k is label k, 0 included, so that it can be the features of a napari Labels layer. Columns are `segment`;
        `label`, the original one, if there is; `size_mm2` (2D), `size_mL` (3D) or `size_px` (without spacing, in
        voxels); `mean_intensity`, over all channels, and if there are several also that of each, `mean_intensity_0` on;
        and the centre of mass in voxels, `centroid_z` (3D), `centroid_y` and `centroid_x`. Means of a background
        without voxels are NaN.
    """
    flat = labels.ravel().astype(np.intp)
    counts = np.bincount(flat, minlength=count + 1)
    n = len(counts)

    def means(values: NDArray[np.generic]) -> NDArray[np.float64]:
        sums = np.bincount(flat, np.ravel(values), n)
        return np.divide(sums, counts, out=np.full(n, np.nan), where=counts > 0)

    if spacing is None:
        size, voxel = "size_px", 1.0
    else:
        size, voxel = ("size_mm2", prod(spacing)) if labels.ndim == 2 else ("size_mL", prod(spacing) / 1000)
    channels = [means(channel) for channel in data]
    columns = {
        "segment": np.arange(n),
        **({"label": [0, *original]} if original else {}),
        size: counts * voxel,
        "mean_intensity": np.mean(channels, axis=0),
    }
    if len(channels) > 1:
        columns |= {f"mean_intensity_{k}": each for k, each in enumerate(channels)}
    places = np.meshgrid(*map(np.arange, labels.shape), indexing="ij", copy=False)
    columns |= {f"centroid_{axis}": means(place) for axis, place in zip("zyx"[-labels.ndim :], places, strict=True)}
    return pd.DataFrame(columns)


def contributions_table(
    labels: Labels,
    data: NDArray[np.float32],
    spacing: Sequence[float] | None,
    parts: Parts,
    original: Sequence[int] = (),
) -> pd.DataFrame:
    """The same with what each segment contributes.

    Parameters
    ----------
    labels, data, spacing, original
        As for `segments_table`.
    parts : Parts
        The contributions.

    Returns
    -------
    DataFrame
        With the further columns `contribution`, `standard_error` and `rank`: 1 for the largest absolute contribution.
        NaN for the background, and the lowest rank, 0.
    """
    table = segments_table(labels, data, spacing, len(parts.values), original)
    table["contribution"] = np.concatenate([[np.nan], parts.values])
    table["standard_error"] = np.concatenate([[np.nan], parts.errors])
    order = np.argsort(-np.abs(parts.values), kind="stable")
    ranks = np.zeros(len(order) + 1, int)
    ranks[order + 1] = np.arange(1, len(order) + 1)
    table["rank"] = ranks
    return table
