"""An image on a grid: what a classifier gets and what an attribution lies on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.errors import InputError
from napari_xai_med.grid import RAS_TO_DISPLAY, Float, Grid, Reorientation

PLANES = ("axial", "coronal", "sagittal")
"""Names of the slices across axis 0, 1 and 2 of a volume in display orientation."""


@dataclass(frozen=True)
class Oblique:
    """The plane of a volume that an image is a section along; see `napari_xai_med.oblique_section`.

    Parameters
    ----------
    point, normal : tuple of float
        A point of the plane and its direction, in RAS world millimetres.
    grid : Grid
        Where the section's pixels lie in the volume's world, shape (1, rows, columns).
    """

    point: tuple[float, ...]
    normal: tuple[float, ...]
    grid: Grid

    def in_volume(self, to_section: Float, shape: tuple[int, ...]) -> Grid:
        """A grid in the section's plane as a slab in the volume's world.

        Parameters
        ----------
        to_section : ndarray, shape (3, 3)
            Index of that grid to index of the section.
        shape : tuple of int
            (rows, columns).
        """
        lifted = np.eye(4)
        lifted[1:, 1:] = to_section
        return Grid((1, *shape), self.grid.affine @ lifted)

    def to_dict(self) -> dict[str, list[float]]:
        """What makes the same section again, as plain values for a record."""
        return {"point": list(self.point), "normal": list(self.normal)}


@dataclass(frozen=True)
class Image:
    """An array with channels, and the grid that says where its voxels are.

    Parameters
    ----------
    data : ndarray of float32, shape ``(C, *grid.shape)``
        Intensities; CT in Hounsfield units.
    grid : Grid
        3D with RAS world millimetres, or 2D with plane coordinates.
    name : str
        How to call the image in layers, files and sentences.
    source : str
        Path of the file that it was read from, empty if there is none.
    volume : int, optional
        Which volume of a four-dimensional file this is.
    notices : tuple of str
        Sentences that the user should read, such as an orientation that the file does not give.
    others : tuple of str
        Paths of the files that gave the further channels; see `napari_xai_med.channels`.
    other_volumes : tuple of int or None
        Which volume of each of these files, as `volume`.
    oblique : Oblique, optional
        Along which plane of what the files hold this is a section, if it is one.
    of_volume : bool
        Whether it is a slice of a volume, which knows its spacing.

    Raises
    ------
    InputError
        If data and grid do not fit, or a value is not finite.
    """

    data: NDArray[np.float32]
    grid: Grid
    name: str = "image"
    source: str = ""
    volume: int | None = None
    notices: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    other_volumes: tuple[int | None, ...] = ()
    oblique: Oblique | None = None
    of_volume: bool = False

    def __post_init__(self) -> None:
        if self.data.shape[1:] != self.grid.shape or self.data.size == 0:
            raise InputError(f"An image of shape {self.data.shape} does not fit a grid {self.grid.shape}.")
        if self.data.dtype != np.float32:
            object.__setattr__(self, "data", self.data.astype(np.float32))
        # The sum is finite if all values are, and needs no array of flags as large as the image.
        if not np.isfinite(self.data.sum(dtype=np.float64)):
            raise InputError(f"{self.name} has values that are not finite; replace them before you go on.")

    @classmethod
    def from_array(
        cls, array: NDArray[np.generic], spacing: tuple[float, ...] | None = None, *, channel_axis: int | None = None
    ) -> Image:
        """An image from a bare array with axes (Z, Y, X) or (Y, X), as napari shows it.

        Parameters
        ----------
        array : ndarray
            Slices from head to feet, rows to the patient's back, columns to the patient's left.
        spacing : tuple of float, optional
            Millimetres between voxels along each spatial axis; 1 by default.
        channel_axis : int, optional
            Which axis holds channels; none by default.
        """
        data = np.asarray(array, np.float32)
        data = data[np.newaxis] if channel_axis is None else np.moveaxis(data, channel_axis, 0)
        ndim = data.ndim - 1
        if ndim not in (2, 3):
            raise InputError(f"An array of shape {array.shape} is neither a 2D nor a 3D image.")
        affine = np.diag([*(spacing or (1.0,) * ndim), 1.0])
        return cls(data, Grid(data.shape[1:], np.linalg.inv(RAS_TO_DISPLAY) @ affine if ndim == 3 else affine))

    @property
    def ndim(self) -> int:
        """Number of spatial axes: 2 or 3."""
        return self.grid.ndim

    @property
    def is_bare(self) -> bool:
        """Whether it is a picture whose place and spacing are not known, but only assumed to be 1."""
        return self.ndim == 2 and not self.of_volume and np.array_equal(self.grid.affine, np.eye(3))

    @cached_property
    def sha256(self) -> str:
        """Hash of values and grid, which tells whether a record is about this image."""
        digest = hashlib.sha256(np.ascontiguousarray(self.data).tobytes())
        digest.update(repr(self.data.shape).encode() + self.grid.affine.astype(float).tobytes())
        return digest.hexdigest()

    def reoriented(self, turn: Reorientation) -> Image:
        """The same voxels with axes in another order or direction; a view."""
        data = cast("NDArray[np.float32]", turn.array(self.data))
        return replace(self, data=data, grid=turn.grid(self.grid))

    def plane(self, axis: int, index: int) -> Image:
        """The slice at `index` across `axis` of a 3D image, as a 2D image with the in-plane spacing."""
        self.grid.slab(axis, index)
        spacing = [s for k, s in enumerate(self.grid.spacing) if k != axis]
        data = np.take(self.data, index, axis + 1)
        return replace(self, data=data, grid=Grid(data.shape[1:], np.diag([*spacing, 1.0])), of_volume=True)
