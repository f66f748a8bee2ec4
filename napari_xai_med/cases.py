"""From an attribution, or the file of one, and what belongs to it to a case that metrics can judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

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
from napari_xai_med.oblique import oblique_section
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
        What was explained, or the volume that it is a section of; see `napari_xai_med.oblique_section`.
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
    record, given = record or _record_of(attribution), _masks_of(masks)
    image = _as_explained(image, record)
    flat_one = next((each for each in (image, *given.values()) if isinstance(each, Image) and each.ndim == 2), None)
    if record is not None:
        _check_same(record, image, classifier)
    values, grid = _map_of(attribution, flat_one)
    if isinstance(attribution, Attribution):
        regions = regions or attribution.regions
    asked = None
    if image is not None and classifier is not None and record is not None:
        asked = Asked(image, classifier, record.explain_request, regions or Regions())
    return Case(
        values,
        grid,
        {name: _mask_on(grid, image, mask, name, record) for name, mask in given.items()},
        None if image is None else image_on(grid, image),
        asked,
        {name: _same_grid(other, grid, name, flat_one, record) for name, other in (others or {}).items()},
        second,
        _is_bare(grid, image, record),
        Sign(sign),
        seed,
    )


def _masks_of(masks: AnyMasks | None) -> dict[str, Image | NDArray[np.generic]]:
    """Masks by name, read from their files."""
    if masks is None:
        return {}
    given = named(masks if isinstance(masks, Mapping | list | tuple) else [masks], "mask")
    return {name: read_image(mask) if isinstance(mask, str | Path) else mask for name, mask in given.items()}


def _record_of(attribution: AnyMap) -> Record | None:
    """How a map came about, if that is known: for a file's the record that was saved with it says it."""
    if isinstance(attribution, Attribution):
        return attribution.record
    if isinstance(attribution, np.ndarray):
        return None
    source = attribution.source if isinstance(attribution, Image) else str(Path(attribution).expanduser())
    path = Path(source.removesuffix(".gz").removesuffix(".nii") + ".json")
    return Record.read(path) if source and path.is_file() else None


def _as_explained(image: Image | None, record: Record | None) -> Image | None:
    """The section of a volume, where that is what was explained."""
    plane = _plane_of(record)
    if image is None or image.ndim != 3 or plane is None:
        return image
    return oblique_section(image, plane["point"], plane["normal"])[0]


def _map_of(attribution: AnyMap, flat_one: Image | None) -> tuple[Map, Grid]:
    """Values and grid of a map.

    The heatmap of a picture or of an oblique section was saved as a volume of one slice. It is flat again if a picture,
    or the section, goes with it.
    """
    if isinstance(attribution, Attribution):
        return attribution.values, attribution.grid
    if isinstance(attribution, np.ndarray):
        made = Image.from_array(np.zeros(attribution.shape, np.float32))
        # Not by way of an image, which takes no NaN: that a map has some is for the metrics to tell.
        return attribution.astype(np.float32), made.grid
    found = attribution if isinstance(attribution, Image) else read_image(attribution)
    if flat_one is not None and found.ndim == 3:
        found = flat(found) if flat_one.oblique is None else _on_section(found, flat_one, flat_one.oblique.grid)
    if len(found.data) != 1:
        raise InputError(f"{found.name} has {len(found.data)} channels; choose a heatmap, which has one.")
    return found.data[0], found.grid


def _on_section(found: Image, section: Image, plane: Grid) -> Image:
    """A map that was saved where its section lies in the volume, as a map of the section."""
    # Files hold places as float32.
    if found.grid.shape != plane.shape or not np.allclose(found.grid.affine, plane.affine, atol=1e-3):
        raise InputError(f"{found.name} does not lie on the plane that was explained; choose its heatmap.")
    return replace(found, data=found.data[:, 0], grid=section.grid)


def _is_bare(grid: Grid, image: Image | None, record: Record | None) -> bool:
    """Whether it is not known how large a pixel is."""
    if image is not None:
        return image.is_bare
    return np.array_equal(grid.affine, np.eye(3)) and _plane_of(record) is None


def _plane_of(record: Record | None) -> Mapping[str, Any] | None:
    return None if record is None else record.image.get("oblique")


def _mask_on(
    grid: Grid, image: Image | None, mask: Image | NDArray[np.generic], name: str, record: Record | None
) -> Mask:
    """As `mask_on`; a mask of the volume also on an oblique section of it."""
    if _plane_of(record) is None or grid.ndim == 3 or not isinstance(mask, Image) or mask.ndim != 3:
        return mask_on(grid, mask, name)
    if image is None or image.oblique is None:
        raise InputError(f"{called(name)} is of the volume and the map of a plane; give the image as well.")
    return mask_on(image.oblique.grid, mask, name)[0]


def _check_same(record: Record, image: Image | None, classifier: Classifier | None) -> None:
    """Raise an `InputError` if image or classifier are not those that a map came from."""
    for what, given, told in (("image", image, record.image), ("classifier", classifier, record.model)):
        if given is None or given.sha256 == told["sha256"]:
            continue
        if given.name != told["name"]:
            raise InputError(f"The map was not made of the {what} {given.name} but of {told['name']}; give that one.")
        same = "with the same axes, channels and time point" if what == "image" else "with the same weights"
        raise InputError(f"The {what} {given.name} is not as it was when the map was made; give it {same}.")


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


def _same_grid(other: AnyMap, grid: Grid, name: str, flat_one: Image | None, record: Record | None) -> Map:
    theirs = _record_of(other)
    # Sections along different planes may have the same pixels.
    if record is not None and theirs is not None and _plane_of(record) != _plane_of(theirs):
        raise InputError(f"{name} is of another plane than the explanation; explain the same one.")
    values, own = _map_of(other, flat_one)
    if own.shape != grid.shape or not np.allclose(own.affine, grid.affine, atol=1e-4):
        raise InputError(f"{name} is not on the same grid as the explanation; explain the same image, or slice of it.")
    return values
