"""A slice of a volume along any plane, as a picture, and where it lies in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from napari_xai_med.errors import InputError
from napari_xai_med.grid import RAS_TO_DISPLAY, Float, Grid, resample_linear
from napari_xai_med.image import Image, Oblique

_OBLIQUE = ", oblique"


def oblique_section(image: Image, point: Sequence[float], normal: Sequence[float]) -> tuple[Image, Grid]:
    """The slice of a volume along a plane, linearly resampled. Research use only. Not for diagnosis.

    Its rows and columns lie as in the axial, coronal or sagittal slice that is nearest to it, so that a 2D classifier
    sees the patient as it is used to. What lies outside of the volume has each channel's smallest value.

    Parameters
    ----------
    image : Image
        3D.
    point : sequence of float, length 3
        RAS world millimetres of any point of the plane.
    normal : sequence of float, length 3
        Its direction, of any length and either sign, in the same world.

    Returns
    -------
    (Image, Grid)
        A 2D image whose pixels are squares of the volume's smallest spacing, and a grid of shape (1, rows, columns)
        that says where its pixels lie in the volume's world: for a map of the section, or the section as a layer.

    Raises
    ------
    InputError
        If the image is no volume, the normal has no direction, or the plane passes the volume by.
    """
    if image.ndim != 3:
        raise InputError(f"{image.name} is {image.ndim}D and has no oblique slices; choose a volume.")
    plane = oblique_plane(image.grid, point, normal)
    grid = plane.grid
    to_image = np.linalg.inv(image.grid.affine) @ grid.affine
    frame = (to_image, image.grid.shape)
    data = np.stack([resample_linear(c, to_image, grid.shape, frame, float(c.min()))[0] for c in image.data])
    step = min(image.grid.spacing)
    flat = Grid(grid.shape[1:], np.diag([step, step, 1.0]))
    name = f"{image.name}{_OBLIQUE}"
    return replace(image, data=data, grid=flat, name=name, oblique=plane, of_volume=True), grid


def name_of_volume(section: str) -> str:
    """The name of the volume that a section is of, by the section's own."""
    return section.removesuffix(_OBLIQUE)


def oblique_plane(grid: Grid, point: Sequence[float], normal: Sequence[float]) -> Oblique:
    """Where the pixels of a volume's section lie; parameters and errors as for `oblique_section`.

    Parameters
    ----------
    grid : Grid
        The volume's.
    point, normal
        As for `oblique_section`.
    """
    place, across = np.asarray(point, float), np.asarray(normal, float)
    length = float(np.linalg.norm(across))
    if place.shape != (3,) or across.shape != (3,) or not np.isfinite([*place, *across]).all() or not length:
        raise InputError(f"No plane goes through {point} across {normal}; give three numbers each, not all zero.")
    axes = _axes(across / length)
    # The plane's own coordinates, in millimetres, of where it leaves the volume.
    corners = (_crossings(grid, place, axes[0]) - place) @ axes[1:].T
    if not len(corners):
        raise InputError("The plane passes the volume by; choose a point inside of it.")
    step = min(grid.spacing)
    low, high = corners.min(0), corners.max(0)
    shape = tuple(max(1, round(float(n))) for n in (high - low) / step)
    # The pixels' outer edges are centred on the volume's: centres lie half a pixel inside.
    first = (low + high) / 2 - (np.array(shape) - 1) / 2 * step
    affine = np.eye(4)
    affine[:3, :3] = axes.T * step
    affine[:3, 3] = place + first @ axes[1:]
    return Oblique(tuple(place.tolist()), tuple(across.tolist()), Grid((1, *shape), affine))


def _axes(normal: Float) -> Float:
    """Unit vectors from slice to slice, down the rows and along the columns, as in the nearest plane of display."""
    shown = RAS_TO_DISPLAY[:3, :3]
    nearest = int(np.abs(shown @ normal).argmax())
    across = normal * np.sign(shown[nearest] @ normal)
    rows, columns = (shown[k] for k in range(3) if k != nearest)
    along = columns - (columns @ across) * across
    along /= np.linalg.norm(along)
    down = np.cross(across, along)
    return np.stack([across, down * np.sign(down @ rows), along])


def _crossings(grid: Grid, point: Float, normal: Float) -> Float:
    """Where a plane crosses the edges of the box around a grid's voxels, shape (crossings, 3)."""
    corners = np.array(list(product(*((-0.5, n - 0.5) for n in grid.shape))))
    world = grid.to_world(corners)
    heights = (world - point) @ normal
    found = [world[k] for k in range(8) if heights[k] == 0]
    for a, b in product(range(8), range(8)):
        if a < b and (corners[a] != corners[b]).sum() == 1 and heights[a] * heights[b] < 0:
            share = heights[a] / (heights[a] - heights[b])
            found.append(world[a] + share * (world[b] - world[a]))
    return np.array(found).reshape(-1, 3)
