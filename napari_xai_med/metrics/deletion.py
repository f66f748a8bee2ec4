"""Deletion and insertion: how soon the answer changes when voxels go, or come, in the order of the map."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from typing import ClassVar

import numpy as np
from scipy.integrate import trapezoid

from napari_xai_med.games.base import Float
from napari_xai_med.metrics.base import Meaning, register
from napari_xai_med.metrics.controls import against_controls
from napari_xai_med.metrics.outcome import EXPLANATION, Better, Curves, Line, Outcome, Score, Verdict
from napari_xai_med.metrics.probing import Probe, WithBaselines, joined
from napari_xai_med.metrics.removal import curves, levels_of
from napari_xai_med.options import option

_SAME = 1e-6
"""Difference of scores, relative to the larger one, that is none: float32 can hardly tell it."""
_NO_BASELINE = (
    "The baseline {} has a score of {:.3g} and the image one of {:.3g}: what is explained is not gone with it, so that "
    "nothing can be said; choose another baseline."
)


@dataclass(frozen=True)
class _Curve(WithBaselines):
    """One curve for the explanation and each control.

    AUC is the mean of the score over the share of the voxels. Normalised, the score of the image is 1 and that of the
    baseline 0, so that images and classifiers can be compared.
    """

    paper: ClassVar[str] = "Petsiuk et al. 2018, RISE, arXiv:1806.07421"
    panel: ClassVar[bool] = True
    taken: ClassVar[bool]
    """Whether voxels are taken away, or put back."""
    better: ClassVar[Better]

    steps: int = option(20, "Points of the curve behind its first one.", limits=(1, 1000))

    def judge(self, probe: Probe) -> Outcome:
        """One AUC, normalised and not, for each baseline and subject; see `Probing`."""
        shares = np.arange(1, self.steps + 1) / self.steps
        case = probe.case
        levels = {name: levels_of(values, shares.tolist(), case.sign, case.seed) for name, values in probe.maps.items()}
        baselines = probe.baselines(self.baselines, self)
        found = curves(probe, levels, self.steps, [self.taken], baselines, whole=True)[:, 0]
        x = np.concatenate([[0.0], shares])
        outcomes = []
        for name, lines in zip(self.baselines, found, strict=True):
            areas = dict(zip(probe.subjects, trapezoid(lines, x, axis=1).tolist(), strict=True))
            verdict, plot = self._verdict(name, areas, lines, probe), self._plot(name, probe, x, lines)
            outcomes.append(Outcome(tuple(self._scores(name, areas, lines)), (verdict,), (plot,)))
        return joined(outcomes, {"baselines": list(self.baselines), "steps": self.steps})

    def _ends(self, lines: Float) -> tuple[float, float]:
        """Scores of the image and of the baseline, where all curves begin and end."""
        first, last = lines[0, [0, -1]].tolist()
        return (first, last) if self.taken else (last, first)

    def _verdict(self, baseline: str, areas: Mapping[str, float], lines: Float, probe: Probe) -> Verdict:
        whole, nothing = self._ends(lines)
        if not probe.is_enough(whole, nothing):
            return Verdict(_NO_BASELINE.format(baseline, nothing, whole))
        controls = {subject: area for subject, area in areas.items() if subject != EXPLANATION}
        told = f"The area under the {self.name} curve (baseline {baseline}, {self.better} is better)"
        return against_controls(told, areas[EXPLANATION], controls, self.better)

    def _scores(self, baseline: str, areas: Mapping[str, float], lines: Float) -> list[Score]:
        whole, nothing = self._ends(lines)
        span = whole - nothing
        reason = "" if abs(span) > _SAME * max(abs(whole), abs(nothing)) else "Image and baseline have the same score."
        scores = []
        for subject, area in areas.items():
            at, share = f"baseline {baseline}", nan if reason else (area - nothing) / span
            for name, value, why in zip(self.quantities, (area, share), ("", reason), strict=True):
                scores.append(Score(name, value, why, subject=subject, at=at, better=self.better))
        return scores

    def _plot(self, baseline: str, probe: Probe, x: Float, lines: Float) -> Curves:
        drawn = tuple(Line(subject, x, y, subject) for subject, y in zip(probe.subjects, lines, strict=True))
        return Curves(f"{self.title}, baseline {baseline}", self._axis(), str(probe.facts["quantity"]), drawn)

    @abstractmethod
    def _axis(self) -> str:
        """What the x axis is."""


@register
@dataclass(frozen=True)
class Deletion(_Curve):
    """The curve of what is left when the most relevant voxels go first; see `_Curve`."""

    name: ClassVar[str] = "deletion"
    title: ClassVar[str] = "Deletion"
    about: ClassVar[str] = (
        "How soon the classifier's answer falls when voxels are taken away, the most relevant first; lower is better."
    )
    taken: ClassVar[bool] = True
    better: ClassVar[Better] = Better.LOWER
    quantities: ClassVar[Mapping[str, Meaning]] = {
        "deletion_auc": Meaning(Better.LOWER, "0 to 1 of a probability"),
        "deletion_auc_normalised": Meaning(Better.LOWER, "1 as the image, 0 as the baseline"),
    }

    def _axis(self) -> str:
        return "share of the voxels taken away"


@register
@dataclass(frozen=True)
class Insertion(_Curve):
    """The curve of what is there when the most relevant voxels come first; see `_Curve`.

    From zero on and not, as Petsiuk et al. have it, from the blurred image: a blur leaves diffuse findings in the
    image. Behind it, all of 20 phantom slices with ground glass and 17 of 20 volumes kept a probability above 0.99.
    """

    name: ClassVar[str] = "insertion"
    title: ClassVar[str] = "Insertion"
    about: ClassVar[str] = (
        "How soon the classifier's answer rises when voxels are put back, the most relevant first; higher is better."
    )
    taken: ClassVar[bool] = False
    better: ClassVar[Better] = Better.HIGHER
    quantities: ClassVar[Mapping[str, Meaning]] = {
        "insertion_auc": Meaning(Better.HIGHER, "0 to 1 of a probability"),
        "insertion_auc_normalised": Meaning(Better.HIGHER, "1 as the image, 0 as the baseline"),
    }

    def _axis(self) -> str:
        return "share of the voxels put back"
