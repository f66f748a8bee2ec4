"""Several images of one patient as the channels of one, such as T1, T2 and FLAIR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from napari_xai_med.errors import InputError
from napari_xai_med.grid import Float, resample_linear
from napari_xai_med.image import Image

_UNTOLD = 0.01
"""Share of the first image that another may leave uncovered without a word, such as a rim of half a voxel."""


def stack_channels(images: Sequence[Image]) -> Image:
    """One image with the channels of all, on the grid of the first.

    The others are resampled linearly by their place in the world. Beyond their edge they have their smallest
    value, which is that of air in CT and of nothing in MRI; a notice tells where that is much.

    Parameters
    ----------
    images : sequence of Image
        In the order of the network's channels; all 2D or all 3D.

    Raises
    ------
    InputError
        If there is none, their numbers of axes differ, one does not overlap the first at all, or pictures of
        different sizes do not say how large a pixel is.
    """
    if not images:
        raise InputError("There is no image; give at least one.")
    first, *others = images
    if not others:
        return first
    data, told = [first.data], list[str]()
    for image in others:
        if image.ndim != first.ndim:
            raise InputError(
                f"{image.name} is {image.ndim}D and {first.name} is {first.ndim}D; give images of one kind."
            )
        if image.grid.shape != first.grid.shape and image.is_bare and first.is_bare:
            sizes = [" x ".join(map(str, one.grid.shape)) for one in (image, first)]
            raise InputError(
                f"{image.name} has {sizes[0]} pixels and {first.name} {sizes[1]}, and neither says how large they are; "
                "give pictures of one size."
            )
        to_image = np.linalg.inv(image.grid.affine) @ first.grid.affine
        if not _overlap(first.grid.shape, to_image, image.grid.shape):
            raise InputError(f"{image.name} lies elsewhere than {first.name}; give images of one patient and place.")
        channels, filled = _resampled(image, to_image, first.grid.shape)
        data.append(channels)
        if filled > _UNTOLD:
            told.append(
                f"{image.name} does not cover {filled:.0%} of {first.name}; there the network sees its smallest value."
            )
    notices = tuple(dict.fromkeys((*(sentence for image in images for sentence in image.notices), *told)))
    return replace(
        first,
        data=np.concatenate(data),
        others=tuple(image.source for image in others),
        other_volumes=tuple(image.volume for image in others),
        notices=notices,
    )


def _resampled(image: Image, to_image: Float, shape: tuple[int, ...]) -> tuple[np.ndarray, float]:
    """Its channels on another grid, and the share of that grid that lies beyond its edge."""
    # The same grid needs no interpolation, which would leave rounding behind.
    if shape == image.grid.shape and np.allclose(to_image, np.eye(len(to_image)), rtol=0, atol=1e-6):
        return image.data, 0.0
    data = np.stack(
        [
            resample_linear(channel, to_image, shape, (to_image, image.grid.shape), float(channel.min()))
            for channel in image.data
        ]
    )
    # Ones within the edge, and zeros beyond it.
    inside = resample_linear(np.ones(image.grid.shape, np.float32), to_image, shape, (to_image, image.grid.shape), 0.0)
    return data, 1 - float((inside > 0).mean())


def _overlap(shape: tuple[int, ...], matrix: Float, other: tuple[int, ...]) -> bool:
    """Whether the box around a grid, as seen by another, has a part of that other."""
    corners = np.array(np.meshgrid(*((-0.5, n - 0.5) for n in shape), indexing="ij")).reshape(len(shape), -1)
    seen = matrix[:-1, :-1] @ corners + matrix[:-1, -1:]
    limits = np.array(other) - 0.5
    return bool((seen.max(1) > -0.5).all() and (seen.min(1) < limits).all())
