"""From a volume to the slices that matter, and what a 2D classifier sees in them.

A 3D classifier's heatmap, a mask or intensities say which slices to look at; a 2D classifier is asked about each of
them and explained. Its maps lie at their slices in the volume.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.attribution import Attribution
from napari_xai_med.errors import InputError
from napari_xai_med.explanation import explain_requests
from napari_xai_med.grid import Reorientation, resample_nearest
from napari_xai_med.image import PLANES, Image
from napari_xai_med.job import Job
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.request import ExplainRequest
from napari_xai_med.segmenting import Regions
from napari_xai_med.slices import SliceRule, make_slice_rule, top_slices


@dataclass(frozen=True)
class SliceChoice:
    """Which slices of a volume are to be looked at.

    Parameters
    ----------
    rule : str
        Name of a rule; see `napari_xai_med.slices`.
    options : mapping
        Its options; those left out have their defaults.
    plane : {"axial", "coronal", "sagittal"}
    count : int
        How many at most.
    minimum_distance : float
        Millimetres between two of them at least.
    """

    rule: str = "activation"
    options: Mapping[str, Any] = field(default_factory=dict)
    plane: str = "axial"
    count: int = 3
    minimum_distance: float = 10.0

    def __post_init__(self) -> None:
        if self.plane not in PLANES:
            raise InputError(f"There is no plane {self.plane!r}; choose one of {', '.join(PLANES)}.")

    @property
    def maker(self) -> SliceRule:
        """The rule with its options."""
        return make_slice_rule(self.rule, self.options)


@dataclass(frozen=True)
class Slices:
    """Slices that were chosen, the best one first.

    Parameters
    ----------
    plane : str
    indices : tuple of int
        Numbers from head, front or the patient's right on.
    scores : tuple of float
        What the rule gave them.
    notices : tuple of str
        Sentences that the user should read.
    """

    plane: str
    indices: tuple[int, ...]
    scores: tuple[float, ...]
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExplainedSlices:
    """What a 2D classifier sees in the slices that were chosen. Research use only. Not for diagnosis.

    Parameters
    ----------
    volume : Attribution, optional
        The heatmap of the 3D classifier that the slices were chosen by, if one was asked for.
    slices : Slices
    attributions : tuple of Attribution
        Of each slice in turn; on slabs of the volume's grid.
    """

    volume: Attribution | None
    slices: Slices
    attributions: tuple[Attribution, ...]


def choose_slices(
    image: Image, choice: SliceChoice, heatmap: Attribution | None = None, mask: Image | None = None
) -> Slices:
    """Choose slices of a volume.

    Parameters
    ----------
    image : Image
        3D.
    choice : SliceChoice
    heatmap : Attribution, optional
        On the image's grid, for rules that look at one.
    mask : Image, optional
        A label map in any grid of the image's world: where the rules look, or what they measure.

    Raises
    ------
    InputError
        If the image is no volume, what the rule needs is missing, or it finds nothing.
    """
    if image.ndim != 3:
        raise InputError(f"{image.name} is {image.ndim}D and has no slices to choose from; choose a volume.")
    turn = Reorientation.between(image.grid)
    axis = PLANES.index(choice.plane)

    def shown(values: NDArray[Any] | None) -> Any:
        return None if values is None else turn.array(values)

    placed = None
    if mask is not None:
        to_mask = np.linalg.inv(mask.grid.affine) @ image.grid.affine
        placed = resample_nearest((mask.data[0] != 0).astype(np.uint8), to_mask, image.grid.shape) != 0
    values = None if heatmap is None else heatmap.values
    volume = cast("NDArray[np.float32]", turn.array(image.data))
    scores = choice.maker.scores(volume, shown(values), shown(placed), axis)
    spacing = turn.grid(image.grid).spacing[axis]
    chosen = top_slices(scores, choice.count, choice.minimum_distance, spacing)
    if not chosen.indices:
        raise InputError(f"{choice.maker.title} finds nothing in any slice; choose another rule or plane.")
    found = tuple(float(scores[index]) for index in chosen.indices)
    return Slices(choice.plane, chosen.indices, found, chosen.notices)


def explain_slices(
    image: Image,
    choice: SliceChoice,
    volume: tuple[Classifier, ExplainRequest] | None,
    slices: tuple[Classifier, ExplainRequest],
    job: Job,
    regions: Regions | None = None,
) -> ExplainedSlices:
    """Choose slices, by the heatmap of a 3D classifier if the rule looks at one, and explain a 2D classifier there.

    Parameters
    ----------
    image : Image
    choice : SliceChoice
    volume : (Classifier, ExplainRequest), optional
        The 3D classifier and what to ask of it, for rules that look at a heatmap.
    slices : (Classifier, ExplainRequest)
        The 2D classifier, and what to ask about each slice.
    job : Job
        Its `partial` gets the attributions so far.
    regions : Regions, optional
        Label maps in memory: those that the slices' segments mean, and the mask of the rule.

    Raises
    ------
    InputError
        If the rule lacks something, or finds nothing.
    """
    known = regions or Regions()
    classifier, request = slices
    if classifier.spatial_dims != 2:
        raise InputError(f"{classifier.name} looks at volumes; choose a 2D classifier for the slices.")
    heatmap, share = None, 0.0
    if choice.maker.needs == "map":
        if volume is None:
            raise InputError(f"{choice.maker.title} looks at a heatmap; choose a 3D classifier that makes one.")
        share = 0.4
        first = replace(job.part(0.0, share), partial=None)
        heatmap = explain_requests(image, *volume, (volume[1].target,), first)[0]
    chosen = choose_slices(image, choice, heatmap, known.mask)
    found: list[Attribution] = []
    for k, index in enumerate(chosen.indices):
        length = (1 - share) / len(chosen.indices)
        part = job.part(share + k * length, share + (k + 1) * length)
        if job.partial is not None:
            part = replace(part, partial=_after(found, job))
        asked = replace(request, plane=chosen.plane, slice=index)
        found += explain_requests(image, classifier, asked, (request.target,), part, known)
        job.show(found.copy)
    return ExplainedSlices(heatmap, chosen, tuple(found))


def _after(found: list[Attribution], job: Job) -> Any:
    """What shows the slice that is being explained behind those that are."""
    before = list(found)
    return lambda attributions: job.show(lambda: [*before, *attributions])
