"""Where voxels are: an array's axes in world space.

World coordinates of volumes are RAS millimetres, (right, anterior, superior), as NIfTI and MONAI have
them. A picture without a place in the patient has plane coordinates: (down, right) millimetres.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_xai_med.errors import InputError

Float = NDArray[np.floating[Any]]
Label = TypeVar("Label", bound=np.integer[Any])

DISPLAY_ORIENTATION = ("I", "P", "L")
"""Array axes as napari shows them: slices from head to feet, rows to the back, columns to the left.

Slices then look as radiologists know them in every plane, and napari's 3D view, which takes its axes
(z, y, x) as right-handed, is no mirror image: inferior x posterior = left.
"""

RAS_TO_DISPLAY: Float = np.array([[0, 0, -1, 0], [0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]], float)
"""RAS world coordinates to napari's world, (inferior, posterior, left) millimetres."""


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
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.shape)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance between neighbouring voxel centres along each axis, in world units."""
        return tuple(float(v) for v in np.linalg.norm(self.affine[:-1, :-1], axis=0))

    @property
    def is_oblique(self) -> bool:
        """Whether the array's axes are not parallel to the world's (by more than 0.06 degrees)."""
        cosines = np.abs(self.affine[:-1, :-1]) / np.array(self.spacing)
        return bool((cosines.max(axis=0) < 1 - 5e-7).any())

    def to_world(self, index: ArrayLike) -> Float:
        """World coordinates of array indices, shape (..., ndim)."""
        return np.asarray(index, float) @ self.affine[:-1, :-1].T + self.affine[:-1, -1]

    def to_index(self, world: ArrayLike) -> Float:
        """Array indices of world coordinates, shape (..., ndim)."""
        inverse = np.linalg.inv(self.affine)
        return np.asarray(world, float) @ inverse[:-1, :-1].T + inverse[:-1, -1]

    def slab(self, axis: int, index: int) -> Grid:
        """The grid of the one slice at `index` along `axis`, which keeps its axis with length 1."""
        if not 0 <= index < self.shape[axis]:
            raise InputError(f"Slice {index} is not in the image; choose 0 to {self.shape[axis] - 1}.")
        offset = np.zeros(self.ndim)
        offset[axis] = index
        affine = self.affine.copy()
        affine[:-1, -1] = self.to_world(offset)
        return Grid((*self.shape[:axis], 1, *self.shape[axis + 1 :]), affine)


@dataclass(frozen=True)
class Reorientation:
    """An exact change of a volume's axis order and directions: no voxel's value changes.

    Parameters
    ----------
    order : tuple of int
        `order[k]` is the old axis that becomes axis k.
    flipped : tuple of bool
        Whether new axis k runs against the old one.
    """

    order: tuple[int, ...]
    flipped: tuple[bool, ...]

    @classmethod
    def between(cls, grid: Grid, codes: tuple[str, str, str] = DISPLAY_ORIENTATION) -> Reorientation:
        """The reorientation of a 3D RAS grid to the axis codes that its axes are closest to."""
        from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

        steps = ornt_transform(io_orientation(grid.affine), axcodes2ornt(codes))
        order = np.argsort(steps[:, 0])
        return cls(tuple(int(a) for a in order), tuple(bool(steps[a, 1] < 0) for a in order))

    @property
    def inverse(self) -> Reorientation:
        """The reorientation that takes this one back."""
        order = np.argsort(self.order)
        return Reorientation(tuple(int(a) for a in order), tuple(self.flipped[a] for a in order))

    def array(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """A view of `values` with its last axes reoriented; leading axes (channels) stay."""
        lead = values.ndim - len(self.order)
        moved = values.transpose(*range(lead), *(lead + a for a in self.order))
        ways: tuple[Any, ...] = (..., *(slice(None, None, -1 if f else 1) for f in self.flipped))
        return cast("NDArray[np.generic]", moved[ways])

    def grid(self, grid: Grid) -> Grid:
        """The grid of the reoriented array."""
        shape = tuple(grid.shape[a] for a in self.order)
        to_old = np.zeros((grid.ndim + 1, grid.ndim + 1))
        to_old[-1, -1] = 1
        for new, (old, flip) in enumerate(zip(self.order, self.flipped, strict=True)):
            to_old[old, new] = -1 if flip else 1
            to_old[old, -1] = shape[new] - 1 if flip else 0
        return Grid(shape, grid.affine @ to_old)


def display_matrix(grid: Grid) -> Float:
    """How a 3D grid in display orientation lies in napari's world, without rotation.

    napari slices along its world's axes only. An oblique volume is therefore shown along its own voxel
    axes, true to scale and turned about its centre, which stays where it is.

    Parameters
    ----------
    grid : Grid
        3D, reoriented to `DISPLAY_ORIENTATION`.

    Returns
    -------
    ndarray, shape (4, 4)
        Array index to napari world (inferior, posterior, left) in mm: scale and translation only.
    """
    centre = (np.array(grid.shape) - 1) / 2
    matrix = np.diag([*grid.spacing, 1.0])
    world = RAS_TO_DISPLAY[:3, :3] @ grid.to_world(centre)
    matrix[:3, 3] = world - np.array(grid.spacing) * centre
    return matrix


def resample_linear(
    values: NDArray[np.float32],
    to_values: Float,
    shape: tuple[int, ...],
    frame: tuple[Float, tuple[int, ...]] | None = None,
    outside: float = 0.0,
) -> NDArray[np.float32]:
    """Sample `values` linearly on another grid; beyond the outermost cell centres its edge goes on.

    Linear and never cubic: a cubic spline overshoots and makes evidence that the method did not give.

    Parameters
    ----------
    values : ndarray of float32
        The map on its own grid.
    to_values : ndarray, shape (ndim + 1, ndim + 1)
        Index of the new grid to index of `values`.
    shape : tuple of int
        Shape of the new grid.
    frame : (ndarray, tuple of int), optional
        Index of the new grid to index of a frame, and that frame's shape: the result is `outside` beyond it.
    outside : float

    Returns
    -------
    ndarray of float32, shape `shape`
    """
    from scipy.ndimage import affine_transform

    if _keeps_axes(to_values):
        result = _along_axes(values, to_values, shape)
    else:
        result = affine_transform(values, to_values, output_shape=shape, order=1, mode="nearest")
    if frame is not None:
        _clear_outside(result, *frame, outside)
    return result


def _along_axes(values: NDArray[np.float32], matrix: Float, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Sample linearly one axis after the other, where no axis is turned into several.

    Own code, since SciPy looks at all eight neighbours of each voxel: for a map of 8 x 8 x 4 cells on 128 x 128 x 64
    voxels that took over ten times as long, and most of the time of a Grad-CAM. Tested to give the same to rounding.
    """
    source, positions = _positions(matrix, values.shape, shape)
    result = values.transpose(source)
    # Axes that grow most come last, so that the others are sampled while the array is small.
    for axis in sorted(range(len(shape)), key=lambda k: shape[k] / result.shape[k]):
        position, last = positions[axis], result.shape[axis] - 1
        low = np.floor(position).astype(np.intp)
        high = np.minimum(low + 1, last)
        part = (position - low).astype(np.float32).reshape([-1 if k == axis else 1 for k in range(len(shape))])
        below = result.take(low, axis)
        result = below + part * (result.take(high, axis) - below)
    return np.ascontiguousarray(result, np.float32)


