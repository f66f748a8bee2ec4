"""Which lesions of a mask a map finds, and what it marks where there are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.metrics.base import Meaning, register
from napari_xai_med.metrics.case import Case, Mask
from napari_xai_med.metrics.outcome import Better, Score, Verdict
from napari_xai_med.metrics.over_masks import (
    ALL_MASK,
    CHANCE,
    NO_EVIDENCE,
    NO_MASK,
    SIZE,
    Found,
    MaskMetric,
    Number,
    size_of,
    size_unit,
)
from napari_xai_med.metrics.thresholds import Thresholded
from napari_xai_med.options import option

LEAST = 5
"""Lesions from which on there are confidence intervals; resampling fewer says next to nothing."""

_COUNTS = ((1, "1 lesion"), (5, "2 to 5 lesions"))
"""Strata of the number of lesions; above the last one there are more."""

_RESAMPLED = 2000
"""Bootstrap samples."""


@register
@dataclass(frozen=True)
class Lesions(Thresholded, MaskMetric):
    """Lesions: how many connected parts of a mask the map touches, how much of each, and what it marks elsewhere.

    Confidence intervals are over lesions, from five on: Wilson's of the share that is hit, and the bootstrap's of the
    mean coverage. They tell how much the numbers depend on which lesions this image happens to have. There are none of
    numbers over voxels, whose neighbours tell the same: such intervals would be far too narrow. Chance is that as many
    voxels are marked, but anywhere.

    References
    ----------
    .. [1] A. A. Taha, A. Hanbury. Metrics for evaluating 3D medical image segmentation: analysis, selection, and tool.
       BMC Medical Imaging 15:29, 2015.
    .. [2] E. B. Wilson. Probable inference, the law of succession, and statistical inference. Journal of the American
       Statistical Association 22:209-212, 1927.
    .. [3] B. Efron. Bootstrap methods: another look at the jackknife. Annals of Statistics 7(1):1-26, 1979.
    """

    name = "lesions"
    title = "Lesions"
    about = "Which lesions, the connected parts of the mask, the map touches, and what it marks elsewhere."
    paper = (
        "[Wilson 1927](https://doi.org/10.1080/01621459.1927.10502953) and "
        "[Efron 1979](https://doi.org/10.1214/aos/1176344552) for the intervals"
    )
    quantities: ClassVar[Mapping[str, Meaning]] = {
        "lesions": Meaning(Better.NEITHER, "number"),
        "hit_rate": Meaning(),
        "lesion_coverage": Meaning(),
        "lesion_size": Meaning(Better.NEITHER, SIZE),
        "false_positive_size": Meaning(Better.LOWER, SIZE),
        "false_positive_parts": Meaning(Better.LOWER, "number"),
        "false_positive_mass": Meaning(Better.LOWER),
    }

    edges: tuple[float, ...] = option(
        (0.1, 1.0, 10.0),
        "Edges of the strata of lesion sizes: in mL, in cm2 of a 2D image, in thousands of pixels of a bare picture.",
        limits=(0.0, None),
    )
    each: bool = option(False, "Also tell the coverage and the size of every lesion.")

    def compared(self, case: Case, name: str, mask: Mask) -> Found:
        """Look at each connected part of a mask, and of what is marked outside it."""
        if not case.top:
            return Found(dict.fromkeys(self.quantities, NO_EVIDENCE))
        cut = self.cut(case.evidence, case.top)
        marked = cut.marked(case.evidence)
        numbers: dict[str, Number] = dict.fromkeys(self.quantities, NO_MASK)
        numbers |= {"lesions": 0.0, **_elsewhere(case, mask, marked)}
        if not mask.any():
            return Found(numbers, at=cut.text)
        labels, count = _parts(mask)
        voxels = np.bincount(labels[mask], minlength=count + 1)[1:]
        covered = np.bincount(labels[mask & marked], minlength=count + 1)[1:] / voxels
        hit = covered > 0
        sizes = size_of(case, 1.0) * voxels
        numbers |= {
            "lesions": float(count),
            "hit_rate": float(hit.mean()),
            "lesion_coverage": float(covered.mean()),
            "lesion_size": float(sizes.mean()),
        }
        share = np.count_nonzero(marked) / marked.size
        # That not all of its voxels are missed, with marks drawn one by one.
        chance = {"hit_rate": float((1 - (1 - share) ** voxels).mean()), "lesion_coverage": share}
        more = [*self._strata(case, name, cut.text, sizes, covered)]
        if self.each:
            more += self._of_each(case, name, cut.text, sizes, covered)
        return Found(
            numbers,
            {CHANCE: chance},
            cut.text,
            intervals(covered, case.seed),
            tuple(more),
            (_verdict(name, cut.text, hit, chance["hit_rate"]),),
        )

    def _strata(self, case: Case, name: str, at: str, sizes: NDArray[Any], covered: NDArray[Any]) -> list[Score]:
        """The same for lesions of like size; and to which stratum the image belongs by the number of its lesions."""
        unit = size_unit(case)
        factor = 1 if unit == "mL" else 1000 if case.is_bare else 100
        edges = [0.0, *(factor * edge for edge in sorted(set(self.edges) - {0.0})), np.inf]
        number = next((text for most, text in _COUNTS if len(sizes) <= most), f"more than {_COUNTS[-1][0]} lesions")
        scores = [self.score(case, "lesions", float(len(sizes)), of=name, at=number)]
        for low, high in pairwise(edges):
            chosen = covered[(sizes > low) & (sizes <= high)]
            text = f"{at}; lesions > {low:g} {unit}" + ("" if high == np.inf else f", <= {high:g} {unit}")
            none = "" if len(chosen) else "No lesion is of this size."
            ends = intervals(chosen, case.seed)
            for key, value in (("hit_rate", chosen > 0), ("lesion_coverage", chosen)):
                found = none or float(value.mean())
                low_end, high_end = ends.get(key, (np.nan, np.nan))
                scores.append(self.score(case, key, found, of=name, at=text, low=low_end, high=high_end))
        return scores

    def _of_each(self, case: Case, name: str, at: str, sizes: NDArray[Any], covered: NDArray[Any]) -> list[Score]:
        pairs = enumerate(zip(sizes, covered, strict=True), 1)
        return [
            self.score(case, key, float(value), of=f"{name}, lesion {k}", at=at)
            for k, (size, share) in pairs
            for key, value in (("lesion_coverage", share), ("lesion_size", size))
        ]


def intervals(covered: NDArray[Any], seed: int) -> dict[str, tuple[float, float]]:
    """Intervals of 95 % of the share of lesions that is hit and of their mean coverage; none of few lesions.

    Parameters
    ----------
    covered : ndarray, shape (lesions,)
        Share of each that is marked.
    seed : int
    """
    from scipy.stats import binomtest, bootstrap

    if len(covered) < LEAST:
        return {}
    wilson = binomtest(int((covered > 0).sum()), len(covered)).proportion_ci(method="wilson")
    ends = {"hit_rate": (float(wilson.low), float(wilson.high))}
    if np.ptp(covered) > 0:
        # Resampling equal numbers would claim certainty.
        random = np.random.default_rng(seed)
        found = bootstrap((covered,), np.mean, n_resamples=_RESAMPLED, method="percentile", random_state=random)
        ends["lesion_coverage"] = (float(found.confidence_interval.low), float(found.confidence_interval.high))
    return ends


def _parts(mask: Mask) -> tuple[NDArray[np.int32], int]:
    """Connected parts, also by corners."""
    from scipy.ndimage import generate_binary_structure, label

    labels, count = label(mask, generate_binary_structure(mask.ndim, mask.ndim))
    return labels, int(count)


def _elsewhere(case: Case, mask: Mask, marked: Mask) -> dict[str, Number]:
    """What is marked outside of a mask, which may be empty."""
    outside = ~mask
    number = int(np.count_nonzero(outside))
    if not number:
        return dict.fromkeys(("false_positive_size", "false_positive_parts", "false_positive_mass"), ALL_MASK)
    labels, count = _parts(marked)
    touching = np.unique(labels[mask & marked])
    mass = float(case.evidence.sum(dtype=np.float64, where=outside)) / number / case.top
    return {
        "false_positive_size": size_of(case, int(np.count_nonzero(marked & outside))),
        "false_positive_parts": float(count - len(touching)),
        "false_positive_mass": mass,
    }


def _verdict(name: str, at: str, hit: Sequence[bool] | NDArray[Any], chance: float) -> Verdict:
    text = f"The map ({at}) touches {int(np.sum(hit))} of {len(hit)} lesions of {name}"
    return Verdict(f"{text}; marks strewn anywhere would touch {chance:.0%} of them.", bool(np.mean(hit) > chance))
