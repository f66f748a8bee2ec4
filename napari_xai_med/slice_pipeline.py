"""From a volume to the slices that matter, and what a 2D classifier sees in them.

A 3D classifier's heatmap, a mask or intensities say which slices to look at; a 2D classifier is asked about each of
them and explained. Its maps lie at their slices in the volume.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.attribution import Attribution
from napari_xai_med.errors import InputError
from napari_xai_med.explanation import explain_request
from napari_xai_med.grid import Reorientation, resample_nearest
from napari_xai_med.image import PLANES, Image
from napari_xai_med.io import read_image
from napari_xai_med.job import Job
from napari_xai_med.masks import called, marked
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.options import values_of
from napari_xai_med.request import ExplainRequest
from napari_xai_med.request_check import check_one_map, check_request
from napari_xai_med.section import as_asked
from napari_xai_med.segmenting import Regions, body_of
from napari_xai_med.segments.choice import BODY, GIVEN
from napari_xai_med.slices import SliceRule, make_slice_rule, top_slices
from napari_xai_med.targets import targets_of

METHOD = "shapley"
"""How slices are explained if nothing else is said."""

_KINDS: dict[str, Any] = {
    "rule": str,
    "options": Mapping,
    "plane": str,
    "count": int,
    "minimum_distance": int | float,
    "mask": str,
}


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
    mask : str
        Where the rule looks, or what it measures: path of a label map, ``"body"`` for where a body is found,
        ``"given"`` for a label map in memory, or everywhere if empty.
    """

    rule: str = "activation"
    options: Mapping[str, Any] = field(default_factory=dict)
    plane: str = "axial"
    count: int = 3
    minimum_distance: float = 10.0
    mask: str = ""

    def __post_init__(self) -> None:
        if self.plane not in PLANES:
            raise InputError(f"There is no plane {self.plane!r}; choose one of {', '.join(PLANES)}.")
        if self.count < 1 or self.minimum_distance < 0:
            raise InputError(
                f"{self.count} slices at least {self.minimum_distance:g} mm apart can't be chosen; give at least one "
                "slice, and a distance that is not negative."
            )

    @property
    def maker(self) -> SliceRule:
        """The rule with its options."""
        return make_slice_rule(self.rule, self.options)

    def to_dict(self) -> dict[str, Any]:
        """As plain values with every option spelled out, for a record."""
        return asdict(self) | {"options": values_of(self.maker)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SliceChoice:
        """What `to_dict` described.

        Raises
        ------
        InputError
            If something in it is unknown or of another kind.
        """
        for key, value in values.items():
            if key not in _KINDS or not isinstance(value, _KINDS[key]) or isinstance(value, bool):
                raise InputError(f"A choice of slices can't have {key} {value!r:.80}; correct it.")
        return cls(**values)


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
    heatmap : Attribution, optional
        What they were chosen by, if the rule looks at a heatmap.
    mask_sha256 : str
        Hash of the label map where the rule looked; empty if there was none.
    notices : tuple of str
        Sentences that the user should read.
    """

    plane: str
    indices: tuple[int, ...]
    scores: tuple[float, ...]
    heatmap: Attribution | None = None
    mask_sha256: str = ""
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExplainedSlices:
    """What a 2D classifier sees in slices of a volume. Research use only. Not for diagnosis.

    Parameters
    ----------
    choice : SliceChoice
        How they were chosen.
    slices : Slices
        With the 3D classifier's heatmap, if they were chosen by one.
    attributions : tuple of Attribution
        Of each slice in turn; on slabs of the volume's grid. Only of the first ones as long as the work goes on.
    estimated : bool
        Whether the last of them is an estimate that gets better.
    """

    choice: SliceChoice
    slices: Slices
    attributions: tuple[Attribution, ...]
    estimated: bool = False

    @property
    def slice_notices(self) -> tuple[str, ...]:
        """What the user should read of finished slices; with their numbers what is not true of all."""
        done = self.attributions[: len(self.attributions) - self.estimated]
        told: dict[str, list[int]] = {}
        for index, each in zip(self.slices.indices, done, strict=False):
            for notice in each.notices:
                told.setdefault(notice, []).append(index)
        return tuple(
            notice if len(where) == len(done) else f"{self.slices.plane} {', '.join(map(str, where))}: {notice}"
            for notice, where in told.items()
        )

    def finished(self) -> ExplainedSlices | None:
        """Those that are no estimates, as if no more had been asked for; None if there is none."""
        count = len(self.attributions) - self.estimated
        if not count:
            return None
        if count == len(self.slices.indices):
            return replace(self, estimated=False)
        indices, scores = self.slices.indices[:count], self.slices.scores[:count]
        slices = replace(self.slices, indices=indices, scores=scores, notices=())
        return ExplainedSlices(replace(self.choice, count=count), slices, self.attributions[:count])


def slices_by(
    image: Image, choice: SliceChoice, heatmap: Attribution | None = None, mask: Image | None = None
) -> Slices:
    """Choose slices of a volume by what is known of it already.

    Parameters
    ----------
    image : Image
        3D.
    choice : SliceChoice
    heatmap : Attribution, optional
        On the image's grid, for rules that look at one.
    mask : Image, optional
        The label map that a choice means whose mask is ``"given"``, in any grid of the image's world.

    Raises
    ------
    InputError
        If the image is no volume, what the rule needs is missing, or it finds nothing.
    """
    _check_volume(image)
    rule, turn = choice.maker, Reorientation.between(image.grid)
    axis = PLANES.index(choice.plane)
    volume = cast("NDArray[np.float32]", turn.array(image.data))
    values = None if heatmap is None else cast("NDArray[np.float32]", turn.array(heatmap.values))
    inside, sha256 = _inside(image, choice.mask, mask)
    shown = None if inside is None else cast("NDArray[np.bool_]", turn.array(inside))
    scores = rule.scores(volume, values, shown, axis)
    spacing = turn.grid(image.grid).spacing[axis]
    chosen = top_slices(scores, choice.count, choice.minimum_distance, spacing)
    if not chosen.indices:
        raise InputError(f"{rule.title} finds nothing in any {choice.plane} slice; choose another rule.")
    found = tuple(float(scores[index]) for index in chosen.indices)
    return Slices(choice.plane, chosen.indices, found, heatmap, sha256, chosen.notices)


def _check_volume(image: Image) -> None:
    if image.ndim != 3:
        raise InputError(f"{image.name} is {image.ndim}D and has no slices to choose from; choose a volume.")


def _inside(image: Image, path: str, given: Image | None) -> tuple[NDArray[np.bool_] | None, str]:
    """Where a rule looks, on the image's grid, and the hash of the label map that says so."""
    if not path:
        return None, ""
    if path == BODY:
        return body_of(image), ""
    mask = given if path == GIVEN else read_image(path)
    if mask is None:
        raise InputError("What was drawn as mask is not known any more; give its file.")
    if mask.ndim != image.ndim:
        raise InputError(f"{called(mask.name)} is {mask.ndim}D and {image.name} is {image.ndim}D; choose another one.")
    to_mask = np.linalg.inv(mask.grid.affine) @ image.grid.affine
    placed = resample_nearest(marked(mask.data[0], mask.name).astype(np.uint8), to_mask, image.grid.shape) != 0
    if not placed.any():
        raise InputError("The mask is empty where the image is; choose another mask.")
    return placed, mask.sha256


def find_slices(
    image: Image,
    choice: SliceChoice,
    volume: tuple[Classifier, ExplainRequest] | None,
    job: Job,
    mask: Image | None = None,
) -> Slices:
    """Choose slices of a volume, by the heatmap of a 3D classifier if the rule looks at one.

    Parameters
    ----------
    image : Image
    choice : SliceChoice
    volume : (Classifier, ExplainRequest), optional
        The 3D classifier and what to ask of it, for rules that look at a heatmap, and only for them.
    job : Job
    mask : Image, optional
        As for `slices_by`.

    Raises
    ------
    InputError
        If the rule lacks something, or finds nothing.
    """
    # Before the heatmap is computed, which can take long.
    _check_volume(image)
    title, wanted = choice.maker.title, choice.maker.needs == "map"
    if wanted and volume is None:
        raise InputError(f"{title} looks at a heatmap; choose a 3D classifier that makes one.")
    if volume is not None and not wanted:
        raise InputError(f"{title} looks at no heatmap; leave the 3D classifier out.")
    heatmap = None
    if volume is not None:
        classifier, request = volume
        if classifier.spatial_dims != 3:
            raise InputError(f"{classifier.name} looks at slices; choose a 3D classifier for the volume.")
        heatmap = explain_request(image, classifier, request, replace(job, partial=None))
    job.step(1.0, "Choosing slices")
    return slices_by(image, choice, heatmap, mask)


def explain_slices(
    image: Image,
    choice: SliceChoice,
    volume: tuple[Classifier, ExplainRequest] | None,
    slices: tuple[Classifier, ExplainRequest],
    job: Job,
    mask: Image | None = None,
    regions: Regions | None = None,
) -> ExplainedSlices:
    """Choose slices as `find_slices` does, and explain what a 2D classifier sees there.

    Parameters
    ----------
    image, choice, volume, mask
        As for `find_slices`.
    slices : (Classifier, ExplainRequest)
        The 2D classifier, and what to ask about each slice.
    job : Job
        Its `partial` gets the `ExplainedSlices` so far.
    regions : Regions, optional
        Label maps in memory that the segments of the slices mean.

    Raises
    ------
    InputError
        If the rule lacks something, or finds nothing.
    """
    classifier, request = slices
    if classifier.spatial_dims != 2:
        raise InputError(f"{classifier.name} looks at volumes; choose a 2D classifier for the slices.")
    # Before the heatmap is computed, which can take long.
    check_one_map(request)
    known = as_asked(classifier, request)
    targets_of(known, request, (request.target,))
    check_request(known, request)
    share = 0.0 if volume is None else 0.4
    chosen = find_slices(image, choice, volume, job.part(0.0, share), mask)
    found: list[Attribution] = []
    length = (1 - share) / len(chosen.indices)
    for k, index in enumerate(chosen.indices):
        part = job.part(share + k * length, share + (k + 1) * length)
        before = ExplainedSlices(choice, chosen, tuple(found))
        if job.partial is not None:
            part = replace(part, partial=_behind(before, job.partial))
        asked = replace(request, plane=chosen.plane, slice=index)
        found.append(explain_request(image, classifier, asked, part, regions))
        job.show(partial(replace, before, attributions=tuple(found)))
    return ExplainedSlices(choice, chosen, tuple(found))


def _behind(before: ExplainedSlices, show: Callable[[ExplainedSlices], None]) -> Callable[[list[Attribution]], None]:
    """What shows estimates of the next slice behind the slices that are explained."""
    return lambda found: show(replace(before, attributions=(*before.attributions, *found), estimated=True))
