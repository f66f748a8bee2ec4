"""How alike two maps are, and maps that are alike by nothing but their smoothness and their values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import nan
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from napari_xai_med.metrics.case import Mask
from napari_xai_med.metrics.thinning import every_nth

Real = TypeVar("Real", bound=np.floating[Any])
Numbers = NDArray[np.floating[Any]]

Similarities = dict[str, float | str]
"""By name: a number, or in one sentence why there is none."""

NAMES = ("ssim", "spearman", "spearman_absolute", "hog")
"""What `similarities` gives."""

MOST = 2**16
"""Voxels that are compared at most: more of them make no estimate of likeness better, and filters take minutes."""

_SLICES = 8
"""Slices of a volume that gradients are counted in, at most."""
_CELLS = 8
"""Cells along the shorter side of a slice; Adebayo et al. have 14 along one of 224 pixels."""
_LINE = "The map has one voxel along all axes but one, too few to compare structures."
_WINDOW = 7
"""Voxels along each side of the window of structural similarity, as scikit-image has it."""


def why_not(values: Numbers) -> str:
    """Why a map can't be compared with others, in one sentence; empty if it can."""
    if count := int(np.count_nonzero(~np.isfinite(values))):
        return f"{count} voxels of the map are not finite."
    if values.min() == values.max():
        return f"The map is {float(values.flat[0]):g} everywhere, so that it is like no other."
    return ""


def thinned(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Every n-th voxel along each axis, so that at most `MOST` are left; axes of length 1 are taken away."""
    flat = np.atleast_1d(np.squeeze(values))
    return flat[every_nth(flat.shape, MOST)]


def rank_correlation(one: Numbers, other: Numbers) -> float | str:
    """Spearman's correlation between the values of two maps, or why there is none."""
    if reason := why_not(one) or why_not(other):
        return reason
    return float(spearmanr(one.ravel(), other.ravel()).statistic)


def similarities(one: Numbers, other: Numbers, inside: Mask | None = None) -> Similarities:
    """How alike two maps are, by the measures of Adebayo et al. 2018.

    Parameters
    ----------
    one, other : ndarray of float32, shape (*spatial)
        With their signs.
    inside : ndarray of bool, shape (*spatial), optional
        Where both are known; everywhere by default.

    Returns
    -------
    mapping of str to float or str
        ``"ssim"``: mean structural similarity of the absolute maps, each divided by its maximum. ``"spearman"`` and
        ``"spearman_absolute"``: rank correlation of the values, with and without their signs. ``"hog"``: Pearson's
        correlation of the histograms of oriented gradients of the absolute maps; those of a volume are counted in
        slices across its shortest axis. All are at most 1. Where one is not defined, because a map is constant, not
        finite or too small, the reason stands in its place.

    References
    ----------
    Adebayo et al. 2018, Sanity checks for saliency maps, NeurIPS, arXiv:1810.03292.
    Wang et al. 2004, Image quality assessment, IEEE TIP, doi:10.1109/TIP.2003.819861.
    """
    known = None if inside is None else np.asarray(thinned(inside), bool)
    pair = [np.asarray(thinned(values), np.float64) for values in (one, other)]
    seen = [values if known is None else values[known] for values in pair]
    if any(values.size == 0 for values in seen):
        return dict.fromkeys(NAMES, "The maps have no voxel in common.")
    if reason := why_not(seen[0]) or why_not(seen[1]):
        return dict.fromkeys(NAMES, reason)
    sizes = [np.abs(values) / np.abs(values).max() for values in seen]
    if known is not None:
        # Where one of them is not known both are nothing.
        full = [np.zeros_like(values) for values in pair]
        for values, size in zip(full, sizes, strict=True):
            values[known] = size
    else:
        full = sizes
    return {
        "ssim": _structural(full[0], full[1], known),
        "spearman": rank_correlation(seen[0], seen[1]),
        "spearman_absolute": rank_correlation(sizes[0], sizes[1]),
        "hog": _gradients(full[0], full[1]),
    }


def _structural(one: NDArray[np.float64], other: NDArray[np.float64], known: Mask | None) -> float | str:
    from skimage.metrics import structural_similarity

    if one.ndim < 2:
        return _LINE
    window = min(_WINDOW, (min(one.shape) - 1) // 2 * 2 + 1)
    if window < 3:
        return "The map has fewer than 3 voxels along an axis, too few for structural similarity."
    mean, local = structural_similarity(one, other, win_size=window, data_range=1.0, full=True)
    return float(mean if known is None else local[known].mean())


def _gradients(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | str:
    from skimage.feature import hog

    if one.ndim < 2:
        return _LINE
    planes = []
    for values in (one, other):
        across = int(np.argmin(values.shape))
        stack = values[None] if values.ndim == 2 else np.moveaxis(values, across, 0)
        planes.append(stack[:: -(-len(stack) // _SLICES)])
    side = min(planes[0].shape[1:])
    if side < 4:
        return "The map has fewer than 4 voxels along a side, too few for histograms of gradients."
    cell = max(2, side // _CELLS)
    found = [
        np.concatenate([hog(plane, 8, (cell, cell), (1, 1)) for plane in stack]).astype(np.float64) for stack in planes
    ]
    if any(np.ptp(features) == 0 for features in found):
        return "A map has the same gradients everywhere, so that these can't be compared."
    return float(np.corrcoef(found[0], found[1])[0, 1])


def moved_copies(values: NDArray[Real], number: int, seed: int, *, anywhere: bool = False) -> Iterator[NDArray[Real]]:
    """The same map elsewhere: mirrored at random, and moved round by a quarter to three quarters of each axis.

    They have the map's own values and smoothness, but nothing to do with its place: what is as alike as they are is
    not alike at all. Arun et al. 2021 take maps of other patients for that, of which there are none here.

    Parameters
    ----------
    values : ndarray of float
    number : int
    seed : int
    anywhere : bool
        Whether to move them by any length instead, none included: all these moves are a group, and a permutation test
        by them is exact for maps that are alike everywhere and go round.

    References
    ----------
    Arun et al. 2021, Assessing the trustworthiness of saliency maps for localizing abnormalities in medical imaging,
    Radiology: Artificial Intelligence, doi:10.1148/ryai.2021200267.
    """
    random = np.random.default_rng(seed)
    axes = [axis for axis, n in enumerate(values.shape) if n > 1]
    for _ in range(number):
        mirrored = [axis for axis in axes if random.random() < 0.5]
        lengths = [values.shape[axis] for axis in axes]
        limits = [(0, n) if anywhere else (max(n // 4, 1), max(n - n // 4, 2)) for n in lengths]
        steps = [int(random.integers(*pair)) for pair in limits]
        yield np.roll(np.flip(values, tuple(mirrored)), steps, axes)


def mean_and_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean, and its 95 % confidence interval by Student's t; the latter NaN for fewer than three values."""
    from scipy.stats import sem, t

    mean = float(np.mean(values))
    if len(values) < 3:
        return mean, nan, nan
    half = float(sem(values) * t.ppf(0.975, len(values) - 1))
    return mean, mean - half, mean + half
