"""What segmenters share that group voxels by place and intensity."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.errors import InputError
from napari_xai_med.options import option
from napari_xai_med.segments.base import Segmenter, Segments
from napari_xai_med.segments.cleaning import cleaned
from napari_xai_med.segments.part import Part, part_of

_SMALLEST = 0.25
"""Share of the mean size below which a piece is a fragment, if the user says nothing; scikit-image's SLIC has 0.5."""

_USUAL = 100
"""Segments whose mean size counts where no number is asked for."""

_DIFFERS = 0.25
"""Share of the number asked for that may be missing, or too many, without a notice."""


@dataclass(frozen=True)
class Superpixels(Segmenter):
    """Connected segments of at least some size. Subclasses say how voxels are grouped."""

    smoothing: float = option(
        0.0,
        "Standard deviation of a Gaussian that the image is smoothed with first, in millimetres, or in pixels for "
        "pictures.",
        limits=(0.0, None),
    )
    minimum: float = option(
        0.0,
        "Size below which a segment is merged into a neighbour, in millilitres, or square millimetres in 2D, or pixels "
        "for pictures; a quarter of the mean size (of 100 segments, where no number is asked for) if 0.",
        limits=(0.0, None),
    )

    @property
    def asked(self) -> int | None:
        """How many segments the user asks for, if that can be chosen."""
        return None

    @abstractmethod
    def groups(self, part: Part) -> NDArray[np.integer]:
        """Group voxels.

        Returns
        -------
        ndarray of int, shape as the part's mask
            Not negative; what is outside of the mask is ignored, and groups need not be connected.
        """

    def segments(
        self, data: NDArray[np.float32], spacing: Sequence[float], mask: NDArray[np.bool_] | None = None
    ) -> Segments:
        """Connected groups of voxels; see `Segmenter`."""
        if data.ndim - 1 not in self.dims:
            raise InputError(
                f"{self.title} is for images of {min(self.dims)} axes and this one has {data.ndim - 1}; choose SLIC, "
                "watershed or a grid."
            )
        part = part_of(data, spacing, mask, self.smoothing)
        voxel = prod(part.spacing) / (1000 if part.mask.ndim == 3 else 1)
        smallest = self.minimum / voxel if self.minimum else _SMALLEST * part.voxels / (self.asked or _USUAL)
        inside = cleaned(self.groups(part), part, smallest)
        labels = np.zeros(data.shape[1:], np.int32)
        labels[part.place] = inside
        made = int(inside.max())
        below = int(np.count_nonzero(np.bincount(inside.ravel())[1:] < smallest))
        facts: dict[str, Any] = {"made": made, "minimum": smallest * voxel, "below_minimum": below}
        notices = []
        if self.asked is not None:
            facts = {"asked": self.asked} | facts
            if abs(made - self.asked) > _DIFFERS * self.asked:
                notices.append(
                    f"{self.asked} segments were asked for and {made} were made: as many as the mask's parts, the "
                    "smallest size and the image's structures allow."
                )
        if below:
            notices.append(f"{below} of {made} segments are smaller than the smallest size, since they touch no other.")
        return Segments(labels, facts, tuple(notices))


@dataclass(frozen=True)
class Numbered(Superpixels):
    """Segments whose number can be chosen."""

    number: int = option(100, "How many segments to make, about.", limits=(1, None))

    @property
    def asked(self) -> int:
        """As the option says."""
        return self.number

    def groups(self, part: Part) -> NDArray[np.integer]:
        """One group, or a voxel each, or what the subclass finds between these."""
        if self.number == 1:
            return np.ones(part.mask.shape, np.int32)
        if self.number >= part.voxels:
            return np.arange(part.mask.size, dtype=np.int32).reshape(part.mask.shape)
        return self.numbered_groups(part)

    @abstractmethod
    def numbered_groups(self, part: Part) -> NDArray[np.integer]:
        """Make about `number` groups, which is from 2 to the mask's voxels less one; see `groups`."""
