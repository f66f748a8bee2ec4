"""From what a request says about segments to segments of what the network sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.attribution import SegmentMap
from napari_xai_med.errors import InputError
from napari_xai_med.grid import RAS_TO_DISPLAY, Float, Grid, Reorientation, resample_nearest
from napari_xai_med.image import Image
from napari_xai_med.io import read_label_map
from napari_xai_med.job import Job
from napari_xai_med.masks import marked
from napari_xai_med.models.classifier import Classifier, NetworkInput
from napari_xai_med.pipeline import grid_in_world
from napari_xai_med.request import ExplainRequest
from napari_xai_med.section import Section, as_asked
from napari_xai_med.segments.base import Segments, make_segmenter
from napari_xai_med.segments.body import body_mask
from napari_xai_med.segments.choice import BODY, DRAWN, GIVEN, SegmentChoice
from napari_xai_med.segments.given import given_segments
from napari_xai_med.segments.table import segments_table

_EXACT = 2**24
"""Images hold float32, which has all whole numbers below this one."""


@dataclass(frozen=True)
class Regions:
    """Label maps in memory that a request means.

    Parameters
    ----------
    labels : Image, optional
        Drawn segments, in any grid of the image's world.
    mask : Image, optional
        Where segments may be: where it is not 0.
    """

    labels: Image | None = None
    mask: Image | None = None


AnyLabels = Image | NDArray[np.generic] | str | Path
AnySegments = AnyLabels | Mapping[str, Any]


def choice_of(
    segments: AnySegments | None, mask: AnyLabels | None, image: Image
) -> tuple[SegmentChoice | None, Regions]:
    """What a script says about segments, as a request has it.

    Parameters
    ----------
    segments : str, path, mapping, Image or ndarray, optional
        A segmenter's name, such as ``"slic"``; its name and options, such as ``{"method": "slic", "number": 50}``; or
        a label map, as a file or in memory. With ``{"labels": label map, "background": True}`` 0 is one more segment.
    mask : str, path, Image or ndarray, optional
        Where segments may be: a label map, or ``"body"``.
    image : Image
        Arrays are on its grid.
    """
    if segments is None and mask is None:
        return None, Regions()
    told: Mapping[str, Any] = segments if isinstance(segments, Mapping) else {}
    drawn = told.get("labels") if told else segments
    known = in_memory(drawn, image), in_memory(mask, image)
    where = GIVEN if known[1] is not None else str(mask or "")
    if known[0] is not None:
        told = {**told, "labels": GIVEN}
    return SegmentChoice.of(told or str(segments or ""), where), Regions(*known)


def in_memory(labels: object, image: Image) -> Image | None:
    """A label map that is no file: an array on an image's grid, or an image itself."""
    if isinstance(labels, np.ndarray):
        if labels.shape != image.grid.shape:
            raise InputError(
                f"Labels and masks have the shape of {image.name}, {image.grid.shape}; this one has {labels.shape}."
            )
        return Image(labels[np.newaxis].astype(np.float32), image.grid, "labels")
    return labels if isinstance(labels, Image) else None


@dataclass(frozen=True)
class PlacedSegments:
    """The segments that an image would be explained by.

    Parameters
    ----------
    segments : SegmentMap
        Their table tells of sizes, intensities and places, and of no contributions.
    grid : Grid
        Of the labels: the image's, or the slab of it that holds the slice.
    title : str
        How they were made.
    notices : tuple of str
        Sentences that the user should read.
    """

    segments: SegmentMap
    grid: Grid
    title: str
    notices: tuple[str, ...] = ()


def segments_request(
    image: Image, classifier: Classifier, request: ExplainRequest, job: Job, regions: Regions | None = None
) -> PlacedSegments:
    """The segments that a request means, without an explanation; parameters and errors as for `explain_requests`."""
    known = as_asked(classifier, request)
    section = Section.choose(image, known, request)
    job.step(0.0, "Preprocessing")
    seen = known.prepare(section.image)
    job.step(0.2, "Finding the segments")
    choice = request.segments or SegmentChoice()
    own = section.image
    spacing = Grid(tuple(seen.tensor.shape[2:]), own.grid.affine @ seen.to_image).spacing
    found = segments_of(choice, regions or Regions(), image, section, seen, spacing)
    labels = resample_nearest(found.labels, np.linalg.inv(seen.to_image), own.grid.shape)
    voxel = None if own.is_bare else own.grid.spacing
    table = segments_table(labels, own.data, voxel, found.count, found.facts.get("original", ()))
    lifted, grid = section.lift(labels, image)
    title = "drawn" if choice.method == DRAWN else make_segmenter(choice.method, choice.options).title
    return PlacedSegments(SegmentMap(lifted, table), grid, title, found.notices)


