"""Whether a map is higher in a mask than outside it, without any threshold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isclose
from typing import ClassVar

import numpy as np

from napari_xai_med.metrics.base import Meaning, register
from napari_xai_med.metrics.case import Case, Map, Mask
from napari_xai_med.metrics.controls import against_controls
from napari_xai_med.metrics.outcome import Better
from napari_xai_med.metrics.over_masks import (
    CHANCE,
    NO_EVIDENCE,
    Found,
    MaskMetric,
    Number,
    partial_mask,
    same_everywhere,
    share_of,
)
from napari_xai_med.metrics.ranks import Ranks
from napari_xai_med.metrics.thresholds import chunks

_ENOUGH = 1000
"""Voxels of a mask that controls are ranked with at least, in a map of many millions."""
_NEAR = 0.02
"""Relative difference up to which two shares are the same."""


@register
@dataclass(frozen=True)
class Ranking(MaskMetric):
    """Ranking: AUROC, AUPRC, relevance mass and rank accuracy, and Spearman's correlation.

    References
    ----------
    .. [1] L. Arras, A. Osman, W. Samek. CLEVR-XAI: a benchmark dataset for the ground truth evaluation of neural
       network explanations. Information Fusion 81:14-40, 2022.
    .. [2] J. Davis, M. Goadrich. The relationship between precision-recall and ROC curves. ICML 2006.
    """

    name = "ranking"
    title = "Ranking"
    about = "Whether voxels in the mask are higher than those outside, at all thresholds at once."
    paper = "[Arras et al. 2022](https://doi.org/10.1016/j.inffus.2021.11.008)"
    panel = True
    quantities: ClassVar[Mapping[str, Meaning]] = {
        "auroc": Meaning(),
        "auprc": Meaning(),
        "relevance_mass_accuracy": Meaning(),
        "relevance_rank_accuracy": Meaning(),
        "spearman": Meaning(Better.HIGHER, "-1 to 1"),
    }

    def compared(self, case: Case, name: str, mask: Mask) -> Found:
        """Sort the map and each control once, for all numbers."""
        if reason := partial_mask(mask):
            return Found(dict.fromkeys(self.quantities, reason))
        share = share_of(mask)
        chance = {"auroc": 0.5, **dict.fromkeys(list(self.quantities)[1:4], share), "spearman": 0.0}
        if reason := same_everywhere(case):
            mass: Number = mass_inside(case.evidence, mask) if case.top else NO_EVIDENCE
            numbers = dict.fromkeys(self.quantities, reason) | {"relevance_mass_accuracy": mass}
            return Found(numbers, {CHANCE: chance})
        own = _ranked(case.evidence, mask)
        # Making and sorting controls of all voxels takes long.
        coarse, within = case.coarse, case.coarse.masks[name]
        if np.count_nonzero(within) >= _ENOUGH and not partial_mask(within) and _alike(case, coarse):
            case, mask = coarse, within
        controls = {CHANCE: chance, **{key: _ranked(case.sign.of(each), mask) for key, each in case.controls.items()}}
        # Chance alone is beaten by nearly half of all smooth random maps.
        auprc = {key: numbers["auprc"] for key, numbers in controls.items()}
        return Found(
            own, controls, verdicts=(against_controls(f"AUPRC for {name}", own["auprc"], auprc, Better.HIGHER),)
        )


def _alike(case: Case, coarse: Case) -> bool:
    """Whether controls are ranked the same with fewer voxels: as large a share of them has evidence."""
    own, left = (np.count_nonzero(each.evidence) / each.evidence.size for each in (case, coarse))
    return not same_everywhere(coarse) and isclose(own, left, rel_tol=_NEAR)


def _ranked(evidence: Map, mask: Mask) -> dict[str, float]:
    """All numbers of a map that is somewhere above another place."""
    ranks = Ranks.of(evidence, mask)
    return {
        "auroc": ranks.auroc,
        "auprc": ranks.auprc,
        "relevance_mass_accuracy": mass_inside(evidence, mask),
        "relevance_rank_accuracy": ranks.rank_accuracy,
        "spearman": ranks.spearman,
    }


def mass_inside(evidence: Map, mask: Mask) -> float:
    """Share of the sum of a map that lies in a mask."""
    inside = whole = 0.0
    for values, within in chunks(evidence, mask):
        whole += float(values.sum(dtype=np.float64))
        inside += float(values[within].sum(dtype=np.float64))
    return inside / whole
