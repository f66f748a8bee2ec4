"""From an image and a classifier to attributions on the image's grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_xai_med.attribution import DISCLAIMER, Attribution, values_sha256, zero_sentence
from napari_xai_med.errors import InputError, ModelError
from napari_xai_med.explainers.base import (
    Explainer,
    Question,
    RawMap,
    explainers,
    make_explainer,
    reason_against,
)
from napari_xai_med.grid import Float, resample_linear
from napari_xai_med.image import Image
from napari_xai_med.io import read_image
from napari_xai_med.job import Job
from napari_xai_med.models.classifier import Classifier, NetworkInput, Prediction
from napari_xai_med.models.guards import doubts
from napari_xai_med.models.head import Answer
from napari_xai_med.models.precision import Precision
from napari_xai_med.models.run import prediction_from
from napari_xai_med.models.target import Quantity, Target
from napari_xai_med.options import option_fields, shared_options, values_of
from napari_xai_med.record import Record, software
from napari_xai_med.reduced_precision import attribute_in
from napari_xai_med.request import ExplainRequest
from napari_xai_med.section import Section, as_asked, where_it_can

_DIFFERENCE = "{} minus {}"
_SAME = "Both methods give the same map; choose another one to take off."


@dataclass(frozen=True)
class _Asked:
    """One request with all that belongs to it."""

    image: Image
    classifier: Classifier
    request: ExplainRequest
    section: Section
    network_input: NetworkInput


def explain_request(image: Image, classifier: Classifier, request: ExplainRequest, job: Job) -> Attribution:
    """Carry out a request for one map; see `napari_xai_med.explain`."""
    if len(make_explainer(request.method, request.options).each()) > 1:
        raise InputError("This asks for several maps, one for each layer; use explain_all, or leave out separate.")
    return explain_requests(image, classifier, request, (request.target,), job)[0]


def explain_requests(
    image: Image,
    classifier: Classifier,
    request: ExplainRequest,
    targets: Sequence[str | int | None] | None,
    job: Job,
) -> list[Attribution]:
    """Carry out a request for several classes, all from one pass, or for each of its layers.

    Parameters
    ----------
    image : Image
    classifier : Classifier
    request : ExplainRequest
        Its own target does not count.
    targets : sequence of str, int or None, optional
        Classes; all of them by default, but for the one that they are explained against.
    job : Job

    Raises
    ------
    InputError
        If there is no class, or the request can't be carried out.
    """
    known = as_asked(classifier, request)
    if targets is None:
        # No class stands against itself.
        other = None if request.against is None else known.find_class(request.against)
        targets = [name for index, name in enumerate(known.class_names) if index != other]
    if not targets:
        raise InputError("Nothing is to be explained; name a class, or leave the classes out for all of them.")
    requests = [replace(request, target=target) for target in targets]
    # Also where the caller has switched gradients off.
    with torch.inference_mode(False), torch.enable_grad():
        attributions, notices = where_it_can(known, partial(_explain, image, requests=requests, job=job))
    return [replace(each, notices=(*each.notices, *notices)) for each in attributions]


def _explain(image: Image, classifier: Classifier, requests: list[ExplainRequest], job: Job) -> list[Attribution]:
    request = requests[0]
    chosen = make_explainer(request.method, request.options)
    pairs = [(one, _other(request, one)) for one in chosen.each()]
    averaged = chosen.each() == (chosen,) and len(values_of(chosen).get("layers", ())) > 1
    if averaged and classifier.windows is not None:
        raise InputError(
            "The mean of several layers would make every window look alike; with a sliding window choose one layer, "
            "or separate."
        )
    for explainer in pairs[0]:
        if explainer is not None and (reason := reason_against(type(explainer), classifier)):
            raise ModelError(f"{reason} Choose another method, or a classifier with its own layers.")
    targets = [_target(classifier, each) for each in requests]
    section = Section.choose(image, classifier, request)
    job.step(0.0, "Preprocessing")
    asked = _Asked(image, classifier, request, section, classifier.prepare(section.image))
    found: list[Attribution] = []
    for k, (explainer, other) in enumerate(pairs):
        start = perf_counter()
        part = job.part(0.05 + 0.95 * k / len(pairs), 0.05 + 0.95 * (k + 1) / len(pairs))
        found += _attributions(asked, explainer, other, targets, start, part)
    job.step(1.0, "Done")
    return found


def _other(request: ExplainRequest, explainer: Explainer) -> Explainer | None:
    """The explainer whose map is taken off: with the first one's options where it has the same ones."""
    if not request.minus:
        return None
    if request.minus not in explainers():
        return make_explainer(request.minus, {})
    other = explainers()[request.minus]
    return make_explainer(request.minus, shared_options(other, values_of(explainer)))


