"""Pixel flipping: how far the answer falls on average while regions go, the most relevant first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from napari_xai_med.games.base import Float
from napari_xai_med.metrics.base import Meaning, register
from napari_xai_med.metrics.case import Sign
from napari_xai_med.metrics.controls import against_controls
from napari_xai_med.metrics.outcome import EXPLANATION, Better, Curves, Line, Outcome, Score
from napari_xai_med.metrics.parts import parts_of, parts_option, sums_of
from napari_xai_med.metrics.probing import Probe, WithBaselines, joined
from napari_xai_med.metrics.removal import Levels, curves, levels_of
from napari_xai_med.options import option
from napari_xai_med.segments.base import Labels


@register
@dataclass(frozen=True)
class PixelFlipping(WithBaselines):
    """Regions go one by one, by the map's sum over each; a region can be a voxel.

    AOPC is the mean of the fall over all steps, with the image itself as the first; ABPC is by how much it is larger
    than the AOPC with the least relevant regions first.
    """

    name: ClassVar[str] = "pixel_flipping"
    title: ClassVar[str] = "Pixel flipping"
    about: ClassVar[str] = (
        "How far the answer falls on average while regions are taken away one by one, the most relevant first (AOPC); "
        "higher is better."
    )
    paper: ClassVar[str] = "Bach et al. 2015, PLoS ONE 10(7); Samek et al. 2017, arXiv:1509.06321"
    quantities: ClassVar[Mapping[str, Meaning]] = {
        "aopc": Meaning(Better.HIGHER, "-1 to 1 of a probability"),
        "aopc_least_first": Meaning(Better.LOWER, "-1 to 1 of a probability"),
        "abpc": Meaning(Better.HIGHER, "-1 to 1 of a probability"),
    }

    regions: int = parts_option()
    flips: int = option(40, "Regions that are taken away, or all if there are fewer.", limits=(1, 10_000))

    def judge(self, probe: Probe) -> Outcome:
        """Most and least relevant first, for each baseline and subject; see `Probing`."""
        labels = parts_of(probe, "grid", self.regions)
        flips = min(self.flips, int(labels.max()))
        levels = {
            f"{least} {name}": self._levels(probe, name, labels, flips, least=least)
            for least in (False, True)
            for name in probe.subjects
        }
        baselines = probe.baselines(self.baselines, self)
        whole = flips == int(labels.max()) and bool((labels > 0).all())
        found = curves(probe, levels, flips, [True], baselines, whole=whole)[:, 0]
        outcomes = [
            self._told(probe, f"baseline {name}", lines.reshape(2, len(probe.subjects), flips + 1))
            for name, lines in zip(self.baselines, found, strict=True)
        ]
        facts = {"baselines": list(self.baselines), "regions": int(labels.max()), "flips": flips}
        return joined(outcomes, facts)

    def _levels(self, probe: Probe, name: str, labels: Labels, flips: int, *, least: bool) -> Levels:
        """At which step each voxel's region goes."""
        values, sign = probe.maps[name], probe.case.sign
        sums = sums_of(np.abs(values) if sign is Sign.ABSOLUTE else values, labels)
        shares = np.arange(1, flips + 1) / len(sums)
        levels = levels_of(sums, shares.tolist(), sign, probe.case.seed, least=least)
        return np.concatenate([[flips], levels]).astype(np.int16)[labels]

    def _told(self, probe: Probe, at: str, lines: Float) -> Outcome:
        falls = lines[..., :1] - lines
        most, least = falls.mean(2)
        scores = [
            Score(name, value, subject=subject, at=at, better=self.quantities[name].better)
            for k, subject in enumerate(probe.subjects)
            for name, value in zip(self.quantities, (most[k], least[k], most[k] - least[k]), strict=True)
        ]
        means = dict(zip(probe.subjects, most.tolist(), strict=True))
        verdict = against_controls(f"AOPC ({at}, higher is better)", means.pop(EXPLANATION), means, Better.HIGHER)
        x = np.arange(falls.shape[2], dtype=float)
        drawn = tuple(Line(subject, x, y, subject) for subject, y in zip(probe.subjects, falls[0], strict=True))
        plot = Curves(f"{self.title}, {at}", "regions taken away", "fall of the score", drawn)
        return Outcome(tuple(scores), (verdict,), (plot,))
