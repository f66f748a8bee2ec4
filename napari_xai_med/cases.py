"""From an attribution, or the file of one, and what belongs to it to a case that metrics can judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.attribution import Attribution
from napari_xai_med.errors import InputError
from napari_xai_med.grid import Grid, resample_linear, resample_nearest
from napari_xai_med.image import Image
from napari_xai_med.io import read_image
from napari_xai_med.masks import called, marked
from napari_xai_med.metrics.case import Asked, Case, Map, Mask, Sign, named
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.record import Record
from napari_xai_med.segmenting import AnyLabels, Regions, flat

AnyMasks = AnyLabels | Mapping[str, AnyLabels] | Sequence[AnyLabels]
AnyMap = Attribution | Image | NDArray[np.floating] | str | Path


def case_of(
    attribution: AnyMap,
    masks: AnyMasks | None = None,
    image: Image | None = None,
    classifier: Classifier | None = None,
    others: Mapping[str, AnyMap] | None = None,
    second: Classifier | None = None,
    sign: str = Sign.POSITIVE,
    seed: int = 0,
    regions: Regions | None = None,
    record: Record | None = None,
) -> Case:
    """What metrics look at.

    Parameters
    ----------
    attribution : Attribution, Image, ndarray or path
        The map. One from a file is explained again, where a metric has to, as the record beside it says.
    masks : label map or path, or mapping or sequence of these, optional
        Experts' masks: where they are not 0. Arrays have the map's axes; others lie where their world coordinates
        say, on any grid.
    image : Image, optional
        What was explained.
    classifier : Classifier, optional
        That explained it.
    others : mapping of str to attribution, optional
        Other explanations of the same image.
    second : Classifier, optional
        Trained on shuffled labels.
    sign : {"positive", "negative", "absolute"}
        Which part of the map counts as evidence.
    seed : int
        Of everything that is drawn by chance.
    regions : Regions, optional
        Label maps in memory that the record's request means, where the attribution does not have them.
    record : Record, optional
        How the map came about, where the attribution does not say.

    Raises
    ------
    InputError
        If something does not fit, or lies elsewhere, or the seed is below 0.
    """
    if sign not in list(Sign):
        raise InputError(f"There is no sign {sign!r}; choose one of {', '.join(Sign)}.")
    if seed < 0:
        raise InputError(f"The seed can't be {seed}; give 0 or a whole number above it.")
    given = _masks_of(masks)
    pictures = [each for each in (image, *given.values()) if isinstance(each, Image) and each.ndim == 2]
    values, grid, known = _map_of(attribution, picture=bool(pictures))
    record = record or known
    if isinstance(attribution, Attribution):
        regions = regions or attribution.regions
    asked = None
    if record is not None:
        _check_same(record, image, classifier)
    if image is not None and classifier is not None and record is not None:
        asked = Asked(image, classifier, record.explain_request, regions or Regions())
    return Case(
        values,
        grid,
        {name: mask_on(grid, mask, name) for name, mask in given.items()},
        None if image is None else image_on(grid, image),
        asked,
        {name: _same_grid(other, grid, name, picture=bool(pictures)) for name, other in (others or {}).items()},
        second,
        bool(image is not None and image.is_bare) or (image is None and np.array_equal(grid.affine, np.eye(3))),
        Sign(sign),
        seed,
    )


def _masks_of(masks: AnyMasks | None) -> dict[str, Image | NDArray[np.generic]]:
    """Masks by name, read from their files."""
    if masks is None:
        return {}
    given = named(masks if isinstance(masks, Mapping | list | tuple) else [masks], "mask")
    return {name: read_image(mask) if isinstance(mask, str | Path) else mask for name, mask in given.items()}


def _map_of(attribution: AnyMap, *, picture: bool) -> tuple[Map, Grid, Record | None]:
    """Values, grid and record of a map; no record if it is not known how it came about.

    The heatmap of a picture was saved as a volume of one slice, and is a picture again if that is said.
    """
    if isinstance(attribution, Attribution):
        return attribution.values, attribution.grid, attribution.record
    if isinstance(attribution, np.ndarray):
        made = Image.from_array(np.zeros(attribution.shape, np.float32))
        # Not by way of an image, which takes no NaN: that a map has some is for the metrics to tell.
        return attribution.astype(np.float32), made.grid, None
    found = attribution if isinstance(attribution, Image) else read_image(attribution)
    found = flat(found) if picture and found.ndim == 3 else found
    if len(found.data) != 1:
        raise InputError(f"{found.name} has {len(found.data)} channels; choose a heatmap, which has one.")
    return found.data[0], found.grid, _record_beside(found.source)


def _check_same(record: Record, image: Image | None, classifier: Classifier | None) -> None:
    """Raise an `InputError` if image or classifier are not those that a map came from."""
    for what, given, told in (("image", image, record.image), ("classifier", classifier, record.model)):
        if given is None or given.sha256 == told["sha256"]:
            continue
        if given.name != told["name"]:
            raise InputError(f"The map was not made of the {what} {given.name} but of {told['name']}; give that one.")
        same = "with the same axes, channels and time point" if what == "image" else "with the same weights"
        raise InputError(f"The {what} {given.name} is not as it was when the map was made; give it {same}.")


def _record_beside(source: str) -> Record | None:
    """The record that was saved with a heatmap."""
    path = Path(source.removesuffix(".gz").removesuffix(".nii") + ".json")
    return Record.read(path) if source and path.is_file() else None


def mask_on(grid: Grid, mask: Image | NDArray[np.generic], name: str = "mask") -> Mask:
    """Where a label map is not 0, on another grid: that of its nearest voxel in the world.

    Parameters
    ----------
    grid : Grid
    mask : Image or ndarray
        An array has the grid's own axes.
    name : str
        How to call it in sentences.

    Raises
    ------
    InputError
        If it does not fit the grid, does not overlap it at all, or is no mask.
    """
    if isinstance(mask, np.ndarray):
        if mask.shape != grid.shape:
            raise InputError(f"{called(name)} has shape {mask.shape} and the map {grid.shape}; give one that fits.")
        return marked(mask, name)
    found = mask
    if len(found.data) != 1:
        raise InputError(f"{called(name)} has {len(found.data)} channels; choose one with a single channel.")
    if found.ndim != grid.ndim and grid.ndim == 2:
        found = flat(found)
    if found.ndim != grid.ndim:
        raise InputError(f"{called(name)} is {found.ndim}D and the map is {grid.ndim}D; choose another mask.")
    inside = marked(found.data[0], name)
    if found.grid.shape == grid.shape and np.allclose(found.grid.affine, grid.affine, atol=1e-4):
        return inside
    matrix = np.linalg.inv(found.grid.affine) @ grid.affine
    if not resample_nearest(np.ones(inside.shape, np.uint8), matrix, grid.shape).any():
        raise InputError(
            f"{called(name)} lies beside the map in the patient; choose the mask of this image, or correct its affine."
        )
    return cast("Mask", resample_nearest(inside.astype(np.uint8), matrix, grid.shape) != 0)


def image_on(grid: Grid, image: Image) -> Map:
    """The intensities under a map: the image's own voxels where the map lies on its grid or on a slice of it."""
    if image.ndim != grid.ndim:
        raise InputError(f"The image is {image.ndim}D and the map {grid.ndim}D; give the image that was explained.")
    matrix = np.linalg.inv(image.grid.affine) @ grid.affine
    start = np.rint(matrix[:-1, -1]).astype(int)
    stop = start + grid.shape
    aligned = np.allclose(matrix[:-1], np.column_stack([np.eye(grid.ndim), start]), atol=1e-3)
    if aligned and (start >= 0).all() and (stop <= image.grid.shape).all():
        return image.data[(slice(None), *map(slice, start, stop))]
    return np.stack([resample_linear(channel, matrix, grid.shape) for channel in image.data])


def _same_grid(other: AnyMap, grid: Grid, name: str, *, picture: bool) -> Map:
    values, own, _ = _map_of(other, picture=picture)
    if own.shape != grid.shape or not np.allclose(own.affine, grid.affine, atol=1e-4):
        raise InputError(f"{name} is not on the same grid as the explanation; explain the same image, or slice of it.")
    return values
