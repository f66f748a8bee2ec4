"""Which voxels of a map count as marked: options that several metrics share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, isnan

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.errors import InputError
from napari_xai_med.metrics.case import Map, Mask
from napari_xai_med.options import option

KINDS = ("relative", "absolute", "percentile", "otsu", "top")

CHUNK = 2**17
"""Voxels that are looked at together: what is made of them stays in the processor's cache."""


@dataclass(frozen=True)
class Cut:
    """The values that count: above `lower` and up to `upper`.

    Parameters
    ----------
    lower, upper : float
        In the map's own units.
    text : str
        How to say it.
    """

    lower: float
    upper: float
    text: str

    def marked(self, values: Map) -> Mask:
        """Where a map, or a part of it, has such values."""
        above: Mask = values > np.float32(self.lower)
        return above if self.upper == inf else above & (values <= np.float32(self.upper))


@dataclass(frozen=True)
class Thresholded:
    """Options that say where a map counts as marked."""

    threshold: str = option(
        "relative",
        "What the threshold is: a share of the maximum, a value of the map, a percentile of all voxels, Otsu's, or the "
        "top per cent of the volume.",
        choices=KINDS,
    )
    lower: float = option(0.5, "Voxels above it are marked, for Otsu's it is not used.", limits=(0.0, None))
    upper: float = option(
        0.0, "Upper end of a band, up to which voxels are marked, in the same terms; 0 for none.", limits=(0.0, None)
    )

    def cut(self, evidence: Map, top: float) -> Cut:
        """What the options mean for a map.

        Parameters
        ----------
        evidence : ndarray of float32
            Nowhere below zero.
        top : float
            Its maximum, which is above zero.

        Raises
        ------
        InputError
            If the options contradict each other.
        """
        self._check()
        if self.threshold == "otsu":
            return _otsu(evidence, top)
        if self.threshold == "top":
            return _top(evidence, self.lower)
        shown = {"relative": "{:g} of the maximum", "absolute": "{:g}", "percentile": "percentile {:g}"}[self.threshold]
        ends = [self.lower, self.upper] if self.upper else [self.lower]
        if self.threshold == "relative":
            found = [end * top for end in ends]
        elif self.threshold == "percentile":
            found = [float(each) for each in np.percentile(evidence, ends)]
        else:
            found = ends
        text = f"> {shown.format(self.lower)}"
        if self.upper:
            return Cut(found[0], found[1], f"{text}, <= {shown.format(self.upper)}")
        return Cut(found[0], inf, text)

    def _check(self) -> None:
        share = {"relative": 1.0, "percentile": 100.0, "top": 100.0}.get(self.threshold, inf)
        if max(self.lower, self.upper) > share:
            raise InputError(f"A {self.threshold} threshold can't be above {share:g}; choose a lower one.")
        if self.upper and (self.upper <= self.lower or self.threshold in ("otsu", "top")):
            raise InputError(
                f"The band from {self.lower:g} to {self.upper:g} ({self.threshold}) is none; give an upper end above "
                "the lower one, of a share of the maximum, a value or a percentile."
            )


def _otsu(evidence: Map, top: float) -> Cut:
    from skimage.filters import threshold_otsu

    # Of shares, since the histogram fails on numbers as small as 1e-40. A map with one value has no classes to part;
    # scikit-image then returns that value, above which nothing lies.
    return Cut(float(threshold_otsu(evidence / np.float32(top))) * top, inf, "> Otsu's threshold")


def _top(evidence: Map, percent: float) -> Cut:
    """The value that so many voxels reach, those that share it included; voxels without evidence never count."""
    number = max(1, round(evidence.size * percent / 100))
    last = np.partition(evidence, evidence.size - number, axis=None)[evidence.size - number]
    below = float(np.nextafter(last, np.float32(-inf))) if last > 0 else 0.0
    return Cut(below, inf, f"top {percent:g} % of the volume")


def together(evidence: Map, mask: Mask) -> tuple[NDArray[np.float32], Mask]:
    """A map and a mask as two lines of voxels in the same order, without a copy where they lie alike."""
    # Those axes last that lie next to each other in the memory.
    if evidence.flags.f_contiguous:
        return evidence.T.ravel(), mask.T.ravel()
    return evidence.ravel(), mask.ravel()


def chunks(evidence: Map, mask: Mask) -> Iterator[tuple[NDArray[np.float32], Mask]]:
    """Parts of `together`, small enough for the processor's cache."""
    values, inside = together(evidence, mask)
    for start in range(0, values.size, CHUNK):
        yield values[start : start + CHUNK], inside[start : start + CHUNK]


@dataclass(frozen=True)
class Counts:
    """How many voxels are marked, in the mask, both, and there at all; expected ones are no whole numbers."""

    marked: float
    inside: float
    both: float
    voxels: float

    @classmethod
    def of(cls, evidence: Map, mask: Mask, cut: Cut) -> Counts:
        """Counted in one pass over a map and a mask."""
        marked = inside = both = 0
        for values, within in chunks(evidence, mask):
            chosen = cut.marked(values)
            marked += int(np.count_nonzero(chosen))
            inside += int(np.count_nonzero(within))
            both += int(np.count_nonzero(chosen & within))
        return cls(marked, inside, both, evidence.size)

    @property
    def by_chance(self) -> Counts:
        """What is expected if as many voxels are marked, but anywhere: the mean of the hypergeometric distribution."""
        return Counts(self.marked, self.inside, self.marked * self.inside / self.voxels, self.voxels)

    @property
    def dice(self) -> float:
        """Twice what both have over the sum of both; NaN if both are empty."""
        return ratio(2 * self.both, self.marked + self.inside)

    @property
    def iou(self) -> float:
        """What both have over what either has; NaN if both are empty."""
        return ratio(self.both, self.marked + self.inside - self.both)


def ratio(part: float, whole: float) -> float:
    """A share; NaN of nothing."""
    return part / whole if whole else float("nan")


def or_reason(value: float, reason: str) -> float | str:
    """A value, or why it is NaN."""
    return reason if isnan(value) else value
