"""Several images of one patient as the channels of one, such as T1, T2 and FLAIR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from napari_xai_med.errors import InputError
from napari_xai_med.grid import Float, resample_linear
from napari_xai_med.image import Image


def stack_channels(images: Sequence[Image]) -> Image:
    """One image with the channels of all, on the grid of the first.

    The others are resampled linearly by their place in the world. Beyond their edge they have their smallest
    value, which is that of air in CT and of nothing in MRI.

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
    data = [first.data]
    for image in others:
        if image.ndim != first.ndim:
            raise InputError(
                f"{image.name} is {image.ndim}D and {first.name} is {first.ndim}D; give images of one kind."
            )
        if image.grid.shape != first.grid.shape and _is_bare(image) and _is_bare(first):
            sizes = [" x ".join(map(str, one.grid.shape)) for one in (image, first)]
            raise InputError(
                f"{image.name} has {sizes[0]} pixels and {first.name} {sizes[1]}, and neither says how large they are; "
                "give pictures of one size."
            )
        to_image = np.linalg.inv(image.grid.affine) @ first.grid.affine
        if not _overlap(first.grid.shape, to_image, image.grid.shape):
            raise InputError(f"{image.name} lies elsewhere than {first.name}; give images of one patient and place.")
        data.append(_resampled(image, to_image, first.grid.shape))
    notices = tuple(dict.fromkeys(sentence for image in images for sentence in image.notices))
    return replace(
        first,
        data=np.concatenate(data),
        others=tuple(image.source for image in others),
        other_volumes=tuple(image.volume for image in others),
        notices=notices,
    )


def _is_bare(image: Image) -> bool:
    """Whether it is a picture whose place and spacing are not known, but only assumed to be 1."""
    return image.ndim == 2 and np.array_equal(image.grid.affine, np.eye(3))


def _resampled(image: Image, to_image: Float, shape: tuple[int, ...]) -> np.ndarray:
    # The same grid needs no interpolation, which would leave rounding behind.
    if shape == image.grid.shape and np.allclose(to_image, np.eye(len(to_image)), rtol=0, atol=1e-6):
        return image.data
    return np.stack(
        [
            resample_linear(channel, to_image, shape, (to_image, image.grid.shape), float(channel.min()))
            for channel in image.data
        ]
    )


def _overlap(shape: tuple[int, ...], matrix: Float, other: tuple[int, ...]) -> bool:
    """Whether the box around a grid, as seen by another, has a part of that other."""
    corners = np.array(np.meshgrid(*((-0.5, n - 0.5) for n in shape), indexing="ij")).reshape(len(shape), -1)
    seen = matrix[:-1, :-1] @ corners + matrix[:-1, -1:]
    limits = np.array(other) - 0.5
    return bool((seen.max(1) > -0.5).all() and (seen.min(1) < limits).all())
