"""Where voxels are: an array's axes in world space.

World coordinates are RAS millimetres, (right, anterior, superior), as NIfTI and MONAI have them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_xai_med.errors import InputError

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """A regular grid of voxels in world space.

    Parameters
    ----------
    shape : tuple of int
        Number of voxels along each array axis.
    affine : ndarray, shape (ndim + 1, ndim + 1)
        Maps an array index (voxel centre, in the array's own axis order) to world coordinates.

    Raises
    ------
    InputError
        If the affine's size does not fit the shape, or it can't be inverted.
    """

    shape: tuple[int, ...]
    affine: Float

    def __post_init__(self) -> None:
        n = len(self.shape) + 1
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (n, n):
            raise InputError(f"A grid of shape {self.shape} needs a {n}x{n} affine, not {affine.shape}.")
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12:
            raise InputError("The image's affine is not invertible; correct the file's orientation fields.")
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.shape)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance between neighbouring voxel centres along each axis, in world units."""
        return tuple(float(v) for v in np.linalg.norm(self.affine[:-1, :-1], axis=0))

    def to_world(self, index: ArrayLike) -> Float:
        """World coordinates of array indices, shape (..., ndim)."""
        return cast(Float, np.asarray(index, float) @ self.affine[:-1, :-1].T + self.affine[:-1, -1])

    def to_index(self, world: ArrayLike) -> Float:
        """Array indices of world coordinates, shape (..., ndim)."""
        inverse = np.linalg.inv(self.affine)
        return cast(Float, np.asarray(world, float) @ inverse[:-1, :-1].T + inverse[:-1, -1])
