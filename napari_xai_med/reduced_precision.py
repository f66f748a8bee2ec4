"""Explain in reduced precision, if that was measured to give the same map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter

from scipy.stats import spearmanr

from napari_xai_med.explainers.base import Explainer, Question, RawMap
from napari_xai_med.job import Job
from napari_xai_med.models.head import Answer
from napari_xai_med.models.precision import LEAST_CORRELATION, Precision
from napari_xai_med.windows import attribute

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
    then and for later images; else it is float32.

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
    reduced = replace(question, classifier=classifier.at(precision))
    key = (precision, explainer, tuple(question.inputs.shape[1:]), str(classifier.device))
    known = classifier.rank_correlations.get(key)
    if known is not None and known >= LEAST_CORRELATION:
        maps, answer = attribute(explainer, reduced, job)
        return _told(maps, {"used": str(precision)}), answer, ()
    start = perf_counter()
    maps, answer = attribute(explainer, question, job.part(0.0, 0.5))
    full = perf_counter() - start
    facts: dict[str, object] = {"used": str(Precision.FLOAT32)}
    if known is None:
        # Once without counting: the first pass makes what later ones find ready.
        attribute(explainer, reduced, job.part(0.5, 0.75))
        start = perf_counter()
        others, other_answer = attribute(explainer, reduced, job.part(0.75, 1.0))
        known = classifier.rank_correlations[key] = _least_correlation(maps, others)
        facts |= {"rank_correlation": known, "times_as_fast": round(full / (perf_counter() - start), 2)}
        if known >= LEAST_CORRELATION:
            return _told(others, facts | {"used": str(precision)}), other_answer, ()
    return _told(maps, facts), answer, (_TOO_FAR.format(precision, known, LEAST_CORRELATION),)


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
