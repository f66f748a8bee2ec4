"""What a classifier says without a region, and whether it uses what is not the patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import log, nan
from typing import ClassVar, cast

import numpy as np
import torch

from napari_xai_med.errors import Cancelled, XAIMedError
from napari_xai_med.job import Job
from napari_xai_med.metrics.base import Family, Meaning, Metric, Need, register
from napari_xai_med.metrics.case import Asked, Case, Map, Mask
from napari_xai_med.metrics.outcome import Better, Outcome, Score, Verdict
from napari_xai_med.metrics.regions import (
    BODY,
    NOT_PATIENT,
    OUTSIDE,
    Places,
    border_option,
    corner_option,
    find_regions,
)
from napari_xai_med.metrics.replacing import FILLS, ball_inside, flattened
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.head import Head
from napari_xai_med.models.target import Quantity, Target
from napari_xai_med.options import option
from napari_xai_med.section import where_it_can
from napari_xai_med.windows import answer_of

ELSEWHERE = "elsewhere in the patient"
_HALVED = log(2)
"""By how much the logit of the odds falls where the odds halve."""
_LEAST = 0.01
"""Of log odds: below that the region that counts most is the first one by chance, and not worth a name."""
_MOST = 0.25
"""Share of the patient that is replaced to compare with at most: more would hold the finding nearly always."""


@dataclass(frozen=True)
class _Said:
    """What a classifier says of the class, and of what was asked about it.

    Parameters
    ----------
    probability, logit : float
        Of the class.
    margin : float
        By how much its logit is larger than that of the class it is explained against; the logit where there is none.
    odds : float
        Log odds for what is explained: for the class, for it rather than the other one, or against it. NaN without
        probabilities.
    """

    probability: float
    logit: float
    margin: float
    odds: float


@dataclass(frozen=True)
class _Without:
    """What it says without a region, or why that is not known, and without some of the patient, and how much."""

    said: _Said | None
    elsewhere: tuple[_Said, ...] = ()
    reason: str = ""
    much: str = ""


@register
@dataclass(frozen=True)
class CounterfactualRegions(Metric):
    """How the answer changes when regions are replaced."""

    name: ClassVar[str] = "counterfactual_regions"
    title: ClassVar[str] = "Answers without regions"
    family: ClassVar[Family] = Family.SHORTCUTS
    about: ClassVar[str] = (
        "How the class's probability and logit change when a corner, the border, burnt-in text, the table or all that "
        "is not the body is replaced, beside as much of the patient replaced."
    )
    paper: ClassVar[str] = (
        "After DeGrave, Janizek & Lee 2021, AI for radiographic COVID-19 detection selects shortcuts over signal, "
        "Nature Machine Intelligence 3"
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CLASSIFIER})
    panel: ClassVar[bool] = True
    quantities: ClassVar[Mapping[str, Meaning]] = {
        "probability": Meaning(Better.NEITHER, "0 to 1"),
        "logit": Meaning(Better.NEITHER, "any"),
        "probability_change": Meaning(Better.NEITHER, "-1 to 1"),
        "logit_change": Meaning(Better.NEITHER, "any"),
    }

    fill: str = option(
        "surroundings",
        "What replaces a region: what its surroundings let one expect, the mean of all the rest, or the image blurred.",
        choices=tuple(FILLS),
    )
    blur: float = option(
        8.0, "Standard deviation of the blur in millimetres; in pixels for pictures.", limits=(0, None)
    )
    places: int = option(5, "How many places in the patient each region is compared with.", limits=(1, 100))
    border: float = border_option()
    corner: float = corner_option()

    def measure(self, case: Case, job: Job) -> Outcome:
        """Changes by region, and what they mean.

        Regions are replaced in the image itself, in its own units, and all of the preprocessing follows. Body
        and surroundings are made one value, the median of the surroundings: filled in, air would look like the body.

        The classifier *uses* a region that is not the patient if without it the odds of the class at least halve, over
        and above what they fall by without as much of the patient (the median of some places; a quarter of the patient
        for larger regions): less could be a change by chance, or what any replaced voxels do to this classifier. Where
        one class is explained against another the odds between these two count, and where what speaks against a class
        is explained, the odds against it.

        Returns
        -------
        Outcome
            Changes are the answer without the region minus the answer; negative where the region spoke for the class.
        """
        assert case.asked is not None
        places = find_regions(case, self.border, self.corner)
        (said, found), notices = where_it_can(case.asked.known, partial(self._ask, case, places, job))
        scores = [Score("probability", said.probability), Score("logit", said.logit)]
        for name, without in found.items():
            scores += _scores(name, said, without)
        scores += [Score("logit_change", nan, why, of=name) for name, why in places.missing.items()]
        different = {id(one) for each in found.values() for one in (*each.elsewhere, each.said) if one is not None}
        verdicts = _verdicts(case.asked, places, said, found)
        return Outcome(
            tuple(scores), verdicts, notices=notices, facts={"evaluations": 1 + len(different), "fill": self.fill}
        )

    def _ask(self, case: Case, places: Places, job: Job, classifier: Classifier) -> tuple[_Said, dict[str, _Without]]:
        """The answer itself, and those without each region."""
        assert case.asked is not None
        asked, spacing = case.asked, case.asked.section.image.grid.spacing
        data = asked.section.image.data
        masks = {name: _on_section(asked, mask) for name, mask in places.masks.items()}
        patient = _on_section(asked, places.patient)
        most = int(_MOST * np.count_nonzero(patient))
        said = _answer(asked, classifier, data, job.part(0.0, 0.0))
        # Regions of one size, such as the corners, are compared with the same places.
        known: dict[int, tuple[_Said, ...]] = {}
        found: dict[str, _Without] = {}
        for k, (name, mask) in enumerate(masks.items()):
            part = job.part(k / len(masks), (k + 1) / len(masks))
            part.step(0.0, f"Asking without {_named(name)}")
            size = int(np.count_nonzero(mask))
            count = min(size, most) if name in NOT_PATIENT else 0
            try:
                # A body may be drawn where none could be told from its surroundings.
                new = self._replaced(data, mask, spacing, masks.get(OUTSIDE) if name in (BODY, OUTSIDE) else None)
                answer = _answer(asked, classifier, new, part)
                if count and count not in known:
                    random = np.random.default_rng((case.seed, count))
                    balls = [ball_inside(patient, count, spacing, random) for _ in range(self.places)]
                    others = [self._replaced(data, ball, spacing) for ball in balls]
                    known[count] = tuple(_answer(asked, classifier, other, part) for other in others)
                much = "as much" if size <= most else "a quarter"
                found[name] = _Without(answer, known[count] if count else (), much=much)
            except Cancelled:
                raise
            except XAIMedError as error:
                found[name] = _Without(None, reason=str(error))
        return said, found

    def _replaced(self, data: Map, mask: Mask, spacing: Sequence[float], like: Mask | None = None) -> Map:
        """The image without a region, which becomes one value where it is said of which voxels."""
        return FILLS[self.fill](data, mask, spacing, self.blur) if like is None else flattened(data, mask, like)


def _on_section(asked: Asked, mask: Mask) -> Mask:
    """A mask of the explanation's own grid on that of the section that the classifier sees."""
    section = asked.section
    if section.turn is None or section.axis is None:
        return mask
    return cast("Mask", np.squeeze(section.turn.array(mask), section.axis))


