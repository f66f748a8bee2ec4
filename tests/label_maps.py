"""Images with a known structure, and what holds for every label map."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def texture(shape: tuple[int, ...], channels: int = 1, seed: int = 0) -> NDArray[np.float32]:
    """Smooth noise, some voxels wide, in the range of CT."""
    random = np.random.default_rng(seed)
    sigma = (0, *(2 for _ in shape))
    return (1000 * ndimage.gaussian_filter(random.normal(size=(channels, *shape)), sigma)).astype(np.float32)


def ball(shape: tuple[int, ...], share: float = 0.4) -> NDArray[np.bool_]:
    """An ellipsoid in the middle, its half axes that share of the image's sides."""
    places = [(i - (n - 1) / 2) / max(n * share, 0.5) for i, n in zip(np.indices(shape), shape, strict=True)]
    return np.sum(np.square(places), axis=0) <= 1


def check_labels(labels: NDArray[Any], mask: NDArray[np.bool_]) -> None:
    """1 to n without gaps, exactly inside of the mask, each in one piece."""
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels > 0, mask)
    assert set(np.unique(labels)) - {0} == set(range(1, labels.max() + 1))
    for k, place in enumerate(ndimage.find_objects(labels), start=1):
        assert ndimage.label(labels[place] == k)[1] == 1
