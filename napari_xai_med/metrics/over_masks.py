"""What metrics that compare a map with masks share: every mask in turn, and reasons where there is no number."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import nan
from typing import ClassVar

import numpy as np

from napari_xai_med.job import Job
from napari_xai_med.metrics.base import Family, Metric, Need
from napari_xai_med.metrics.case import Case, Mask
from napari_xai_med.metrics.outcome import EXPLANATION, Outcome, Plot, Score, Verdict

NO_EVIDENCE = "The map has nothing above zero that could be compared; choose another sign or class."
NO_MASK = "The mask is empty."
ALL_MASK = "The mask covers the whole image, so that nothing could lie outside it."
ALIKE = "The map has the same value everywhere, so that it prefers no place."

CHANCE = "chance"
"""The control that marks as much, but anywhere."""

Number = float | str
"""A value, or the reason why there is none."""


@dataclass(frozen=True)
class Found:
    """What a metric found about one mask.

    Parameters
    ----------
    numbers : mapping of str to float or str
        By name of the score; a text is the reason why there is none.
    controls : mapping of str to such a mapping
        By the control's name.
    at : str
        At which setting.
    ends : mapping of str to (float, float)
        Confidence intervals of `numbers`.
    more : tuple of Score
        Scores of their own, such as of each lesion.
    verdicts, plots, notices
        As of `Outcome`.
    """

    numbers: Mapping[str, Number]
    controls: Mapping[str, Mapping[str, Number]] = field(default_factory=dict)
    at: str = ""
    ends: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    more: tuple[Score, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    plots: tuple[Plot, ...] = ()
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class MaskMetric(Metric):
    """A metric that compares the evidence of a map with each mask."""

    family: ClassVar[Family] = Family.OVERLAP
    needs: ClassVar[frozenset[Need]] = frozenset({Need.MASK})

    @abstractmethod
    def compared(self, case: Case, name: str, mask: Mask) -> Found:
        """Compare the evidence, which is finite, with one mask."""

    def measure(self, case: Case, job: Job) -> Outcome:
        """Compare the evidence with every mask; see `Metric.measure`."""
        reason = case.not_finite
        scores: list[Score] = []
        found: list[Found] = []
        for k, (name, mask) in enumerate(case.masks.items()):
            job.step(k / len(case.masks), f"{self.title}: {name}")
            one = Found(dict.fromkeys(self.quantities, reason)) if reason else self.compared(case, name, mask)
            scores += [*self._scores(case, name, one), *one.more]
            found.append(
                one if one.verdicts or not self.panel else replace(one, verdicts=_unsaid(self.title, name, one))
            )
        return Outcome(
            tuple(scores),
            tuple(verdict for one in found for verdict in one.verdicts),
            tuple(plot for one in found for plot in one.plots),
            # A dict keeps each sentence once, in order.
            tuple(dict.fromkeys(text for one in found for text in one.notices)),
        )

    def _scores(self, case: Case, of: str, found: Found) -> list[Score]:
        scores = []
        for subject, numbers in {EXPLANATION: found.numbers, **found.controls}.items():
            for name, number in numbers.items():
                low, high = found.ends.get(name, (nan, nan)) if subject == EXPLANATION else (nan, nan)
                scores.append(self.score(case, name, number, subject=subject, of=of, at=found.at, low=low, high=high))
        return scores

    def score(
        self,
        case: Case,
        name: str,
        number: Number,
        *,
        subject: str = EXPLANATION,
        of: str = "",
        at: str = "",
        low: float = nan,
        high: float = nan,
    ) -> Score:
        """One score of those in `quantities`, with its unit."""
        value, reason = (nan, number) if isinstance(number, str) else (number, "")
        quantity = self.quantities[name]
        unit = {SIZE: size_unit(case), LENGTH: "pixels" if case.is_bare else "mm", DECIBEL: "dB"}.get(
            quantity.range, ""
        )
        return Score(name, value, reason, unit, subject, of, at, quantity.better, low, high)


def _unsaid(title: str, mask: str, found: Found) -> tuple[Verdict, ...]:
    """That nothing can be said, and why."""
    reason = next((number for number in found.numbers.values() if isinstance(number, str)), "")
    return (Verdict(f"{title}: nothing can be said about {mask}. {reason}".rstrip()),)


SIZE, LENGTH, DECIBEL = "mL, mm2 in 2D, or pixels", "mm, or pixels", "dB"
"""Ranges of quantities that have a unit, which depends on the image for the first two."""


def size_unit(case: Case) -> str:
    """What sizes of parts of an image are told in."""
    return "pixels" if case.is_bare else "mL" if case.grid.ndim == 3 else "mm2"


def size_of(case: Case, voxels: float) -> float:
    """The size of so many voxels, in the unit of `size_unit`."""
    if case.is_bare:
        return voxels
    return voxels * case.voxel_volume / (1000 if case.grid.ndim == 3 else 1)


def partial_mask(mask: Mask) -> str:
    """Why a mask has no inside or no outside; empty if it has both."""
    return "" if mask.any() and not mask.all() else ALL_MASK if mask.any() else NO_MASK


def share_of(mask: Mask) -> float:
    """Share of the image that a mask is."""
    return int(np.count_nonzero(mask)) / mask.size


def same_everywhere(case: Case) -> str:
    """Why the evidence prefers no place; empty if it does."""
    if not case.top:
        return NO_EVIDENCE
    return ALIKE if case.evidence.min() == case.top else ""


def beside(value: float, control: float, what: str, of: str, meaning: str) -> Verdict:
    """A value that should be above that of chance, in words.

    Parameters
    ----------
    value, control : float
    what : str
        What is compared.
    of : str
        The mask's name.
    meaning : str
        What a number above chance says.
    """
    good = value > control
    compared = f"{what} for {of}: {value:.3f}, {control:.3f} by chance"
    return Verdict(f"{compared}; {meaning if good else f'this does not say that {meaning}'}.", good)
