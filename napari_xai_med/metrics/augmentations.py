"""How alike a map is after its image was turned, shifted or otherwise changed, and the map was brought back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import cos, nan, radians, sin
from typing import ClassVar

import numpy as np

from napari_xai_med.grid import Reorientation
from napari_xai_med.image import Image
from napari_xai_med.job import Job
from napari_xai_med.metrics.asked_again import (
    ANSWERS_ALIKE,
    Answered,
    Changed,
    asked_of,
    moved_by,
    noisy,
    seen_plane,
    shift_of,
    shifted,
    why_not_moved,
)
from napari_xai_med.metrics.base import Family, Meaning, Metric, Need, register
from napari_xai_med.metrics.case import Asked, Case
from napari_xai_med.metrics.outcome import Better, Matrix, Outcome, Score, Verdict
from napari_xai_med.metrics.similarity_of_maps import NAMES, moved_copies, similarities, thinned, why_not
from napari_xai_med.metrics.unrelated import MOVED, mean_score, means
from napari_xai_med.options import option

_COPIES = 4
_FLIPPED = (
    "The image was mirrored from left to right, which makes another body of it, with the heart and the liver on the "
    "wrong sides: that the map changes then may be right."
)
_NO_CHANGE = "All options of the change are 0, or 1."
_NO_SIDES = "Left and right can't be told, or do not lie in the slice."


@register
@dataclass(frozen=True)
class Augmentations(Metric):
    """Agreement of the map with those of changed images, moved back where the image was moved.

    By default the image is turned, shifted, given noise and another gamma and contrast, all of which leave its meaning
    alone. Similarities are computed where both maps are known, on the grid of the network's input.
    """

    name: ClassVar[str] = "augmentations"
    title: ClassVar[str] = "Stability under augmentations"
    family: ClassVar[Family] = Family.STABILITY
    about: ClassVar[str] = "How alike the maps of the turned, shifted, noisy, darker or flatter image are."
    paper: ClassVar[str] = (
        "Alvarez-Melis & Jaakkola 2018, On the robustness of interpretability methods, arXiv:1806.08049"
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CLASSIFIER})
    quantities: ClassVar[Mapping[str, Meaning]] = {
        **dict.fromkeys(NAMES, Meaning(Better.HIGHER, "-1 to 1")),
        "change_of_answer": Meaning(Better.NEITHER, "of a probability"),
    }

    degrees: float = option(5.0, "Rotation in the slice, to both sides; 0 for none.", limits=(0, 180))
    millimetres: float = option(3.0, "Shift along both axes of a slice; 0 for none.", limits=(0, None))
    noise: float = option(0.02, "Spread of noise, as a share of the image's range; 0 for none.", limits=(0, None))
    gamma: float = option(
        1.2, "Exponent of the values between the least and the largest; 1 for none.", limits=(0.01, None)
    )
    contrast: float = option(0.9, "Factor of the values about their mean; 1 for none.", limits=(0.01, None))
    flip: bool = option(False, "Mirror the image from left to right as well, which makes another body of it.")

    def measure(self, case: Case, job: Job) -> Outcome:
        """See `Metric`."""
        asked = asked_of(case)
        one = asked.on_input(case.values)
        images, reasons = self._changed(asked, case.seed)
        if reason := why_not(one):
            reasons = dict.fromkeys((*[each.name for each in images], *reasons), reason)
            images = []
        scores = [
            Score(kind, nan, reason, at=name, better=Better.HIGHER)
            for name, reason in reasons.items()
            for kind in NAMES
        ]
        untold = _untold(self.title, reasons if reasons or images else {"no change": _NO_CHANGE})
        if not images:
            return Outcome(tuple(scores), untold)
        count = 1 + len(images)
        answered = Answered(asked, job.part(0.0, 1 / count))
        # At once, and not for each comparison.
        one = np.asarray(thinned(one), np.float32)
        copies = list(moved_copies(one, _COPIES, case.seed))
        rows, verdicts = [], []
        for k, changed in enumerate(images, 1):
            values, inside, answer = answered.explain(changed, job.part(k / count, (k + 1) / count))
            values = np.asarray(thinned(values), np.float32)
            inside = None if inside is None else np.asarray(thinned(inside), bool)
            own = [similarities(one, values, inside)]
            control = [similarities(copy, values, inside) for copy in copies]
            at = changed.name
            scores += [mean_score(kind, own, at=at, better=Better.HIGHER) for kind in NAMES]
            scores += [mean_score(kind, control, subject=MOVED, at=at, better=Better.HIGHER) for kind in NAMES]
            scores.append(Score("change_of_answer", answer, at=at))
            rows.append(means(own))
            why = mean_score("spearman", own).reason or mean_score("spearman", control).reason
            said = Verdict(f"After {at} the maps can't be compared: {why}")
            verdicts.append(said if why else _verdict(at, rows[-1], means(control), answer))
        table = Matrix("Similarity after changes", "similarity", [each.name for each in images], NAMES, np.array(rows))
        notices = (_FLIPPED,) if self.flip and any("mirrored" in each.name for each in images) else ()
        return Outcome(tuple(scores), (*verdicts, *untold), (table,), notices, {"explanations": len(images)})

    def _changed(self, asked: Asked, seed: int) -> tuple[list[Changed], dict[str, str]]:
        """The changed images, and by name why others can't be."""
        image, random = asked.image, np.random.default_rng(seed)
        found: list[Changed] = []
        reasons: dict[str, str] = {}
        fixed = why_not_moved(asked)
        for degrees in (self.degrees, -self.degrees) if self.degrees else ():
            name = f"rotation by {degrees:g} degrees"
            found.append(Changed(name, image) if fixed else _turned(name, asked, degrees))
        if self.millimetres:
            found.append(shifted(image, shift_of(asked, self.millimetres, random)))
        if self.flip:
            axis = _side_axis(asked)
            if axis is None:
                reasons["mirrored"] = _NO_SIDES
            else:
                found.append(_mirrored(image, axis))
        if fixed:
            reasons |= {each.name: fixed for each in found}
            found = []
        if self.noise:
            found.append(Changed(f"noise of {100 * self.noise:g} %", noisy(image, self.noise, random)))
        if self.gamma != 1:
            found.append(Changed(f"gamma of {self.gamma:g}", _with_gamma(image, self.gamma)))
        if self.contrast != 1:
            mean = image.data.mean(dtype=np.float64)
            data = (mean + self.contrast * (image.data - mean)).astype(np.float32)
            found.append(Changed(f"contrast of {self.contrast:g}", replace(image, data=data)))
        return found, reasons


