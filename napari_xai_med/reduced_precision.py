"""Explain in reduced precision, if that was measured to give the same map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter

from scipy.stats import spearmanr

from napari_xai_med.errors import ModelError, one_line
from napari_xai_med.explainers.base import Explainer, Question, RawMap
from napari_xai_med.job import Job
from napari_xai_med.models.devices import is_out_of_memory
from napari_xai_med.models.head import Answer
from napari_xai_med.models.precision import LEAST_CORRELATION, Precision
from napari_xai_med.windows import attribute

_FAILED = "In {} there is no map ({}); that in float32 is shown."
_SLOWER = "In {} this took {:.1f} times as long as in float32 here; choose float32 on this device."
_TOO_FAR = (
    "In {} the map's rank correlation with that in float32 is {:.4f}, below {}; the map in float32 is shown, and for "
    "other images of this size it is computed alone."
)


def attribute_in(
    precision: Precision, explainer: Explainer, question: Question, job: Job
) -> tuple[list[RawMap], Answer, tuple[str, ...]]:
    """Explain answers in a precision; see `Explainer.attribute`.

    The first time that a method, with its options and for this size of input, is asked in reduced precision, it is
    also computed in float32. Only where the rank correlation of both maps is at least 0.995 is the reduced one used,
    then and for later images; else, and where the reduced one fails, it is float32.

    Parameters
    ----------
    precision : Precision
    explainer : Explainer
    question : Question
    job : Job

    Returns
    -------
    (list of RawMap, Answer, tuple of str)
        The maps with what was measured among their facts, the answer, and sentences that the user should read.
    """
    if precision is Precision.FLOAT32:
        return *attribute(explainer, question, job), ()
    classifier = question.classifier
    key = (precision, explainer, tuple(question.inputs.shape[1:]), str(classifier.device))
    known = classifier.rank_correlations.get(key)
    rest = job
    if known is not None and known < LEAST_CORRELATION:
        notice = _TOO_FAR.format(precision, known, LEAST_CORRELATION)
    else:
        reduced = replace(question, classifier=classifier.at(precision))
        try:
            if known is None:
                return _compared(key, explainer, question, reduced, job)
            maps, answer = attribute(explainer, reduced, job)
            return _told(maps, {"used": str(precision)}), answer, ()
        except (ModelError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            # Such as numbers beyond the range of float16, or an operator that a device lacks for it.
            notice, rest = _FAILED.format(precision, one_line(error)), job.part(1.0, 1.0)
    maps, answer = attribute(explainer, question, rest)
    return _told(maps, {"used": str(Precision.FLOAT32)}), answer, (notice,)


def _compared(
    key: tuple[object, ...], explainer: Explainer, question: Question, reduced: Question, job: Job
) -> tuple[list[RawMap], Answer, tuple[str, ...]]:
    """The maps in both precisions, those in the reduced one if they are the same; see `attribute_in`."""
    precision = reduced.classifier.precision
    # Once without counting: the first pass makes what later ones find ready, in both precisions.
    attribute(explainer, reduced, job.part(0.0, 0.25))
    start = perf_counter()
    maps, answer = attribute(explainer, question, job.part(0.25, 0.75))
    full = perf_counter() - start
    start = perf_counter()
    others, other_answer = attribute(explainer, reduced, job.part(0.75, 1.0))
    faster = round(full / (perf_counter() - start), 2)
    found = question.classifier.rank_correlations[key] = _least_correlation(maps, others)
    facts: dict[str, object] = {"rank_correlation": found, "times_as_fast": faster}
    if found >= LEAST_CORRELATION:
        slower = (_SLOWER.format(precision, 1 / faster),) if faster < 1 else ()
        return _told(others, {"used": str(precision), **facts}), other_answer, slower
    notice = _TOO_FAR.format(precision, found, LEAST_CORRELATION)
    return _told(maps, {"used": str(Precision.FLOAT32), **facts}), answer, (notice,)


def _least_correlation(maps: Sequence[RawMap], others: Sequence[RawMap]) -> float:
    """The lowest rank correlation of pairs of maps; 0 where a map is constant and has no ranks."""
    pairs = [
        (one.values.ravel(), other.values.ravel())
        for one, other in zip(maps, others, strict=True)
        if one.values.any() or other.values.any()
    ]
    constant = any(one.min() == one.max() or other.min() == other.max() for one, other in pairs)
    return 0.0 if constant else min((float(spearmanr(one, other).statistic) for one, other in pairs), default=1.0)


def _told(maps: Sequence[RawMap], facts: dict[str, object]) -> list[RawMap]:
    return [replace(raw, facts={**raw.facts, "precision": facts}) for raw in maps]
