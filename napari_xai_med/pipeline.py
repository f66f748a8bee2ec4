"""From an image and a classifier to an attribution on the image's grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from time import perf_counter
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.attribution import DISCLAIMER, Attribution, values_sha256, zero_sentence
from napari_xai_med.errors import InputError, ModelError
from napari_xai_med.explainers.base import Explainer, RawMap, make_explainer, reason_against
from napari_xai_med.grid import Float, Grid, Reorientation, resample_linear
from napari_xai_med.image import PLANES, Image
from napari_xai_med.job import Job
from napari_xai_med.models.classifier import Classifier, NetworkInput, Prediction
from napari_xai_med.models.devices import free_memory, is_lacking, is_out_of_memory
from napari_xai_med.models.guards import doubts
from napari_xai_med.models.receptive_field import Layer, default_layer
from napari_xai_med.models.run import predict, prediction_from
from napari_xai_med.preprocessing.base import read_steps
from napari_xai_med.record import Record, software
from napari_xai_med.request import ExplainRequest
from napari_xai_med.windows import attribute


@dataclass(frozen=True)
class Section:
    """The part of an image that a classifier looks at: all of it, or one slice of a volume."""

    image: Image
    axis: int | None = None
    index: int = 0
    turn: Reorientation | None = None

    @classmethod
    def choose(cls, image: Image, classifier: Classifier, request: ExplainRequest) -> Section:
        """The slice that the request names where the classifier is 2D and the image 3D, else the whole."""
        if not (classifier.spatial_dims == 2 and image.ndim == 3):
            return cls(image)
        turn = Reorientation.between(image.grid)
        shown = image.reoriented(turn)
        axis = PLANES.index(request.plane)
        if request.slice is None:
            last = shown.grid.shape[axis] - 1
            raise InputError(
                f"{classifier.name} looks at 2D images and {image.name} is 3D; choose a slice from 0 to {last}."
            )
        return cls(shown.plane(axis, request.slice), axis, request.slice, turn)

    def lift(self, values: NDArray[np.float32], image: Image) -> tuple[NDArray[np.float32], Grid]:
        """Values on this section with their grid in the image: all of it, or a slab one voxel thick."""
        if self.axis is None or self.turn is None:
            return values, image.grid
        shown = self.turn.grid(image.grid)
        back = self.turn.inverse
        axis = self.turn.order[self.axis]
        index = shown.shape[self.axis] - 1 - self.index if self.turn.flipped[self.axis] else self.index
        lifted = cast("NDArray[np.float32]", back.array(np.expand_dims(values, self.axis)))
        return lifted, image.grid.slab(axis, index)


Result = TypeVar("Result")


def _as_asked(classifier: Classifier, request: ExplainRequest) -> Classifier:
    """The classifier with the preprocessing that the request names, if it names one."""
    if request.preprocessing is None:
        return classifier
    return classifier.with_steps(read_steps(request.preprocessing))


_NO_MEMORY = "The memory of {} was not enough; this was computed on the processor."
_LACKING = "{} lacks something that {} needs; this was computed on the processor."


def _where_it_can(classifier: Classifier, work: Callable[[Classifier], Result]) -> tuple[Result, tuple[str, ...]]:
    """Work with a classifier, on the processor if its device can't, and a notice of that."""
    device = classifier.device
    try:
        return work(classifier), ()
    except (RuntimeError, MemoryError, TypeError) as error:
        full = is_out_of_memory(error)
        if full and device.type == "cpu":
            raise ModelError(
                f"There is not enough memory to run {classifier.name}; close other programs or take a smaller image."
            ) from error
        if not full and not is_lacking(error, device):
            raise
    # Outside of the handler: the error holds on to what filled the memory.
    free_memory()
    result, _ = _where_it_can(classifier.on("cpu"), work)
    return result, (_NO_MEMORY.format(device) if full else _LACKING.format(device, classifier.name),)


def predict_request(image: Image, classifier: Classifier, request: ExplainRequest, job: Job) -> Prediction:
    """What the classifier says about the section that the request names."""
    classifier = _as_asked(classifier, request)
    section = Section.choose(image, classifier, request).image
    prediction, notices = _where_it_can(classifier, lambda chosen: predict(section, chosen, job))
    return replace(prediction, notices=(*prediction.notices, *notices))


def explain_request(image: Image, classifier: Classifier, request: ExplainRequest, job: Job) -> Attribution:
    """Carry out a request; see `napari_xai_med.explain`."""
    work = partial(_explain, image, request=request, job=job)
    attribution, notices = _where_it_can(_as_asked(classifier, request), work)
    return replace(attribution, notices=(*attribution.notices, *notices))


