"""Sufficiency and comprehensiveness: what the most relevant voxels alone say, and what is said without them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from napari_xai_med.games.base import Float
from napari_xai_med.metrics.base import Meaning, register
from napari_xai_med.metrics.controls import against_controls
from napari_xai_med.metrics.outcome import EXPLANATION, Better, Curves, Line, Outcome, Score
from napari_xai_med.metrics.probing import Probe, WithBaselines, joined
from napari_xai_med.metrics.removal import curves, levels_of
from napari_xai_med.metrics.shares import checked_shares
from napari_xai_med.options import option

_NAMES = ("comprehensiveness", "sufficiency")


@register
@dataclass(frozen=True)
class SufficiencyComprehensiveness(WithBaselines):
    """How far the score falls with the most relevant voxels alone, and without them.

    Both at each share, and as DeYoung et al.'s area over the perturbation curve: the sum over the shares, divided by
    their number plus one, for the image itself that nothing is taken from.
    """

    name: ClassVar[str] = "sufficiency_comprehensiveness"
    title: ClassVar[str] = "Sufficiency and comprehensiveness"
    about: ClassVar[str] = (
        "How far the answer falls when only the most relevant voxels are left (sufficiency, lower is better), and when "
        "just these are taken away (comprehensiveness, higher is better)."
    )
    paper: ClassVar[str] = "DeYoung et al. 2020, ERASER, ACL, arXiv:1911.03429"
    quantities: ClassVar[Mapping[str, Meaning]] = {
        "comprehensiveness": Meaning(Better.HIGHER, "-1 to 1 of a probability"),
        "sufficiency": Meaning(Better.LOWER, "-1 to 1 of a probability"),
        "comprehensiveness_aopc": Meaning(Better.HIGHER, "-1 to 1 of a probability"),
        "sufficiency_aopc": Meaning(Better.LOWER, "-1 to 1 of a probability"),
    }

    shares: tuple[float, ...] = option(
        (0.01, 0.05, 0.1, 0.2, 0.5), "Shares of the voxels that are the most relevant ones, rising.", limits=(0.0001, 1)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_shares(self.shares, self.title)

    def judge(self, probe: Probe) -> Outcome:
        """Both at each share and over all of them, for each baseline and subject; see `Probing`."""
        case, count = probe.case, len(self.shares)
        levels = {name: levels_of(values, self.shares, case.sign, case.seed) for name, values in probe.maps.items()}
        baselines = probe.baselines(self.baselines, self)
        found = curves(probe, levels, count, [True, False], baselines, whole=self.shares[-1] == 1)
        told = [
            self._told(probe, name, f"baseline {baseline}", lines)
            for baseline, ways in zip(self.baselines, found, strict=True)
            # The first point without the first voxels is the image itself.
            for name, lines in zip(_NAMES, ways[0, :1, :1] - ways[:, :, 1:], strict=True)
        ]
        return joined(told, {"baselines": list(self.baselines), "shares": list(self.shares)})

    def _told(self, probe: Probe, name: str, at: str, lines: Float) -> Outcome:
        """One of both, of falls, (number of subjects, number of shares)."""
        better = self.quantities[name].better
        means = dict(zip(probe.subjects, (lines.sum(1) / (len(self.shares) + 1)).tolist(), strict=True))
        scores = []
        for subject, line in zip(probe.subjects, lines, strict=True):
            for share, value in zip(self.shares, line, strict=True):
                scores.append(Score(name, value, subject=subject, at=f"{at}, {share:.4g} of the voxels", better=better))
            scores.append(Score(f"{name}_aopc", means[subject], subject=subject, at=at, better=better))
        own = means.pop(EXPLANATION)
        verdict = against_controls(f"The mean {name} ({at}, {better} is better)", own, means, better)
        x = np.array(self.shares)
        drawn = tuple(Line(subject, x, line, subject) for subject, line in zip(probe.subjects, lines, strict=True))
        plot = Curves(f"{name.capitalize()}, {at}", "share of the voxels", "fall of the score", drawn)
        return Outcome(tuple(scores), (verdict,), (plot,))