def segments_of(
    choice: SegmentChoice,
    regions: Regions,
    image: Image,
    section: Section,
    network_input: NetworkInput,
    spacing: Sequence[float],
) -> Segments:
    """Segments on the grid of the network's input, of what the network sees.

    Of that and not of the image, since what is replaced is what the network sees: an edge between two segments lies
    where one of its voxels ends.

    Parameters
    ----------
    choice : SegmentChoice
    regions : Regions
    image : Image
        The whole.
    section : Section
        What of it the network gets.
    network_input : NetworkInput
    spacing : sequence of float
        Millimetres between voxels of the network's input.

    Raises
    ------
    InputError
        If labels or mask are missing, lie elsewhere, or leave nothing.
    """
    data = network_input.tensor[0].numpy()
    shape, sums = data.shape[1:], {}

    def placed(path: str, known: Image | None, what: str) -> NDArray[np.int64]:
        if path == GIVEN and known is None:
            raise InputError(f"What was drawn as {what} is not known any more; give its file.")
        found = known if path == GIVEN else read_label_map(path)
        assert found is not None
        sums[f"{what}_sha256"] = found.sha256
        return _on_input(found, image, section, network_input.to_image, shape, what)

    mask = None
    if choice.mask == BODY:
        body = body_of(section.image).astype(np.int64)
        mask = resample_nearest(body, network_input.to_image, shape) != 0
    elif choice.mask:
        mask = placed(choice.mask, regions.mask, "mask") != 0
    if mask is not None and not mask.any():
        raise InputError("The mask is empty where the image is; choose another mask, or another slice.")
    if choice.method == DRAWN:
        labels = placed(choice.labels, regions.labels, "labels")
        segments = given_segments(labels, mask, background=choice.background)
    else:
        segments = make_segmenter(choice.method, choice.options).segments(data, spacing, mask)
    return replace(segments, facts={**segments.facts, **sums})


def _on_input(
    found: Image, image: Image, section: Section, to_image: Float, shape: tuple[int, ...], what: str
) -> NDArray[np.int64]:
    """A label map, nearest voxel by nearest voxel, on the grid of the network's input."""
    in_volume = image.oblique is not None and found.ndim == 3
    if image.ndim == 2 and found.ndim == 3 and 1 in found.grid.shape and not in_volume:
        found = flat(found)
    if found.ndim != image.ndim and not in_volume:
        raise InputError(
            f"{found.name} is {found.ndim}D, as which it can't be the {what} of {image.name}, which is {image.ndim}D; "
            "choose another one."
        )
    whole = marked(found.data[0], found.name) if what == "mask" else _labels_of(found)
    flat_grid = Grid(shape, image.grid.affine @ to_image) if found.ndim == 2 else None
    grid = flat_grid or grid_in_world(image, section, to_image, shape)
    placed = resample_nearest(whole.astype(np.int64), np.linalg.inv(found.grid.affine) @ grid.affine, grid.shape)
    return cast("NDArray[np.int64]", placed.reshape(shape))


def _labels_of(found: Image) -> NDArray[np.float32]:
    whole = np.rint(found.data[0])
    if not np.array_equal(whole, found.data[0]):
        raise InputError(f"{found.name} holds values that are no whole numbers; choose a label map.")
    if np.abs(whole).max() >= _EXACT:
        raise InputError(
            f"{found.name} has labels of {_EXACT} or more, which can't be told apart; number its segments from 1 on."
        )
    return whole


def flat(volume: Image) -> Image:
    """A volume of one slice as the picture that it was saved of; see `napari_xai_med.io.nifti.save_nifti`."""
    if volume.grid.shape[0] != 1:
        return volume
    affine = (RAS_TO_DISPLAY @ volume.grid.affine)[1:, 1:]
    return replace(volume, data=volume.data[:, 0], grid=Grid(volume.grid.shape[1:], affine))


def body_of(image: Image) -> NDArray[np.bool_]:
    """The body in an image, on its grid; see `napari_xai_med.segments.body`."""
    if image.ndim == 2:
        return body_mask(image.data)
    # Holes are filled in axial slices.
    turn = Reorientation.between(image.grid)
    return cast("NDArray[np.bool_]", turn.inverse.array(body_mask(image.reoriented(turn).data)))
