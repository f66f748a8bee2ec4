"""What every metric is, and how the metrics are found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

from napari_xai_med.errors import InputError
from napari_xai_med.metrics.outcome import Better
from napari_xai_med.options import changed_of
from napari_xai_med.registry import Registry

if TYPE_CHECKING:
    from napari_xai_med.job import Job
    from napari_xai_med.metrics.case import Case
    from napari_xai_med.metrics.outcome import Outcome


class Family(StrEnum):
    """What kind of question a metric answers."""

    OVERLAP = "overlap"
    AS_PUBLISHED = "as published"
    FAITHFULNESS = "faithfulness"
    STABILITY = "stability"
    SANITY = "sanity"
    SHORTCUTS = "shortcuts"


class Need(StrEnum):
    """What a metric can't do without, in words that say what to give."""

    MASK = "a mask"
    IMAGE = "the image"
    CLASSIFIER = "the image and the classifier"
    OTHERS = "other explanations of the same image"
    SECOND = "a second classifier that was trained on shuffled labels"


@dataclass(frozen=True)
class Meaning:
    """What a score is, for the documentation.

    Parameters
    ----------
    better : Better
    range : str
        From where to where, or the unit.
    """

    better: Better = Better.HIGHER
    range: str = "0 to 1"


@dataclass(frozen=True)
class Metric(ABC):
    """A judgement of an explanation; its fields are its options, see `napari_xai_med.options`."""

    name: ClassVar[str]
    """In scripts and on the command line."""
    title: ClassVar[str]
    """As people call it."""
    family: ClassVar[Family]
    about: ClassVar[str]
    """What it tells, in one sentence."""
    paper: ClassVar[str]
    """Author, year, title and where, or a textbook; empty for what needs none."""
    quantities: ClassVar[Mapping[str, Meaning]] = {}
    """The scores by name, as the documentation lists them."""
    needs: ClassVar[frozenset[Need]] = frozenset()
    panel: ClassVar[bool] = False
    """Whether it is part of the standard panel, with its default options."""

    @property
    def called(self) -> str:
        """The title, with the options that are not at their defaults."""
        return f"{self.title} ({changed})" if (changed := changed_of(self)) else self.title

    @abstractmethod
    def measure(self, case: Case, job: Job) -> Outcome:
        """Judge a map.

        Parameters
        ----------
        case : Case
            Has what the metric needs.
        job : Job

        Raises
        ------
        InputError, ModelError
            If it can't be measured at all. A number that is not defined is NaN with a reason instead.
        Cancelled
        """


_REGISTRY = Registry("napari_xai_med.metrics")
register = _REGISTRY.register


def metrics() -> Mapping[str, type[Metric]]:
    """All metrics by name, family after family."""
    order = list(Family)
    return dict(sorted(_REGISTRY.all().items(), key=lambda item: order.index(item[1].family)))


def make_metric(name: str, options: Mapping[str, Any]) -> Metric:
    """A metric by name, with its options; raises an `InputError` if there is none, or no such option."""
    if name not in metrics():
        near = nearest(name)
        told = f"the nearest {'is' if len(near) == 1 else 'are'} {', '.join(near)}, and " if near else ""
        raise InputError(f"There is no metric {name!r}; {told}napari-xai-med evaluate --list names all.")
    metric: Metric = _REGISTRY.make("metric", name, options)
    return metric


def nearest(word: str) -> list[str]:
    """Names of metrics and families like a word, and of the metrics that have a score of such a name."""
    known = metrics()
    meant = {str(family): str(family) for family in Family} | {name: name for name in known}
    for name, kind in known.items():
        for score in kind.quantities:
            meant.setdefault(score, name)
    word = word.lower()
    return list(dict.fromkeys(meant[each] for each in ([word] if word in meant else get_close_matches(word, meant))))


def missing(metric: type[Metric], case: Case) -> str:
    """What a metric needs and a case lacks, in one sentence; empty if nothing."""
    there = {
        Need.MASK: bool(case.masks),
        Need.IMAGE: case.intensities is not None,
        Need.CLASSIFIER: case.asked is not None,
        Need.OTHERS: bool(case.others),
        Need.SECOND: case.second is not None,
    }
    lacking = [need for need in Need if need in metric.needs and not there[need]]
    return f"{metric.title} needs {' and '.join(lacking)}." if lacking else ""
