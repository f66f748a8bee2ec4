"""How much a map changes when its image hardly does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from typing import ClassVar

import numpy as np

from napari_xai_med.job import Job
from napari_xai_med.metrics.asked_again import (
    ANSWERS_ALIKE,
    Answered,
    Changed,
    asked_of,
    noisy,
    shift_of,
    shifted,
    why_not_moved,
)
from napari_xai_med.metrics.base import Family, Meaning, Metric, Need, register
from napari_xai_med.metrics.case import Asked, Case, Map, Mask
from napari_xai_med.metrics.outcome import Better, Outcome, Score, Verdict
from napari_xai_med.metrics.similarity_of_maps import moved_copies, thinned
from napari_xai_med.metrics.unrelated import MOVED
from napari_xai_med.options import option

_COPIES = 20
"""Moved copies whose mean change is the control."""
_ZERO = "The map is zero everywhere, so that no change can be measured by its size."


def relative_change(one: Map, other: Map, inside: Mask | None = None) -> float:
    """Norm of the difference of two maps, divided by that of the first."""
    first, second = ((values if inside is None else values[inside]).astype(np.float64) for values in (one, other))
    return float(np.linalg.norm((second - first).ravel()) / np.linalg.norm(first.ravel()))


@register
@dataclass(frozen=True)
class MaxSensitivity(Metric):
    """Max-sensitivity: the largest relative change of the map among slightly changed images.

    As in captum, the norm of the change is divided by that of the map; Yeh et al. do not divide, which makes it
    depend on the method's units. Quantus' default divides by the map as well. The maps are compared on the grid of the
    network's input.

    References
    ----------
    Yeh et al. 2019, On the (in)fidelity and sensitivity of explanations, NeurIPS, arXiv:1901.09392.
    """

    name: ClassVar[str] = "max_sensitivity"
    title: ClassVar[str] = "Max-sensitivity"
    family: ClassVar[Family] = Family.STABILITY
    about: ClassVar[str] = "The largest change of the map among images with a little noise, and after small shifts."
    paper: ClassVar[str] = "Yeh et al. 2019, arXiv:1901.09392"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CLASSIFIER})
    panel: ClassVar[bool] = True
    quantities: ClassVar[Mapping[str, Meaning]] = {
        "max_sensitivity": Meaning(Better.LOWER, "0 up; share of the map"),
        "mean_sensitivity": Meaning(Better.LOWER, "0 up; share of the map"),
        "change_of_answer": Meaning(Better.NEITHER, "of a probability"),
    }

    samples: int = option(3, "Images with noise.", limits=(1, None))
    radius: float = option(
        0.02, "Largest noise in a voxel, drawn evenly, as a share of the image's range of values.", limits=(0, None)
    )
    shifts: int = option(1, "Images that are shifted.", limits=(0, None))
    millimetres: float = option(
        1.0, "How far along both axes of a slice; rounded to whole voxels, one at least.", limits=(0, None)
    )

    def measure(self, case: Case, job: Job) -> Outcome:
        """See `Metric`."""
        asked = asked_of(case)
        one = asked.on_input(case.values)
        groups = self._changed(asked, case.seed)
        if reason := case.not_finite or ("" if one.any() else _ZERO):
            told = Verdict.undefined(self.title, reason)
            return Outcome(tuple(_undefined(at, reason) for at in groups), (told,))
        count = 1 + sum(len(images) for images in groups.values())
        answered, done = Answered(asked, job.part(0.0, 1 / count)), 1
        control = _control(one, case.seed)
        scores: list[Score] = []
        verdicts = []
        for at, images in groups.items():
            if not images:
                scores.append(_undefined(at, why_not_moved(asked)))
                continue
            maps, answers = [], []
            for changed in images:
                values, inside, answer = answered.explain(changed, job.part(done / count, (done + 1) / count))
                maps.append(_change_of(one, values, inside))
                answers.append(abs(answer))
                done += 1
            found = [each for each in maps if np.isfinite(each)]
            if not found:
                scores.append(_undefined(at, "Nothing of the map is left after the shift."))
                continue
            scores += _scores(at, found, max(answers), control)
            verdicts.append(_verdict(at, max(found), max(answers), control))
        return Outcome(tuple(scores), tuple(verdicts), facts={"explanations": count - 1})

    def _changed(self, asked: Asked, seed: int) -> dict[str, list[Changed]]:
        """The changed images by how they were changed; none where the image can't be."""
        random = np.random.default_rng(seed)
        at = f"noise of {100 * self.radius:g} %"
        groups = {at: [Changed(at, noisy(asked.image, self.radius, random, uniform=True)) for _ in range(self.samples)]}
        if self.shifts and why_not_moved(asked):
            groups["shift"] = []
        elif self.shifts:
            images = [shifted(asked.image, shift_of(asked, self.millimetres, random)) for _ in range(self.shifts)]
            groups[images[0].name] = images
        return groups


def _control(one: Map, seed: int) -> float:
    """The mean change to the same map elsewhere."""
    small = np.asarray(thinned(one), np.float32)
    # Of a map with few values there may be nothing left.
    small = small if small.any() else one
    return float(np.mean([relative_change(small, copy) for copy in moved_copies(small, _COPIES, seed)]))


def _change_of(one: Map, values: Map, inside: Mask | None) -> float:
    known = one if inside is None else one[inside]
    return relative_change(one, values, inside) if known.any() else nan


def _undefined(at: str, reason: str) -> Score:
    return Score("max_sensitivity", nan, reason, at=at, better=Better.LOWER)


def _scores(at: str, found: list[float], answer: float, control: float) -> list[Score]:
    return [
        Score("max_sensitivity", max(found), at=at, better=Better.LOWER),
        Score("mean_sensitivity", float(np.mean(found)), at=at, better=Better.LOWER),
        Score("max_sensitivity", control, at=at, subject=MOVED, better=Better.LOWER),
        Score("change_of_answer", answer, at=at),
    ]


def _verdict(at: str, most: float, answer: float, control: float) -> Verdict:
    numbers = f"by {most:.2f} of its size, where unrelated maps differ by {control:.2f}, and the answer by {answer:.3f}"
    sentence = f"With {at} the map changes at most {numbers}"
    if answer > ANSWERS_ALIKE:
        return Verdict(f"{sentence}: the answer itself is not stable, and its explanation can't be.")
    if most < control / 2:
        return Verdict(f"{sentence}: it is stable.", True)
    return Verdict(f"{sentence}: it is not stable.", False)