def _target(classifier: Classifier, request: ExplainRequest) -> Target:
    target = Target(
        None if request.target is None else classifier.find_class(request.target),
        None if request.against is None else classifier.find_class(request.against),
        Quantity(request.quantity),
        request.opposite,
    )
    target.check(classifier.head)
    return target


def _attributions(
    asked: _Asked, explainer: Explainer, other: Explainer | None, targets: list[Target], start: float, job: Job
) -> list[Attribution]:
    """One attribution for each target, by one explainer or by the difference of two."""
    network_input, image = asked.network_input, asked.section.image
    half = 0.9 if other is None else 0.45
    maps, answer, said = _maps(asked, explainer, targets, job.part(0.0, half))
    taken: list[RawMap] = []
    if other is not None:
        # As when the record is computed again, where this size is an option of both.
        other = _in_batches_of(other, maps[0].facts.get("batch_size"))
        taken, _, more = _maps(asked, other, targets, job.part(half, 0.9))
        said = (*said, *more)
    told = (*asked.image.notices, *doubts(asked.classifier, image, network_input), *answer.notices, *said)
    prediction = prediction_from(asked.classifier, network_input, answer, told)
    explainer = _in_batches_of(explainer, maps[0].facts.get("batch_size"))
    found = []
    for k, raw in enumerate(maps):
        job.step(0.9 + 0.1 * k / len(maps), "Placing the map on the image")
        title, signed = explainer.title, explainer.signed
        values = on_image(raw, network_input, image.grid.shape)
        if other is not None:
            title, signed = _DIFFERENCE.format(title, other.title), True
            raw = _difference(raw, taken[k], network_input)
            tops = raw.facts["divided_by"]
            values = values / tops[0] - on_image(taken[k], network_input, image.grid.shape) / tops[1]
        target = targets[k].resolved(answer, 0)
        found.append(_attribution(asked, (explainer, other), (title, signed), raw, values, prediction, target, start))
    return found


def _in_batches_of(explainer: Explainer, size: object) -> Explainer:
    """The same method with the size of its batches, if it has them: the last bits of its map depend on it."""
    has = isinstance(size, int) and any(item.name == "batch_size" for item in option_fields(type(explainer)))
    return replace(explainer, batch_size=size) if has else explainer  # type: ignore[type-var]  # it has it, see above


def _maps(
    asked: _Asked, explainer: Explainer, targets: Sequence[Target], job: Job
) -> tuple[list[RawMap], Answer, tuple[str, ...]]:
    """What a method says about the image's network input; see `attribute_in`."""
    to_image, grid = asked.network_input.to_image, asked.section.image.grid
    spacing = np.linalg.norm((grid.affine @ to_image)[:-1, :-1], axis=0)
    others = [read_image(path) for path in explainer.images]
    question = Question(
        asked.classifier,
        asked.network_input.tensor,
        tuple((0, target) for target in targets),
        tuple(float(step) for step in spacing),
        _inputs_of(asked, others),
    )
    maps, answer, said = attribute_in(Precision(asked.request.precision), explainer, question, job)
    if others:
        # Their paths are options of the method: another file may be there later.
        told = {"compared_with": [{"source": image.source, "sha256": image.sha256} for image in others]}
        maps = [replace(raw, facts={**raw.facts, **told}) for raw in maps]
    return maps, answer, said


