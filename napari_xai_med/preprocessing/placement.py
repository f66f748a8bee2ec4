"""Whether a preprocessing tells where its voxels go.

MONAI's transforms carry an affine along, and a map comes back by it. A function of somebody's own, or a transform such
as `Transposed`, can turn the image and leave the affine as it was, which no shape need show. So a made-up image is
changed at one place, and the change has to be where the affine says.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from napari_xai_med.errors import XAIMedError

if TYPE_CHECKING:
    from torch import Tensor

    from napari_xai_med.grid import Float

_PLACES = {2: ((100, 110), (43, 62)), 3: ((40, 44, 48), (15, 25, 32))}
"""Shape of the made-up image by its number of axes, and the voxel that is changed: on no axis the middle."""

_NEARER = (1.0, 0.5, 0.25)
"""Shares of the way from the middle to that voxel: what was cut off tells nothing."""

_WIDTH = 2.5
"""Of the change, in voxels: enough to be seen where the image is made much smaller."""

_LEVELS = ((100.0, 10.0), (0.5, 0.05), (-600.0, 60.0))
"""Middle and spread of the values, one of which most windows let through: CT and pictures, 0 to 1, lung."""

_SLACK = 1.0
"""How far off the change may be, in voxels of the image and again in those of the result."""

# What a transform raises for an image that it can't take.
_FAILURES = (XAIMedError, RuntimeError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, OSError)


def misplaces(preprocessing: Callable[[Tensor], Tensor], channels: int, affine: Float) -> bool:
    """Whether voxels are elsewhere than the affine of the result says.

    Parameters
    ----------
    preprocessing : callable
        From a channel-first MetaTensor to another.
    channels : int
        Of the images that it takes.
    affine : ndarray, shape (ndim + 1, ndim + 1)
        Of such an image.

    Returns
    -------
    bool
        False also where that can't be told, such as by transforms that answer at random.
    """
    import torch
    from monai.data import MetaTensor

    def result(values: Float) -> tuple[Float, Float]:
        image = MetaTensor(torch.as_tensor(values, dtype=torch.float32), affine=torch.as_tensor(np.array(affine)))
        made = preprocessing(image)
        if not isinstance(made, MetaTensor):
            raise TypeError("an image without an affine")
        return made.as_tensor().double().numpy(), np.linalg.inv(affine) @ made.affine.numpy()

    with warnings.catch_warnings():
        # What is said about the made-up image is not for the user.
        warnings.simplefilter("ignore")
        try:
            for share, level in product(_NEARER, _LEVELS):
                place = _place(len(affine) - 1, share)
                plain, changed = _pair(channels, place, *level)
                (before, _), (after, to_image) = result(plain), result(changed)
                seen = np.abs(after - before).max() > 1e-6 * np.abs(before).max()
                if seen and _is_inside(place, to_image, after.shape[1:]):
                    return _is_elsewhere(after - before, to_image, place) and np.array_equal(result(plain)[0], before)
        except _FAILURES:
            return False
    return False


def _place(ndim: int, share: float) -> Float:
    shape, farthest = (np.array(numbers, float) for numbers in _PLACES[ndim])
    middle = (shape - 1) / 2
    return middle + share * (farthest - middle)


def _pair(channels: int, place: Float, middle: float, spread: float) -> tuple[Float, Float]:
    """A made-up image, shape (channels, *spatial), and the same with a change at one place."""
    ndim = len(place)
    shape = _PLACES[ndim][0]
    plain = np.random.default_rng(0).uniform(middle - spread, middle + spread, (channels, *shape))
    # The smallest and largest value stay, so that scaling by them changes nothing elsewhere.
    for sign, corner in ((-1, slice(0, 3)), (1, slice(-3, None))):
        plain[(slice(None), *(corner,) * ndim)] = middle + sign * 6 * spread
    index = np.indices(shape) - place.reshape(-1, *(1,) * ndim)
    bump = np.exp(-(index**2).sum(0) / (2 * _WIDTH**2))
    return plain, plain - 4 * spread * bump


def _is_inside(place: Float, to_image: Float, shape: tuple[int, ...]) -> bool:
    index = np.linalg.solve(to_image, [*place, 1.0])[:-1]
    return bool((index >= 0).all() and (index <= np.array(shape) - 1).all())


def _is_elsewhere(change: Float, to_image: Float, place: Float) -> bool:
    sizes = np.abs(change).sum(0)
    # Scaling by mean and deviation changes a little everywhere.
    weights = np.clip(sizes - sizes.max() / 2, 0, None)
    index = np.nonzero(weights)
    places, weights = to_image[:-1, :-1] @ np.stack(index) + to_image[:-1, -1:], weights[index]
    centre = np.average(places, 1, weights)
    spread = np.sqrt(np.average(((places - centre[:, None]) ** 2).sum(0), 0, weights))
    voxel = np.linalg.norm(to_image[:-1, :-1], axis=0).max()
    # What changes here and there has no place that could be wrong.
    concentrated = spread < 2 * _WIDTH + voxel
    return bool(concentrated and np.linalg.norm(centre - place) > _SLACK * (1 + voxel))
