"""The verbs of scripts: `predict`, `explain`, `explain_all`, `feature_maps` and `maximise`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from napari_xai_med.activation_maximisation import Drawing, draw
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
from napari_xai_med.errors import InputError
from napari_xai_med.explanation import explain_request, explain_requests
from napari_xai_med.image import Image
from napari_xai_med.inside import maps_of_layer
from napari_xai_med.job import CancelToken, Job, Progress
from napari_xai_med.maximisation import Maximisation
from napari_xai_med.models.classifier import Prediction
from napari_xai_med.models.devices import AUTO
from napari_xai_med.options import with_options
from napari_xai_med.pipeline import predict_request
from napari_xai_med.request import ExplainRequest
from napari_xai_med.segmenting import AnyLabels, AnySegments
from napari_xai_med.targets import MostProbable


def predict(
    image: AnyImage,
    classifier: AnyClassifier,
    *,
    plane: str = "axial",
    slice: int | None = None,
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
    device: str = AUTO,
    preprocessing: AnyPreprocessing | None = None,
) -> Prediction:
    """Ask a classifier about an image. Research use only. Not for diagnosis.

    Parameters
    ----------
    image : Image, path or ndarray, or a list of these
        An array has axes (Z, Y, X) or (Y, X); see `Image.from_array`. Several are the channels of one, on the
        grid of the first; see `stack_channels`.
    classifier : Classifier, path, name or torch.nn.Module
        See `load_model`. A bare network gets the image as it is, and its classes are called by number; see
        `classifier_from_module` for names, preprocessing and head.
    plane : {"axial", "coronal", "sagittal"}
        Direction of the slice, for a 2D classifier and a 3D image.
    slice : int, optional
        Number of that slice, from the head, the front or the patient's right on.
    progress : callable, optional
        Called with the share done, 0 to 1, and a sentence.
    cancel : object with `is_set`, optional
        Such as a `threading.Event`; when set, the work stops.
    device : str
        Where to run a classifier that is loaded here, such as ``"cpu"`` or ``"cuda"``; the fastest device that
        there is by default. A `Classifier` or a network stays where it is.
    preprocessing : str or sequence of Step or mapping, optional
        In place of the classifier's own: the name of a preset, or steps, or entries of a MONAI configuration.

    Returns
    -------
    Prediction

    Raises
    ------
    InputError
        If the image is not what the classifier takes.
    ModelError
        If the classifier can't be loaded or fails.
    Cancelled
        If `cancel` was set.
    """
    chosen = image_of(image)
    known = classifier_of(classifier, chosen, device)
    request = ExplainRequest(plane=plane, slice=slice, preprocessing=entries_of(preprocessing, known))
    return predict_request(chosen, known, request, Job(progress, cancel))


def explain(
    image: AnyImage,
    classifier: AnyClassifier,
    method: str = "gradcam",
    *,
    target: str | int | None = None,
    against: str | int | None = None,
    quantity: str = "logit",
    opposite: bool = False,
    minus: str = "",
    precision: str = "float32",
    plane: str = "axial",
    slice: int | None = None,
    segments: AnySegments | None = None,
    mask: AnyLabels | None = None,
    preset: str = "",
    partial: Callable[[list[Attribution]], None] | None = None,
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
    device: str = AUTO,
    preprocessing: AnyPreprocessing | None = None,
    **options: Any,
) -> Attribution:
    """Explain an answer of a classifier. Research use only. Not for diagnosis.

    Parameters
    ----------
    image, classifier, plane, slice, progress, cancel, device, preprocessing
        As for `predict`.
    method : str
        Name of an explanation method, such as ``"gradcam"``.
    target : str or int, optional
        The class to explain, by name or index; the most probable one if None.
    against : str or int, optional
        Another class: what is explained is by how much the target's logit is larger than its.
    quantity : {"logit", "log_odds", "probability"}
        In which form the answer is explained; the probability's gradient vanishes where the classifier is sure.
    opposite : bool
        Whether to explain what speaks against the class instead.
    minus : str
        Name of another method whose map is taken off, made with the same options where it has them, such as
        ``explain(image, classifier, "hirescam", minus="gradcam")``.
    precision : {"float32", "bfloat16", "float16"}
        What the network computes in. Less than float32 is used only where it was measured to give the same map.
    segments : str, path, mapping, Image or ndarray, optional
        By which parts of the image methods explain that use segments: a segmenter's name, such as ``"slic"``, the
        default; with its options, such as ``{"method": "slic", "number": 50}``; or a label map. An array has the
        image's axes. With ``{"labels": label map, "background": True}`` 0 is one more segment.
    mask : str, path, Image or ndarray, optional
        Where segments may be: where a label map is not 0, or ``"body"`` for where a body is found.
    preset : str
        Name of a set of options of the method, such as ``"lime"`` for that package's own defaults; further options
        come on top.
    partial : callable, optional
        Called with a list of the attributions so far, by methods that come to them by and by.
    **options
        Options of the method, such as ``layers`` of ``"gradcam"``.

    Returns
    -------
    Attribution
        On the image's own grid.

    Raises
    ------
    InputError, ModelError, Cancelled
        As for `predict`; also for an unknown method, option or class.
    """
    chosen = image_of(image)
    known = classifier_of(classifier, chosen, device)
    request, regions = request_of(
        (chosen, known),
        (method, preset, options),
        (segments, mask, preprocessing),
        target=target,
        against=against,
        quantity=quantity,
        opposite=opposite,
        minus=minus,
        precision=precision,
        plane=plane,
        slice=slice,
    )
    return explain_request(chosen, known, request, Job(progress, cancel, partial=partial), regions)


def explain_all(
    image: AnyImage,
    classifier: AnyClassifier,
    method: str = "gradcam",
    *,
    targets: Sequence[str | int | None] | None = None,
    top_classes: int = 0,
    against: str | int | None = None,
    quantity: str = "logit",
    opposite: bool = False,
    minus: str = "",
    precision: str = "float32",
    plane: str = "axial",
    slice: int | None = None,
    segments: AnySegments | None = None,
    mask: AnyLabels | None = None,
    preset: str = "",
    partial: Callable[[list[Attribution]], None] | None = None,
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
    device: str = AUTO,
    preprocessing: AnyPreprocessing | None = None,
    **options: Any,
) -> list[Attribution]:
    """Explain several classes from one pass, or several layers one by one. Research use only. Not for diagnosis.

    Parameters
    ----------
    image, classifier, plane, slice, progress, cancel, device, preprocessing
        As for `predict`.
    targets : sequence of str, int or None, optional
        The classes to explain, by name or index; all of them by default.
    top_classes : int
        In place of `targets` the so many most probable classes; 0 not to.
    method, against, quantity, opposite, minus, precision, segments, mask, preset, partial, **options
        As for `explain`.

    Returns
    -------
    list of Attribution
        One for each class; for each layer in turn if the option ``separate`` of the method says so.

    Raises
    ------
    InputError, ModelError, Cancelled
        As for `explain`.
    """
    chosen = image_of(image)
    known = classifier_of(classifier, chosen, device)
    request, regions = request_of(
        (chosen, known),
        (method, preset, options),
        (segments, mask, preprocessing),
        against=against,
        quantity=quantity,
        opposite=opposite,
        minus=minus,
        precision=precision,
        plane=plane,
        slice=slice,
    )
    if top_classes and targets is not None:
        raise InputError("Name the classes, or say how many of the most probable ones, but not both.")
    wanted = MostProbable(top_classes) if top_classes else targets
    return explain_requests(chosen, known, request, wanted, Job(progress, cancel, partial=partial), regions)


def feature_maps(
    image: AnyImage,
    classifier: AnyClassifier,
    layer: str = "",
    *,
    plane: str = "axial",
    slice: int | None = None,
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
    device: str = AUTO,
    preprocessing: AnyPreprocessing | None = None,
) -> Image:
    """What the channels of one layer of a network make of an image. Research use only. Not for diagnosis.

    Parameters
    ----------
    image, classifier, plane, slice, progress, cancel, device, preprocessing
        As for `predict`.
    layer : str
        Its name; the last convolution with spatial extent if empty.

    Returns
    -------
    Image
        A channel for each feature map, on the layer's own grid in the image's world; of a slice, or an oblique
        section, a volume of one slice.

    Raises
    ------
    InputError, ModelError, Cancelled
        As for `predict`; also if there is no such layer.
    """
    chosen = image_of(image)
    known = classifier_of(classifier, chosen, device)
    request = ExplainRequest(plane=plane, slice=slice, preprocessing=entries_of(preprocessing, known))
    return maps_of_layer(chosen, known, layer, request, Job(progress, cancel))


def maximise(
    classifier: AnyClassifier,
    target: str | int,
    *,
    shape: tuple[int, ...] = (),
    image: AnyImage | None = None,
    plane: str = "axial",
    slice: int | None = None,
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
    device: str = AUTO,
    preprocessing: AnyPreprocessing | None = None,
    **options: Any,
) -> Drawing:
    """Draw an input that a network finds most typical of a class. Research use only. Not for diagnosis.

    Activation maximisation: the input is changed step by step so that the class's logit grows, and kept smooth and
    small; see `napari_xai_med.activation_maximisation.draw` for the exact function and its papers.

    Parameters
    ----------
    classifier, plane, slice, progress, cancel, device, preprocessing
        As for `predict`; a bare network needs a `shape`.
    target : str or int
        The class, by name or index.
    shape : tuple of int
        (C, *spatial) of the network's input; that of the image, or else of the classifier's metadata by default.
    image : Image, path or ndarray, or a list of these, optional
        To start from with ``start="image"``; also gives the drawing's size and place.
    **options
        ``steps``, ``learning_rate``, ``total_variation``, ``norm_weight``, ``norm_power``, ``start`` ("noise", "zero"
        or "image"), ``quantity`` ("logit" or "log_odds"), ``clamp`` and ``seed``; see `Maximisation`.

    Returns
    -------
    Drawing

    Raises
    ------
    InputError, ModelError, Cancelled
        As for `predict`; also for an unknown option or class, or if nothing tells the input's shape.
    """
    chosen = None if image is None else image_of(image)
    size = shape or (() if chosen is None else chosen.data.shape)
    if isinstance(classifier, nn.Module) and not size:
        raise InputError("A bare network does not say how large its input is; give a shape, or an image.")
    known = classifier_of(classifier, chosen, device, size)
    request = ExplainRequest(plane=plane, slice=slice, preprocessing=entries_of(preprocessing, known))
    made = with_options(Maximisation, "A drawing", options)
    return draw(known, target, made, Job(progress, cancel), shape=shape, image=chosen, request=request)
