"""Transforms that MONAI has not, written as MONAI writes them, so that bundles can name them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform, SpatialCrop
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

_LEAST = 2
"""Voxels that a body has along each axis; one is noise."""


class CropToBodyd(MapTransform):
    """Cut an image to the box around the largest thing, its inside included, that is brighter than a threshold.

    With ``threshold=45.5, excludes_end=True`` this is the brain crop of M. A. Habib's brain tumour classifier
    (github.com/MohamedAliHabib/Brain-Tumor-Detection), which was written with OpenCV: grey values, a Gaussian
    filter of 5 pixels, more than 45 after rounding, two erosions, two dilations, the largest contour. Own code and not
    MONAI's `CropForeground`, which takes everything above the threshold and so the letters at the edge too.

    Parameters
    ----------
    keys
        See MONAI's `MapTransform`.
    threshold : float
        What is brighter is body; in CT about -500 HU.
    smoothing : int
        Passes of the filter (1, 2, 1) / 4 along each axis; two of them are OpenCV's Gaussian of 5.
    opening : int
        Erosions, and as many dilations, with cubes of 3 voxels; they remove thin things.
    margin : int
        Voxels around the box.
    excludes_end : bool
        Leave out the last row, column and slice of the box, as the original does.
    allow_missing_keys : bool
        See `MapTransform`.
    """

    def __init__(
        self,
        keys: Any,
        threshold: float = 45.0,
        smoothing: int = 2,
        opening: int = 2,
        margin: int = 0,
        excludes_end: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.threshold, self.smoothing, self.opening = threshold, smoothing, opening
        self.margin, self.excludes_end = margin, excludes_end

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """The images, shape (C, *spatial), cut to the body; whole where nothing is bright enough.

        Raises
        ------
        ValueError
            If almost nothing would be left.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            box = self._box(np.asarray(result[key]))
            if box is not None:
                result[key] = SpatialCrop(roi_start=box[0], roi_end=box[1])(result[key])
        return result

    def _box(self, image: NDArray[Any]) -> tuple[list[int], list[int]] | None:
        grey = _grey(image) if len(image) == 3 else image.mean(0)
        for _ in range(self.smoothing):
            for axis in range(grey.ndim):
                grey = ndimage.convolve1d(grey, np.array([1, 2, 1]) / 4, axis, mode="mirror")
        body = grey > self.threshold
        cube = np.ones((3,) * grey.ndim, bool)
        if self.opening:
            body = ndimage.binary_erosion(body, cube, self.opening, border_value=1)
            body = ndimage.binary_dilation(body, cube, self.opening)
        # By what its outline encloses: a skull is larger than the brain inside.
        parts, count = ndimage.label(ndimage.binary_fill_holes(body), cube)
        if not count:
            return None
        sizes = np.bincount(parts.ravel())[1:]
        box = ndimage.find_objects(parts)[int(sizes.argmax())]
        start = [max(part.start - self.margin, 0) for part in box]
        end = [
            min(part.stop - self.excludes_end + self.margin, length)
            for part, length in zip(box, grey.shape, strict=True)
        ]
        left = [stop - first for first, stop in zip(start, end, strict=True)]
        if min(left) < _LEAST:
            told = " x ".join(map(str, left))
            raise ValueError(f"what is brighter than {self.threshold:g} is only {told} voxels; lower the threshold")
        return start, end


class ReverseChannelsd(MapTransform):
    """Turn the order of channels around: RGB to BGR, which OpenCV reads, and back."""

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """The images, shape (C, *spatial), with the last channel first."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = _with_values(result[key], torch.as_tensor(result[key]).flip(0))
        return result


class RoundToBytesd(MapTransform):
    """Whole numbers from 0 to 255, as in libraries that resize pictures of bytes."""

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """The images with rounded values."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = _with_values(result[key], torch.as_tensor(result[key]).round().clamp(0, 255))
        return result


class ToColoursd(MapTransform):
    """Three channels: one is repeated, and the transparency behind three colours is left out."""

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """The images, shape (3, *spatial)."""
        result = dict(data)
        for key in self.key_iterator(result):
            values = torch.as_tensor(result[key])
            colours = values[:1].expand(3, *values.shape[1:]) if len(values) < 3 else values[:3]
            result[key] = _with_values(result[key], colours.clone())
        return result


class ToGreyd(MapTransform):
    """Colours to one channel: 0.299 red, 0.587 green and 0.114 blue (ITU-R BT.601), as PIL and OpenCV do.

    An image with one channel stays as it is, and transparency is left out.
    """

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """The images, shape (1, *spatial)."""
        result = dict(data)
        for key in self.key_iterator(result):
            values = torch.as_tensor(result[key])
            grey = torch.as_tensor(_grey(np.asarray(values[:3])))[None] if len(values) > 2 else values[:1]
            result[key] = _with_values(result[key], grey)
        return result


def _grey(image: NDArray[Any]) -> NDArray[Any]:
    weights = np.array([0.299, 0.587, 0.114], image.dtype if image.dtype.kind == "f" else np.float32)
    grey: NDArray[Any] = np.tensordot(weights, image, 1)
    return grey


def _with_values(image: Tensor, values: Tensor) -> Tensor:
    """Other values at the same place; MONAI's images carry their place along."""
    plain = values.as_tensor() if isinstance(values, MetaTensor) else values
    return MetaTensor(plain, meta=image.meta) if isinstance(image, MetaTensor) else plain