def _keeps_axes(matrix: Float) -> bool:
    """Whether each axis of one grid runs along an axis of the other."""
    return bool((np.count_nonzero(matrix[:-1, :-1], axis=0) == 1).all())


def _positions(matrix: Float, old: tuple[int, ...], new: tuple[int, ...]) -> tuple[list[int], list[Float]]:
    """Which old axis each new one runs along, and where its voxels lie on it; its ends stand for what is beyond."""
    source = np.abs(matrix[:-1, :-1]).argmax(0).tolist()
    places = [matrix[row, axis] * np.arange(new[axis]) + matrix[row, -1] for axis, row in enumerate(source)]
    return source, [np.clip(place, 0, old[row] - 1) for place, row in zip(places, source, strict=True)]


def resample_nearest(labels: NDArray[Label], to_labels: Float, shape: tuple[int, ...]) -> NDArray[Label]:
    """The label of the nearest voxel on another grid; 0 outside of the labels' own.

    Parameters
    ----------
    labels : ndarray of int
    to_labels : ndarray, shape (ndim + 1, ndim + 1)
        Index of the new grid to index of `labels`.
    shape : tuple of int
        Shape of the new grid.

    Returns
    -------
    ndarray of int, shape `shape`
    """
    from scipy.ndimage import affine_transform

    # Halves always go the same way, whatever the last bits of an inverted matrix are.
    matrix = np.array(to_labels)
    matrix[:-1, -1] -= 1e-6
    if _keeps_axes(matrix):
        source, positions = _positions(matrix, labels.shape, shape)
        nearest = [np.floor(position + 0.5).astype(np.intp) for position in positions]
        result = labels.transpose(source)[np.ix_(*nearest)]
    else:
        result = affine_transform(labels, matrix, output_shape=shape, order=0, mode="nearest")
    _clear_outside(result, matrix, labels.shape, 0)
    return result


def _clear_outside(values: NDArray[Any], matrix: Float, frame: tuple[int, ...], outside: float) -> None:
    corners = np.array(list(product(*((0, n - 1) for n in values.shape))), float)
    placed = corners @ matrix[:-1, :-1].T + matrix[:-1, -1]
    for axis, n in enumerate(frame):
        low, high = -0.5 - 1e-6, n - 0.5 + 1e-6
        # The map is linear: corners inside the frame leave nothing to clear on this axis.
        if placed[:, axis].min() >= low and placed[:, axis].max() <= high:
            continue
        position = np.float32(matrix[axis, -1])
        for k, length in enumerate(values.shape):
            step = (matrix[axis, k] * np.arange(length)).astype(np.float32)
            position = position + step.reshape([-1 if j == k else 1 for j in range(values.ndim)])
        values[(position < low) | (position > high)] = outside
