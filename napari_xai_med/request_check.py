"""Whether a request can be carried out, told before that takes time."""

from __future__ import annotations

from napari_xai_med.errors import InputError, ModelError
from napari_xai_med.explainers.base import Explainer, explainers, make_explainer, reason_against
from napari_xai_med.io import read_label_map
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.options import shared_options, values_of
from napari_xai_med.request import ExplainRequest
from napari_xai_med.segments.choice import BODY, GIVEN


def check_one_map(request: ExplainRequest) -> None:
    """Raise an `InputError` if a request is for several maps."""
    if len(make_explainer(request.method, request.options).each()) > 1:
        raise InputError("This asks for several maps, one for each layer; use explain_all, or leave out separate.")


def check_request(classifier: Classifier, request: ExplainRequest) -> list[tuple[Explainer, Explainer | None]]:
    """The explainers that a request means, each with the one whose map is taken off; all of them fit the classifier.

    Raises
    ------
    InputError, ModelError
        If there is no such method, option or segmenter, or the classifier can't be explained by it.
    """
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
    if request.segments is not None and not any(each is not None and each.uses_segments for each in pairs[0]):
        raise InputError(
            f"{chosen.title} does not explain by segments; leave segments and mask out, or choose another method."
        )
    if request.segments is not None:
        request.segments.with_defaults()
        for path in (request.segments.labels, request.segments.mask):
            if path not in ("", BODY, GIVEN):
                read_label_map(path)
    return pairs


def _other(request: ExplainRequest, explainer: Explainer) -> Explainer | None:
    """The explainer whose map is taken off: with the first one's options where it has the same ones."""
    if not request.minus:
        return None
    if request.minus not in explainers():
        return make_explainer(request.minus, {})
    other = explainers()[request.minus]
    return make_explainer(request.minus, shared_options(other, values_of(explainer)))
