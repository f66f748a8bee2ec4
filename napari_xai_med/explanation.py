"""From an image and a classifier to attributions on the image's grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from napari_xai_med.attribution import Attribution, SegmentMap, zero_sentence
from napari_xai_med.errors import InputError, ModelError
from napari_xai_med.explainers.base import Explainer, Parts, Question, RawMap
from napari_xai_med.image import Image
from napari_xai_med.io import read_image
from napari_xai_med.job import Job
from napari_xai_med.models.classifier import Classifier, NetworkInput, Prediction
from napari_xai_med.models.guards import doubts
from napari_xai_med.models.head import Answer
from napari_xai_med.models.precision import Precision
from napari_xai_med.models.run import prediction_from
from napari_xai_med.models.target import Target
from napari_xai_med.on_image import difference_of, labels_on_image, on_image
from napari_xai_med.options import option_fields, values_of
from napari_xai_med.record import record_of
from napari_xai_med.reduced_precision import attribute_in
from napari_xai_med.request import ExplainRequest
from napari_xai_med.request_check import check_one_map, check_request
from napari_xai_med.section import Section, as_asked, where_it_can
from napari_xai_med.segmenting import Regions, segments_of
from napari_xai_med.segments.base import Segments
from napari_xai_med.segments.choice import SegmentChoice
from napari_xai_med.segments.table import contributions_table
from napari_xai_med.targets import Targets, fewer_classes, targets_of

_DIFFERENCE = "{} minus {}"
_SHOW_EVERY = 0.25
"""Seconds from one preview to the next at least."""
_SHARE = 10
"""How many times as long as a preview takes the work goes on before the next one."""
_SAME = "Both methods give the same map; choose another one to take off."


@dataclass(frozen=True)
class _Asked:
    """One request with all that belongs to it."""

    image: Image
    classifier: Classifier
    request: ExplainRequest
    section: Section
    network_input: NetworkInput
    regions: Regions


def explain_request(
    image: Image, classifier: Classifier, request: ExplainRequest, job: Job, regions: Regions | None = None
) -> Attribution:
    """Carry out a request for one map; see `napari_xai_med.explain`."""
    check_one_map(request)
    return explain_requests(image, classifier, request, (request.target,), job, regions)[0]


def explain_requests(
    image: Image,
    classifier: Classifier,
    request: ExplainRequest,
    targets: Targets,
    job: Job,
    regions: Regions | None = None,
) -> list[Attribution]:
    """Carry out a request for several classes, all from one pass, or for each of its layers.

    Parameters
    ----------
    image : Image
    classifier : Classifier
    request : ExplainRequest
        Its own target does not count.
    targets : sequence of str, int or None, or MostProbable, optional
        Classes; all of them if None, but for the one that they are explained against.
    job : Job
        Its `partial` gets the attributions so far, of methods that come to them by and by.
    regions : Regions, optional
        Label maps in memory that the request's segments mean.

    Raises
    ------
    InputError
        If there is no class, or the request can't be carried out.
    """
    known = as_asked(classifier, request)
    wanted = targets_of(known, request, targets)
    # Also where the caller has switched gradients off.
    with torch.inference_mode(False), torch.enable_grad():
        attributions, notices = where_it_can(
            known, partial(_explain, image, request=request, targets=wanted, regions=regions or Regions(), job=job)
        )
    notices = (*notices, *fewer_classes(targets, len(wanted)))
    return [replace(each, notices=(*each.notices, *notices)) for each in attributions]


def _explain(
    image: Image, classifier: Classifier, request: ExplainRequest, targets: list[Target], regions: Regions, job: Job
) -> list[Attribution]:
    pairs = check_request(classifier, request)
    section = Section.choose(image, classifier, request)
    job.step(0.0, "Preprocessing")
    asked = _Asked(image, classifier, request, section, classifier.prepare(section.image), regions)
    found: list[Attribution] = []
    for k, (explainer, other) in enumerate(pairs):
        start = perf_counter()
        part = job.part(0.05 + 0.95 * k / len(pairs), 0.05 + 0.95 * (k + 1) / len(pairs))
        found += _attributions(asked, explainer, other, targets, start, part)
    job.step(1.0, "Done")
    return found


def _attributions(
    asked: _Asked, explainer: Explainer, other: Explainer | None, targets: list[Target], start: float, job: Job
) -> list[Attribution]:
    """One attribution for each target, by one explainer or by the difference of two."""
    half = 0.9 if other is None else 0.45
    asking = job.part(0.0, half)
    if other is None and job.partial is not None:
        previews = _Previews(asked, explainer, targets, start, job.partial)
        asking = replace(asking, partial=previews, due=previews.due)
    maps, answer, said = _maps(asked, explainer, targets, asking)
    taken: list[RawMap] = []
    if other is not None:
        # As when the record is computed again, where this size is an option of both.
        other = _in_batches_of(other, maps[0].facts.get("batch_size"))
        taken, _, more = _maps(asked, other, targets, job.part(half, 0.9))
        said = (*said, *more)
    explainer = _in_batches_of(explainer, maps[0].facts.get("batch_size"))
    return _placed(asked, (explainer, other), targets, (maps, taken), answer, said, start, job.part(0.9, 1.0))


@dataclass
class _Previews:
    """Makes attributions of the maps so far, but not so often that the work itself gets slow."""

    asked: _Asked
    explainer: Explainer
    targets: list[Target]
    start: float
    show: Callable[[list[Attribution]], None]
    next: float = 0.0

    def due(self) -> bool:
        """Whether it is time for another one."""
        return perf_counter() >= self.next

    def __call__(self, found: tuple[list[RawMap], Answer]) -> None:
        before = perf_counter()
        placed = _placed(self.asked, (self.explainer, None), self.targets, (found[0], []), found[1], (), self.start)
        # Whoever keeps one of these keeps an estimate that was not finished.
        self.show([each.stopped() for each in placed])
        after = perf_counter()
        self.next = after + max(_SHOW_EVERY, _SHARE * (after - before))


def _placed(
    asked: _Asked,
    pair: tuple[Explainer, Explainer | None],
    targets: list[Target],
    found: tuple[list[RawMap], list[RawMap]],
    answer: Answer,
    said: tuple[str, ...],
    start: float,
    job: Job | None = None,
) -> list[Attribution]:
    """Attributions of the maps of one explainer, or of the differences of those of two."""
    network_input, image = asked.network_input, asked.section.image
    explainer, other = pair
    maps, taken = found
    told = (*asked.image.notices, *doubts(asked.classifier, image, network_input), *answer.notices, *said)
    prediction = prediction_from(asked.classifier, network_input, answer, told)
    result = []
    for k, raw in enumerate(maps):
        if job is not None:
            job.step(k / len(maps), "Placing the map on the image")
        title, signed = explainer.title, explainer.signed
        values = on_image(raw, network_input, image.grid.shape)
        if other is not None:
            title, signed = _DIFFERENCE.format(title, other.title), True
            raw = difference_of(raw, taken[k], network_input)
            tops = raw.facts["divided_by"]
            values = values / tops[0] - on_image(taken[k], network_input, image.grid.shape) / tops[1]
        target = targets[k].resolved(answer, 0)
        result.append(_attribution(asked, pair, (title, signed), raw, values, prediction, target, start))
    return result


def _in_batches_of(explainer: Explainer, size: object) -> Explainer:
    """The same method with the size of its batches, if it has them: the last bits of its map depend on it."""
    has = isinstance(size, int) and any(item.name == "batch_size" for item in option_fields(type(explainer)))
    return replace(explainer, batch_size=size) if has else explainer  # type: ignore[type-var]  # it has it, see above


def _maps(
    asked: _Asked, explainer: Explainer, targets: Sequence[Target], job: Job
) -> tuple[list[RawMap], Answer, tuple[str, ...]]:
    """What a method says about the image's network input; see `attribute_in`."""
    to_image, grid = asked.network_input.to_image, asked.section.image.grid
    spacing = tuple(float(step) for step in np.linalg.norm((grid.affine @ to_image)[:-1, :-1], axis=0))
    others = [read_image(path) for path in explainer.images]
    question = Question(
        asked.classifier,
        asked.network_input.tensor,
        tuple((0, target) for target in targets),
        spacing,
        inputs_of(others, asked.classifier, asked.request, asked.image, asked.network_input),
        (_segments(asked, spacing),) if explainer.uses_segments else (),
    )
    maps, answer, said = attribute_in(Precision(asked.request.precision), explainer, question, job)
    if others:
        # Their paths are options of the method: another file may be there later.
        told = {"compared_with": [{"source": image.source, "sha256": image.sha256} for image in others]}
        maps = [replace(raw, facts={**raw.facts, **told}) for raw in maps]
    return maps, answer, said