def _inputs_of(asked: _Asked, images: Sequence[Image]) -> torch.Tensor | None:
    """The further images that a method compares with, as the network would get them; None if there are none."""
    if not images:
        return None
    inputs = []
    for image in images:
        section = Section.choose(image, asked.classifier, asked.request)
        tensor = asked.classifier.prepare(section.image).tensor
        if tensor.shape != asked.network_input.tensor.shape:
            shapes = [" x ".join(map(str, each.shape[2:])) for each in (tensor, asked.network_input.tensor)]
            raise InputError(
                f"{image.name} becomes an input of {shapes[0]} and {asked.image.name} one of {shapes[1]}; choose an "
                "image of the same size, or a preprocessing that resizes."
            )
        inputs.append(tensor)
    return torch.cat(inputs)


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


def _difference(one: RawMap, other: RawMap, network_input: NetworkInput) -> RawMap:
    """The difference of two raw maps, each divided by its largest absolute value: methods differ in their units.

    On their own grid if that is the same, else on the network input's.
    """
    tops = [np.float32(np.abs(raw.values).max() or 1) for raw in (one, other)]
    facts = {**one.facts, "minus": dict(other.facts), "divided_by": [float(top) for top in tops]}
    notices = (*one.notices, *other.notices)
    if one.values.shape == other.values.shape and np.array_equal(one.to_input, other.to_input):
        return RawMap(one.values / tops[0] - other.values / tops[1], one.to_input, facts, notices)
    shape = tuple(network_input.tensor.shape[2:])
    parts = [
        resample_linear(raw.values, np.linalg.inv(raw.to_input), shape) / top
        for raw, top in zip((one, other), tops, strict=True)
    ]
    return RawMap(parts[0] - parts[1], np.eye(len(shape) + 1), facts, notices)


def _attribution(
    asked: _Asked,
    pair: tuple[Explainer, Explainer | None],
    look: tuple[str, bool],
    raw: RawMap,
    values: NDArray[np.float32],
    prediction: Prediction,
    target: Target,
    start: float,
) -> Attribution:
    title, signed = look
    names = asked.classifier.class_names
    if not np.isfinite(values).all():
        raise ModelError(f"{title} gave values that are not finite; choose another layer or method.")
    values, grid = asked.section.lift(values, asked.image)
    assert target.index is not None
    sentence = _SAME if pair[1] is not None else zero_sentence(title, target.words(names))
    zero = () if raw.values.any() else (sentence,)
    cautions = tuple(dict.fromkeys(each.caution for each in pair if each is not None and each.caution))
    used = raw.facts.get("precision", {}).get("used", asked.request.precision)
    request = replace(asked.request, target=names[target.index], options=values_of(pair[0]), precision=used)
    method = {"about": target.words(names), **raw.facts, **({"caution": " ".join(cautions)} if cautions else {})}
    return Attribution(
        values=values,
        grid=grid,
        raw=raw.values,
        raw_to_image=asked.network_input.to_image @ raw.to_input,
        class_name=names[target.index],
        about=target.words(names),
        title=title,
        signed=signed,
        prediction=prediction,
        record=_record(asked, request, method, prediction, values, perf_counter() - start),
        notices=(*prediction.notices, *cautions, *raw.notices, *zero),
    )


def _record(
    asked: _Asked,
    request: ExplainRequest,
    method: dict[str, Any],
    prediction: Prediction,
    values: NDArray[np.float32],
    seconds: float,
) -> Record:
    image, classifier = asked.image, asked.classifier
    return Record(
        request=request.to_dict(),
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
        method=method,
        result={
            "logits": prediction.logits.tolist(),
            "probabilities": prediction.probabilities.tolist(),
            "class": request.target,
            "minimum": float(values.min()),
            "maximum": float(values.max()),
            "sha256": values_sha256(values),
        },
        software=software(classifier.device),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 3),
        disclaimer=DISCLAIMER,
    )