def _explain(image: Image, classifier: Classifier, request: ExplainRequest, job: Job) -> Attribution:
    start = perf_counter()
    explainer = make_explainer(request.method, request.options)
    if reason := reason_against(type(explainer), classifier):
        raise ModelError(f"{reason} Choose another method, or a classifier with its own layers.")
    section = Section.choose(image, classifier, request)
    job.step(0.0, "Preprocessing")
    network_input = classifier.prepare(section.image)
    wanted = None if request.target is None else classifier.find_class(request.target)
    maps, answer = attribute(explainer, classifier, network_input.tensor, [(0, wanted)], job.part(0.05, 0.9))
    notices = (*image.notices, *doubts(classifier, section.image, network_input), *answer.notices)
    prediction = prediction_from(classifier, network_input, answer, notices)
    target = prediction.top if wanted is None else wanted
    job.step(0.9, "Placing the map on the image")
    values = on_image(maps[0], network_input, section.image.grid.shape)
    if not np.isfinite(values).all():
        raise ModelError(f"{explainer.title} gave values that are not finite; choose another layer or method.")
    values, grid = section.lift(values, image)
    record = _record(image, classifier, request, maps[0], prediction, target, values, perf_counter() - start)
    attribution = Attribution(
        values=values,
        grid=grid,
        raw=maps[0].values,
        raw_to_image=network_input.to_image @ maps[0].to_input,
        class_name=classifier.class_names[target],
        title=explainer.title,
        signed=explainer.signed,
        prediction=prediction,
        record=record,
        notices=(*notices, *_notices(explainer, maps[0], classifier.class_names[target])),
    )
    job.step(1.0, "Done")
    return attribution


def on_image(raw: RawMap, network_input: NetworkInput, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A raw map, linearly resampled to the grid of the image that the network's input was made from.

    Outside what the network saw the map is 0.

    Parameters
    ----------
    raw : RawMap
    network_input : NetworkInput
    shape : tuple of int
        Shape of the image's grid.
    """
    to_input: Float = np.linalg.inv(network_input.to_image)
    to_raw = np.linalg.inv(network_input.to_image @ raw.to_input)
    return resample_linear(raw.values, to_raw, shape, (to_input, tuple(network_input.tensor.shape[2:])))


def _notices(explainer: Explainer, raw: RawMap, class_name: str) -> tuple[str, ...]:
    zero = () if raw.values.any() else (zero_sentence(explainer.title, class_name),)
    return (*raw.notices, *zero)


def _record(
    image: Image,
    classifier: Classifier,
    request: ExplainRequest,
    raw: RawMap,
    prediction: Prediction,
    target: int,
    values: NDArray[np.float32],
    seconds: float,
) -> Record:
    return Record(
        request=request.with_defaults().to_dict() | {"target": classifier.class_names[target]},
        image={
            "name": image.name,
            "source": image.source,
            "others": list(image.others),
            "volume": image.volume,
            "other_volumes": list(image.other_volumes),
            "sha256": image.sha256,
            "shape": list(image.data.shape),
            "affine": image.grid.affine.tolist(),
        },
        model={
            "name": classifier.name,
            "source": classifier.source,
            "sha256": classifier.sha256,
            "head": str(classifier.head),
            "ends_in": prediction.ending,
            "class_names": list(classifier.class_names),
            "trusted": classifier.trusted,
            # None where it is code.
            "preprocessing": None if classifier.steps is None else [step.config() for step in classifier.steps],
            "sliding_window": None if classifier.windows is None else classifier.windows.to_dict(),
        },
        method=dict(raw.facts),
        result={
            "logits": prediction.logits.tolist(),
            "probabilities": prediction.probabilities.tolist(),
            "class": classifier.class_names[target],
            "minimum": float(values.min()),
            "maximum": float(values.max()),
            "sha256": values_sha256(values),
        },
        software=software(classifier.device),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 3),
        disclaimer=DISCLAIMER,
    )


def network_view(image: Image, classifier: Classifier, request: ExplainRequest, job: Job) -> Image:
    """What the network sees of an image, in the image's world: the input behind the preprocessing.

    Parameters
    ----------
    image : Image
    classifier : Classifier
    request : ExplainRequest
        Names the slice, for a 2D classifier and a 3D image.
    job : Job

    Returns
    -------
    Image
        On the network's own grid; of a slice a volume of one slice.
    """
    job.step(0.0, "Preprocessing")
    section = Section.choose(image, classifier, request)
    seen = _as_asked(classifier, request).prepare(section.image)
    data, to_image = seen.tensor[0].numpy(), seen.to_image
    name = f"{image.name}: what {classifier.name} sees"
    if section.axis is None or section.turn is None:
        return Image(data, Grid(data.shape[1:], image.grid.affine @ to_image), name)
    slab = section.turn.grid(image.grid).slab(section.axis, section.index)
    inside = [k for k in range(4) if k != section.axis]
    in_volume = np.eye(4)
    in_volume[np.ix_(inside, inside)] = to_image
    data = np.expand_dims(data, section.axis + 1)
    return Image(data, Grid(data.shape[1:], slab.affine @ in_volume), name)


def layers_for(image: Image, classifier: Classifier, request: ExplainRequest) -> tuple[tuple[Layer, ...], str]:
    """The layers whose maps can explain this image, and the name of the one that is used by default.

    The default is empty where no convolution has spatial extent.
    """
    classifier = _as_asked(classifier, request)
    network_input = classifier.prepare(Section.choose(image, classifier, request).image)
    layers = classifier.layers(tuple(network_input.tensor.shape[1:]))
    convolutions = [layer for layer in layers if layer.is_convolution and max(layer.shape) > 1]
    return layers, default_layer(layers).name if convolutions else ""