def _segments(asked: _Asked, spacing: tuple[float, ...]) -> Segments:
    choice = asked.request.segments or SegmentChoice()
    return segments_of(choice, asked.regions, asked.image, asked.section, asked.network_input, spacing)


def inputs_of(
    images: Sequence[Image],
    classifier: Classifier,
    request: ExplainRequest,
    image: Image,
    network_input: NetworkInput,
) -> torch.Tensor | None:
    """Further images that an image is compared with, as the network would get them; None if there are none."""
    if not images:
        return None
    inputs = []
    for other in images:
        section = Section.choose(other, classifier, request)
        tensor = classifier.prepare(section.image).tensor
        if tensor.shape != network_input.tensor.shape:
            shapes = [" x ".join(map(str, each.shape[2:])) for each in (tensor, network_input.tensor)]
            raise InputError(
                f"{other.name} becomes an input of {shapes[0]} and {image.name} one of {shapes[1]}; choose an "
                "image of the same size, or a preprocessing that resizes."
            )
        inputs.append(tensor)
    return torch.cat(inputs)


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
    segments = None if raw.parts is None else _segment_map(asked, raw.parts, raw.facts["segments"].get("original", ()))
    values, grid = asked.section.lift(values, asked.image)
    assert target.index is not None
    sentence = _SAME if pair[1] is not None else zero_sentence(title, target.words(names))
    zero = () if raw.values.any() else (sentence,)
    cautions = tuple(dict.fromkeys(each.caution for each in pair if each is not None and each.caution))
    used = raw.facts.get("precision", {}).get("used", asked.request.precision)
    choice = asked.request.segments or SegmentChoice()
    request = replace(
        asked.request,
        target=names[target.index],
        options=values_of(pair[0]),
        precision=used,
        segments=choice.with_defaults() if any(each is not None and each.uses_segments for each in pair) else None,
    )
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
        record=record_of(asked.image, asked.classifier, request, method, prediction, values, perf_counter() - start),
        notices=(*prediction.notices, *cautions, *raw.notices, *zero),
        segments=segments,
        regions=asked.regions,
    )


def _segment_map(asked: _Asked, parts: Parts, original: Sequence[int]) -> SegmentMap:
    """Parts of the network's input as segments of the image, with what is known of each."""
    image = asked.section.image
    labels = labels_on_image(parts, asked.network_input, image.grid.shape)
    table = contributions_table(labels, image.data, None if image.is_bare else image.grid.spacing, parts, original)
    return SegmentMap(asked.section.lift(labels, asked.image)[0], table)
