"""NIfTI and Analyze files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.errors import InputError, told_as
from napari_xai_med.grid import Float, Grid
from napari_xai_med.image import Image
from napari_xai_med.io.claims import check_claim

NIFTI_SUFFIXES = (".nii", ".nii.gz", ".hdr", ".img")

_MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001}


@dataclass(frozen=True)
class Volumes:
    """What a NIfTI file holds: one or more volumes, or a volume of colours, on one grid.

    Parameters
    ----------
    data : ndarray, shape (T, C, *grid.shape)
        Scaled values (Hounsfield units for CT) in the smallest type that holds them.
    grid : Grid
        In the file's own axis order.
    notices : tuple of str
        What the user should know about the file.
    """

    data: NDArray[np.generic]
    grid: Grid
    notices: tuple[str, ...]


def stem(path: Path) -> str:
    """The file's name without .nii, .nii.gz and the like."""
    return path.name.removesuffix(".gz").rsplit(".", 1)[0]


def read_nifti(path: Path, volume: int | None = None) -> Image:
    """Read one volume; see `napari_xai_med.io.read_image`."""
    volumes = read_volumes(path)
    count = len(volumes.data)
    if volume is None and count > 1:
        raise InputError(f"{path.name} holds {count} volumes; choose one from 0 to {count - 1}.")
    index = volume or 0
    if not 0 <= index < count:
        raise InputError(f"{path.name} has no volume {index}; choose one from 0 to {count - 1}.")
    data = volumes.data[index].astype(np.float32)
    chosen = index if count > 1 else None
    return Image(data, volumes.grid, stem(path), str(path), chosen, volumes.notices)


def read_volumes(path: Path) -> Volumes:
    """Read everything in a NIfTI or Analyze file, with its scaling applied.

    Raises
    ------
    InputError
        If the file is damaged or has no spatial volume.
    """
    import nibabel

    with told_as(InputError, f"{path.name} can't be read as NIfTI or Analyze: {{}}"):
        file: Any = nibabel.load(path)
        stored = Path(file.file_map["image"].filename or path)
        check_claim(math.prod(file.shape) * file.get_data_dtype().itemsize, stored)
        values = np.asanyarray(file.dataobj)
    data = _with_channels(values)
    if data.ndim != 5 or data.size == 0:
        raise InputError(f"{path.name} has shape {values.shape}, which is not a volume or a series of volumes.")
    if not np.isfinite(data.sum(dtype=np.float64)):
        raise InputError(f"{path.name} has values that are not finite; replace them before you go on.")
    affine, notices = _affine(file)
    return Volumes(data, Grid(data.shape[2:], affine), notices)


def _with_channels(values: NDArray[Any]) -> NDArray[Any]:
    """To axes (T, C, I, J, K): NIfTI has I, J, K, then time, then a vector; colours are a compound type."""
    colours = values.dtype.names or ()
    if values.dtype == np.float64:
        values = values.astype(np.float32)
    while values.ndim > 4 and values.shape[-1] == 1:
        values = values[..., 0]
    while values.ndim < (4 if colours else 5):
        values = values[..., np.newaxis]
    if colours:
        values = np.stack([values[name] for name in colours[:3]], axis=-1)
    return values.transpose(3, 4, 0, 1, 2) if values.ndim == 5 else values


def _affine(file: Any) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    header, affine, notices = file.header, np.array(file.affine, float), []
    codes = [int(header[name]) for name in ("sform_code", "qform_code") if name in header]
    if not any(codes):
        notices.append("The file does not say how the patient lies; left and right may be swapped.")
    if "xyzt_units" in header:
        affine[:3] *= _MILLIMETRES.get(header.get_xyzt_units()[0], 1.0)
    return affine, tuple(notices)


def save_nifti(path: Path, values: NDArray[np.generic], grid: Grid, description: str = "") -> None:
    """Write values on a grid as NIfTI-1, in millimetres.

    Parameters
    ----------
    path : Path
        Ends in .nii or .nii.gz.
    values : ndarray, shape `grid.shape`, or (volumes, *grid.shape) for a four-dimensional file
        Written in their own type, unscaled.
    grid : Grid
        3D in RAS millimetres; of a 2D grid only the spacing can be kept.
    description : str
        At most 79 ASCII characters for the header.
    """
    import nibabel

    affine = grid.affine if grid.ndim == 3 else _plane_affine(grid)
    shape = grid.shape if grid.ndim == 3 else (1, *grid.shape)
    values = np.moveaxis(values, 0, -1) if values.ndim > grid.ndim else values
    file = nibabel.Nifti1Image(values.reshape(*shape, *values.shape[grid.ndim :]), affine)
    file.header.set_xyzt_units("mm")
    file.header["descrip"] = description.encode("ascii", "replace")[:79]
    file.set_sform(affine, code=1)
    # A q-form holds no shear: nibabel then keeps the nearest rotation, and readers prefer the s-form.
    file.set_qform(affine, code=1, strip_shears=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(file, path)
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror or error}.") from error


def _plane_affine(grid: Grid) -> Float:
    """A 2D picture as one slice: rows to the back, columns to the left, as it is displayed."""
    from napari_xai_med.grid import RAS_TO_DISPLAY

    matrix = np.eye(4)
    matrix[1:3, 1:3] = grid.affine[:2, :2]
    matrix[1:3, 3] = grid.affine[:2, 2]
    return np.linalg.inv(RAS_TO_DISPLAY) @ matrix