def _answer(asked: Asked, classifier: Classifier, data: Map, job: Job) -> _Said:
    """What the classifier says of the section with other intensities."""
    seen = classifier.prepare(replace(asked.section.image, data=data))
    with torch.no_grad():
        answer, _ = answer_of(classifier, seen.tensor, job)
    index = int(answer.top[0]) if asked.request.target is None else classifier.find_class(asked.request.target)
    against = None if asked.request.against is None else classifier.find_class(asked.request.against)
    margin = float(Target(index, against).of(answer)[0])
    odds = nan
    if classifier.head not in (Head.REGRESSION, Head.SEGMENTATION):
        # Between two classes these are the margin.
        quantity = Quantity.LOG_ODDS if against is None else Quantity.LOGIT
        odds = float(Target(index, against, quantity, asked.request.opposite).of(answer)[0])
    return _Said(float(answer.probabilities[0, index]), float(answer.scores[0, index]), margin, odds)


def _scores(name: str, said: _Said, without: _Without) -> list[Score]:
    scores = []
    for quantity in ("probability", "logit"):
        before, label = getattr(said, quantity), f"{quantity}_change"
        if without.said is None:
            scores.append(Score(label, nan, without.reason, of=name))
            continue
        scores.append(Score(label, getattr(without.said, quantity) - before, of=name))
        changes = [getattr(each, quantity) - before for each in without.elsewhere]
        if changes:
            low, high = np.percentile(changes, [2.5, 97.5])
            middle = float(np.median(changes))
            scores.append(Score(label, middle, of=name, subject=ELSEWHERE, low=float(low), high=float(high)))
    return scores


