"""Where a map is highest: in the mask, or how far from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from napari_xai_med.metrics.base import Meaning, register
from napari_xai_med.metrics.case import Case, Mask
from napari_xai_med.metrics.outcome import Better, Float, Verdict
from napari_xai_med.metrics.over_masks import CHANCE, LENGTH, Found, MaskMetric, partial_mask, same_everywhere, share_of
from napari_xai_med.metrics.surfaces import Surface, places
from napari_xai_med.options import option

_DRAWN = 10000
"""Places that stand for all voxels: enough for a mean distance to about a hundredth."""


@register
@dataclass(frozen=True)
class Peak(MaskMetric):
    """Peak: the pointing game, and the distance of the map's highest voxel from the mask.

    Of several equal maxima, the share that hits and the mean distance. Chance is a place drawn at random: the share of
    voxels that would hit, and the mean distance of 10 000 of them.

    References
    ----------
    .. [1] J. Zhang et al. Top-down neural attention by excitation backprop. International Journal of Computer Vision
       126:1084-1102, 2018.
    """

    name = "peak"
    title = "Peak"
    about = "Whether the highest voxel lies in the mask, and how far from it if not."
    paper = "[Zhang et al. 2018](https://doi.org/10.1007/s11263-017-1059-x)"
    panel = True
    quantities: ClassVar[Mapping[str, Meaning]] = {
        "pointing_game": Meaning(),
        "peak_distance": Meaning(Better.LOWER, LENGTH),
    }

    tolerance: float = option(
        0.0, "Millimetres (pixels of a bare picture) from the mask at which a peak still hits.", limits=(0.0, None)
    )

    def compared(self, case: Case, name: str, mask: Mask) -> Found:
        """Measure from the maxima, and from places drawn at random."""
        if reason := partial_mask(mask) or same_everywhere(case):
            return Found(dict.fromkeys(self.quantities, reason))
        surface = Surface.of(mask, case.spacing)
        found = surface.distances_from(np.argwhere(case.evidence == np.float32(case.top)), mask)
        drawn = places(np.random.default_rng(case.seed), mask.shape, _DRAWN)
        chance = surface.distances_from(drawn, mask)
        numbers = {"pointing_game": float((found <= self.tolerance).mean()), "peak_distance": float(found.mean())}
        control = {"pointing_game": self._by_chance(mask, chance), "peak_distance": float(chance.mean())}
        unit = self.score(case, "peak_distance", 0.0).unit
        text = (
            f"The peak lies {numbers['peak_distance']:.1f} {unit} from {name}, a place drawn at random "
            f"{control['peak_distance']:.1f} {unit}"
        )
        notices = () if len(found) == 1 else (f"{len(found)} voxels share the maximum; all of them count as its peak.",)
        good = numbers["peak_distance"] < control["peak_distance"]
        verdict = Verdict(f"{text}; the map {'is' if good else 'is not'} highest near the mask.", good)
        return Found(numbers, {CHANCE: control}, verdicts=(verdict,), notices=notices)

    def _by_chance(self, mask: Mask, drawn: Float) -> float:
        if self.tolerance:
            return float((drawn <= self.tolerance).mean())
        return share_of(mask)
