"""The verbs of scripts about slices of a volume: `choose_slices` and `explain_slices`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from napari_xai_med.api_inputs import (
    AnyClassifier,
    AnyImage,
    AnyPreprocessing,
    classifier_of,
    entries_of,
    image_of,
    request_of,
)
from napari_xai_med.attribution import Attribution
from napari_xai_med.grid import Reorientation
from napari_xai_med.image import PLANES, Image
from napari_xai_med.job import CancelToken, Job, Progress
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.devices import AUTO
from napari_xai_med.request import ExplainRequest
from napari_xai_med.segmenting import AnyLabels, AnySegments, in_memory
from napari_xai_med.segments.choice import GIVEN
from napari_xai_med.slice_pipeline import METHOD, ExplainedSlices, SliceChoice, Slices, find_slices
from napari_xai_med.slice_pipeline import explain_slices as carry_out


def choose_slices(
    image: AnyImage,
    rule: str = "activation",
    *,
    rule_options: Mapping[str, Any] | None = None,
    rule_mask: AnyLabels | None = None,
    plane: str = "axial",
    count: int = 3,
    minimum_distance: float = 10.0,
    volume_classifier: AnyClassifier | None = None,
    volume_method: str = "gradcam",
    volume_options: Mapping[str, Any] | None = None,
    volume_target: str | int | None = None,
    volume_preprocessing: AnyPreprocessing | None = None,
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
    device: str = AUTO,
) -> Slices:
    """Choose the slices of a volume that are most worth a look. Research use only. Not for diagnosis.

    Parameters
    ----------
    image, progress, cancel, device
        As for `napari_xai_med.predict`.
    rule : {"activation", "mask", "intensity", "body"}
        Where a heatmap speaks for its class, where a mask is largest, where most voxels lie in a range of intensities,
        or where the body is largest; see `napari_xai_med.slices`.
    rule_options : mapping, optional
        Options of the rule, such as ``{"by": "max"}`` of ``"activation"``.
    rule_mask : str, path, Image or ndarray, optional
        Where the rule looks, or what it measures: where a label map is not 0, or ``"body"`` for where a body is found.
        An array has the image's axes.
    plane : {"axial", "coronal", "sagittal"}
    count : int
        How many at most.
    minimum_distance : float
        Millimetres between two of them at least.
    volume_classifier : Classifier, path, name or torch.nn.Module, optional
        A 3D classifier whose heatmap the rule ``"activation"`` looks at, and it alone.
    volume_method, volume_options, volume_target, volume_preprocessing
        How that heatmap is made: a method with its options, the class (the most probable one if None), and what stands
        in for the classifier's own preprocessing.

    Returns
    -------
    Slices

    Raises
    ------
    InputError, ModelError, Cancelled
        As for `napari_xai_med.explain`; also if the rule lacks something or finds nothing.
    """
    chosen = image_of(image)
    choice, mask = _choice(rule, rule_options, rule_mask, plane, count, minimum_distance, chosen)
    asked = ExplainRequest(volume_method, volume_options or {}, volume_target)
    volume = _volume(volume_classifier, asked, volume_preprocessing, chosen, device)
    return find_slices(chosen, choice, volume, Job(progress, cancel), mask)


def explain_slices(
    image: AnyImage,
    slice_classifier: AnyClassifier,
    method: str = METHOD,
    *,
    target: str | int | None = None,
    against: str | int | None = None,
    quantity: str = "logit",
    opposite: bool = False,
    segments: AnySegments | None = None,
    mask: AnyLabels | None = None,
    preset: str = "",
    preprocessing: AnyPreprocessing | None = None,
    rule: str = "activation",
    rule_options: Mapping[str, Any] | None = None,
    rule_mask: AnyLabels | None = None,
    plane: str = "axial",
    count: int = 3,
    minimum_distance: float = 10.0,
    volume_classifier: AnyClassifier | None = None,
    volume_method: str = "gradcam",
    volume_options: Mapping[str, Any] | None = None,
    volume_target: str | int | None = None,
    volume_preprocessing: AnyPreprocessing | None = None,
    partial: Callable[[list[Attribution]], None] | None = None,
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
    device: str = AUTO,
    **options: Any,
) -> ExplainedSlices:
    """Choose slices of a volume and explain what a 2D classifier sees there. Research use only. Not for diagnosis.

    By default as in a clinic's reading: a 3D classifier looks at the volume, its heatmap says which slices matter, and
    a 2D classifier is explained by Shapley values of superpixels of these.

    Parameters
    ----------
    image, progress, cancel, device
        As for `napari_xai_med.predict`.
    slice_classifier : Classifier, path, name or torch.nn.Module
        A 2D classifier.
    method, target, against, quantity, opposite, segments, mask, preset, preprocessing, partial, **options
        What to ask it about each slice, as for `napari_xai_med.explain`; with no target the most probable class of
        each slice. A label map of segments, or a mask of where they may be, is that of the volume.
    rule, rule_options, rule_mask, plane, count, minimum_distance
        As for `choose_slices`.
    volume_classifier, volume_method, volume_options, volume_target, volume_preprocessing
        As for `choose_slices`.

    Returns
    -------
    ExplainedSlices
        The 3D heatmap on the volume's grid, and a heatmap for each slice at its place in the volume.

    Raises
    ------
    InputError, ModelError, Cancelled
        As for `choose_slices` and `napari_xai_med.explain`.
    """
    chosen = image_of(image)
    choice, inside = _choice(rule, rule_options, rule_mask, plane, count, minimum_distance, chosen)
    asked = ExplainRequest(volume_method, volume_options or {}, volume_target)
    volume = _volume(volume_classifier, asked, volume_preprocessing, chosen, device)
    known = classifier_of(slice_classifier, None, device, _slice_shape(chosen, plane))
    request, regions = request_of(
        (chosen, known),
        (method, preset, options),
        (segments, mask, preprocessing),
        target=target,
        against=against,
        quantity=quantity,
        opposite=opposite,
    )
    show = None if partial is None else lambda found: partial(list(found.attributions))
    job = Job(progress, cancel, partial=show)
    return carry_out(chosen, choice, volume, (known, request), job, inside, regions)


def _choice(
    rule: str,
    options: Mapping[str, Any] | None,
    mask: AnyLabels | None,
    plane: str,
    count: int,
    minimum_distance: float,
    image: Image,
) -> tuple[SliceChoice, Image | None]:
    """How slices are to be chosen, and the label map in memory that this means."""
    given = in_memory(mask, image)
    where = str(mask or "") if given is None else GIVEN
    return SliceChoice(rule, options or {}, plane, count, minimum_distance, where), given


def _volume(
    classifier: AnyClassifier | None,
    request: ExplainRequest,
    preprocessing: AnyPreprocessing | None,
    image: Image,
    device: str,
) -> tuple[Classifier, ExplainRequest] | None:
    """The 3D classifier and what to ask of it, if there is one."""
    if classifier is None:
        return None
    known = classifier_of(classifier, image, device)
    entries = entries_of(preprocessing, known)
    return known, ExplainRequest(request.method, request.options, request.target, preprocessing=entries)


def _slice_shape(image: Image, plane: str) -> tuple[int, ...]:
    """(C, rows, columns) of a slice of a volume, which a bare network takes."""
    if image.ndim != 3:
        return image.data.shape
    shape = Reorientation.between(image.grid).grid(image.grid).shape
    return (len(image.data), *(n for k, n in enumerate(shape) if k != PLANES.index(plane)))
