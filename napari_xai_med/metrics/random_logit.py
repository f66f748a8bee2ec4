"""Whether a map is about its class, and not about any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from napari_xai_med.job import Job
from napari_xai_med.metrics.asked_again import asked_of
from napari_xai_med.metrics.base import Family, Meaning, Metric, Need, register
from napari_xai_med.metrics.case import Asked, Case
from napari_xai_med.metrics.outcome import Better, Outcome, Score
from napari_xai_med.metrics.parameter_randomisation import undefined
from napari_xai_med.metrics.similarity_of_maps import NAMES, why_not
from napari_xai_med.metrics.unrelated import Likeness
from napari_xai_med.models.head import Head
from napari_xai_med.options import option

_ONE_LOGIT = (
    "Both classes stand on one logit, so that what speaks for one speaks against the other: methods that go by "
    "gradients give the same sizes with other signs."
)
_NO_OTHER = "The classifier has no other class."


@register
@dataclass(frozen=True)
class RandomLogit(Metric):
    """Random logit test: similarities of the map with those of other classes.

    Sixt et al. draw one class at random; here the first ones in the classifier's order are taken, all if there are few.

    References
    ----------
    Sixt et al. 2020, When explanations lie: why many modified BP attributions fail, ICML, arXiv:1912.09818.
    """

    name: ClassVar[str] = "random_logit"
    title: ClassVar[str] = "Random logit"
    family: ClassVar[Family] = Family.SANITY
    about: ClassVar[str] = "How alike the maps of other classes are."
    paper: ClassVar[str] = "Sixt et al. 2020, arXiv:1912.09818"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CLASSIFIER})
    quantities: ClassVar[Mapping[str, Meaning]] = dict.fromkeys(NAMES, Meaning(Better.LOWER, "-1 to 1"))

    classes: int = option(3, "Other classes that are explained at most.", limits=(1, None))

    def measure(self, case: Case, job: Job) -> Outcome:
        """See `Metric`."""
        asked = asked_of(case)
        others = self._others(asked)
        one = asked.on_input(case.values)
        if reason := why_not(one) or ("" if others else _NO_OTHER):
            return undefined(self.title, reason)
        maps = []
        for k, name in enumerate(others):
            part = job.part(k / len(others), (k + 1) / len(others))
            maps.append(asked.on_input(asked.again(part, target=name)))
        scores: list[Score] = []
        for name, other in zip(others, maps, strict=True):
            scores += Likeness(one, [other], case.seed).scores(Better.LOWER, of=name)
        verdict = Likeness(one, maps, case.seed).verdict(
            "For other classes",
            "it is about the class",
            "a part of it is about any class",
            "it does not tell the classes apart",
        )
        notices = (_ONE_LOGIT,) if asked.known.head is Head.ONE_LOGIT else ()
        return Outcome(tuple(scores), (verdict,), notices=notices, facts={"classes": others})

    def _others(self, asked: Asked) -> list[str]:
        names = asked.known.class_names
        left_out = {
            asked.known.find_class(each) for each in (asked.request.target, asked.request.against) if each is not None
        }
        return [name for k, name in enumerate(names) if k not in left_out][: self.classes]
