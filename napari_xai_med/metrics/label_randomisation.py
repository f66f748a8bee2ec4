"""Whether a map changes when the network learnt shuffled labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from napari_xai_med.errors import InputError
from napari_xai_med.job import Job
from napari_xai_med.metrics.asked_again import asked_of
from napari_xai_med.metrics.base import Family, Meaning, Metric, Need, register
from napari_xai_med.metrics.case import Case
from napari_xai_med.metrics.outcome import Better, Outcome
from napari_xai_med.metrics.parameter_randomisation import undefined
from napari_xai_med.metrics.similarity_of_maps import NAMES, why_not
from napari_xai_med.metrics.unrelated import Likeness
from napari_xai_med.models.classifier import Classifier


@register
@dataclass(frozen=True)
class LabelRandomisation(Metric):
    """Data randomisation test: similarities of the map with that of a classifier that learnt shuffled labels.

    References
    ----------
    Adebayo et al. 2018, Sanity checks for saliency maps, NeurIPS, arXiv:1810.03292.
    """

    name: ClassVar[str] = "label_randomisation"
    title: ClassVar[str] = "Label randomisation"
    family: ClassVar[Family] = Family.SANITY
    about: ClassVar[str] = "How alike the map of a classifier is that learnt shuffled labels."
    paper: ClassVar[str] = "Adebayo et al. 2018, arXiv:1810.03292"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CLASSIFIER, Need.SECOND})
    quantities: ClassVar[Mapping[str, Meaning]] = dict.fromkeys(NAMES, Meaning(Better.LOWER, "-1 to 1"))

    def measure(self, case: Case, job: Job) -> Outcome:
        """See `Metric`."""
        asked, second = asked_of(case), case.second
        assert second is not None
        one = asked.on_input(case.values)
        if reason := why_not(one):
            return undefined(self.title, reason)
        target, against = (
            None if name is None else _same_class(asked.known, second, name)
            for name in (asked.request.target, asked.request.against)
        )
        other = asked.on_input(asked.again(job, classifier=second, target=target, against=against))
        likeness = Likeness(one, [other], case.seed)
        if likeness.reason:
            return undefined(self.title, likeness.reason)
        verdict = likeness.verdict(
            "With a network that learnt shuffled labels",
            "it depends on what the labels teach",
            "a part of it does not come from what the labels teach",
            "it does not depend on what the labels teach",
        )
        return Outcome(tuple(likeness.scores(Better.LOWER)), (verdict,))


def _same_class(first: Classifier, second: Classifier, name: str | int) -> str:
    """The class of a second classifier: by name, or by number if it has as many and calls them otherwise."""
    index = first.find_class(name)
    if first.class_names[index] in second.class_names:
        return first.class_names[index]
    if len(second.class_names) != len(first.class_names):
        raise InputError(
            f"{second.name} has no class {first.class_names[index]!r}; give a second classifier of the same classes."
        )
    return second.class_names[index]