def _turned(name: str, asked: Asked, degrees: float) -> Changed:
    """The image turned about its centre in the plane of `seen_plane`, true to scale."""
    image, (first, second) = asked.image, seen_plane(asked)
    spacing = np.array(image.grid.spacing)
    turn = np.eye(image.ndim)
    angle = radians(degrees)
    turn[first, first] = turn[second, second] = cos(angle)
    turn[first, second], turn[second, first] = -sin(angle), sin(angle)
    matrix = np.eye(image.ndim + 1)
    matrix[:-1, :-1] = turn * spacing[None, :] / spacing[:, None]
    centre = (np.array(image.grid.shape) - 1) / 2
    matrix[:-1, -1] = centre - matrix[:-1, :-1] @ centre
    return moved_by(name, image, matrix)


def _side_axis(asked: Asked) -> int | None:
    """The axis from left to right: a picture's columns, or of a volume that which is nearest to it and is seen."""
    if asked.image.ndim == 2:
        return 1
    axis = Reorientation.between(asked.image.grid).order[2]
    return axis if asked.section.axis is None or axis in seen_plane(asked) else None


def _mirrored(image: Image, axis: int) -> Changed:
    matrix = np.eye(image.ndim + 1)
    matrix[axis, axis], matrix[axis, -1] = -1, image.grid.shape[axis] - 1
    return moved_by("mirrored from left to right", image, matrix)


def _with_gamma(image: Image, gamma: float) -> Image:
    low, high = float(image.data.min()), float(image.data.max())
    if high == low:
        return image
    data = low + (high - low) * ((image.data - low) / (high - low)) ** gamma
    return replace(image, data=data.astype(np.float32))


def _untold(title: str, reasons: Mapping[str, str]) -> tuple[Verdict, ...]:
    """A line for each reason why something can't be told, with the changes that it holds for."""
    changes = {why: [name for name, each in reasons.items() if each == why] for why in reasons.values()}
    return tuple(Verdict(f"{title} can't be told for {', '.join(names)}: {why}") for why, names in changes.items())


def _verdict(at: str, own: list[float], control: list[float], answer: float) -> Verdict:
    k = NAMES.index("spearman")
    numbers = f"{own[k]:.2f} (moved elsewhere {control[k]:.2f}), and the answer changes by {answer:+.3f}"
    sentence = f"After {at} the rank correlation is {numbers}"
    if abs(answer) > ANSWERS_ALIKE:
        return Verdict(f"{sentence}: the answer itself is not stable, and its explanation can't be.")
    if own[k] > (1 + control[k]) / 2:
        return Verdict(f"{sentence}: it is nearer to the same map than to an unrelated one.", True)
    return Verdict(f"{sentence}: it is nearer to an unrelated map than to the same one.", False)