def _verdicts(asked: Asked, places: Places, said: _Said, found: Mapping[str, _Without]) -> tuple[Verdict, ...]:
    """A sentence for each region that is used, or one that none is; and for the body and drawn masks."""
    used: list[tuple[str, str]] = []
    calm: list[tuple[float, str, str]] = []
    others: list[Verdict] = []
    way = f" against {_explained(asked)}" if asked.request.opposite else ""
    for name, without in found.items():
        if without.said is None:
            continue
        change = _change(asked, said, without)
        if name == BODY or name in places.drawn:
            others.append(Verdict(f"Without {_named(name)} {change}."))
            continue
        control = float(np.median([said.odds - each.odds for each in without.elsewhere])) if without.elsewhere else 0.0
        fall = said.odds - without.said.odds - max(control, 0.0)
        if fall >= _HALVED:
            used.append((name, change))
        else:
            calm.append((fall, name, change))
    if used:
        main = [
            Verdict(f"Without {_named(name)} {change}: the classifier uses it{way}.", False) for name, change in used
        ]
    elif not calm:
        main = []
    elif np.isnan(said.odds):
        main = [Verdict(f"Without {_named(name)} {change}.") for _, name, change in calm]
    else:
        main = [Verdict(_unused(asked, *max(calm)), True)]
    return (*main, *others)


def _unused(asked: Asked, fall: float, name: str, change: str) -> str:
    """That nothing is used but the patient, with the region that counts most if any does."""
    if fall < _LEAST:
        way = "against" if asked.request.opposite else "for"
        return (
            "No region that is not the patient is used: without any of them the log odds "
            f"{way} {_explained(asked)} fall by at most {max(fall, 0.0):.2f}, beyond what they may fall without as "
            "much of the patient, or a quarter of it."
        )
    return (
        f"Without {_named(name)}, which counts most of what is not the patient, {change}: the classifier does not use "
        "it."
    )


def _explained(asked: Asked) -> str:
    """The class, and the one that it is explained against."""
    target, against = asked.request.target or "the class", asked.request.against
    return str(target) if against is None else f"{target} rather than {against}"


def _change(asked: Asked, said: _Said, without: _Without) -> str:
    """Both answers, in logits where the probabilities look the same, and between two classes."""
    assert without.said is not None
    each, named = (said, without.said, *without.elsewhere), _explained(asked)
    what, numbers = f"the {asked.known.head.quantity} of {named}", [one.probability for one in each]
    if asked.request.against is not None or f"{numbers[0]:.3g}" == f"{numbers[1]:.3g}":
        what, numbers = f"the logit of {named}", [one.margin for one in each]
    before, after = (f"{number:.3g}" for number in numbers[:2])
    way = f"falls from {before} to {after}" if numbers[1] < numbers[0] else f"rises from {before} to {after}"
    control = f" (without {without.much} of the patient: {np.median(numbers[2:]):.3g})" if without.elsewhere else ""
    return f"{what} {way if before != after else f'stays at {before}'}{control}"


def _named(name: str) -> str:
    return f"what lies {name}" if name == OUTSIDE else f"the {name}"
