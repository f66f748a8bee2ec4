"""Whether maps are more alike than maps that have nothing to do with each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import nan

import numpy as np
from scipy.stats import rankdata

from napari_xai_med.metrics.case import Map
from napari_xai_med.metrics.outcome import EXPLANATION, Better, Float, Score, Verdict
from napari_xai_med.metrics.similarity_of_maps import (
    NAMES,
    Similarities,
    mean_and_interval,
    moved_copies,
    similarities,
    thinned,
    why_not,
)

MOVED = "moved elsewhere"
"""The control: the map itself, moved elsewhere before it is compared."""

_COPIES = 199
"""Moved copies whose rank correlations are computed, which needs no new ranks."""
_FULLY_COMPARED = 4
"""Moved copies for which all similarities are computed."""
PART = 0.25
"""Share of the way from unrelated maps to the same map up to which maps count as different.

What looks at one image is never quite unrelated, since its edges and its empty parts are the same.
"""
_BEYOND = 0.95
"""Share of the moved copies that are less alike where a likeness is none by chance."""


def centred_ranks(values: Map) -> Float:
    """The ranks of a map's values around 0, of length 1: the product of two of these is Spearman's correlation."""
    ranks = rankdata(values).reshape(values.shape)
    ranks -= ranks.mean()
    found: Float = ranks / np.linalg.norm(ranks)
    return found


@dataclass(frozen=True, eq=False)
class Likeness:
    """How alike a map is to others, beside how alike it is to them when it is moved elsewhere.

    A permutation test for maps that are smooth: both keep all that they are, but for the place that they have in
    common, so that nothing has to be assumed of how smooth they are.

    Parameters
    ----------
    one : ndarray of float32, shape (*spatial)
    others : sequence of ndarray of float32, shape (*spatial)
        Those that can't be compared are told, and left out.
    seed : int
    """

    one: Map
    others: Sequence[Map]
    seed: int

    @cached_property
    def _pair(self) -> tuple[Map, list[Map]]:
        one = np.asarray(thinned(self.one), np.float32)
        others = [np.asarray(thinned(other), np.float32) for other in self.others]
        return one, [other for other in others if not why_not(other)]

    @property
    def reason(self) -> str:
        """Why nothing can be said, in one sentence; empty if something can."""
        if reason := why_not(self._pair[0]):
            return reason
        if self._pair[1]:
            return ""
        # Thinned: of a map with few values there may be nothing left.
        thin = (np.asarray(thinned(other), np.float32) for other in self.others)
        return next(map(why_not, thin), "There is no map to compare with.")

    @property
    def count(self) -> int:
        """How many of the others could be compared."""
        return len(self._pair[1])

    @cached_property
    def found(self) -> list[Similarities]:
        """The similarities with each of the others that can be compared."""
        return [similarities(self._pair[0], other) for other in self._pair[1]]

    @cached_property
    def unrelated(self) -> list[Similarities]:
        """The same after moving the map elsewhere."""
        one, others = self._pair
        if not others:
            return []
        copies = moved_copies(one, max(_FULLY_COMPARED, len(others)), self.seed)
        return [similarities(copy, others[k % len(others)]) for k, copy in enumerate(copies)]

    @cached_property
    def _ranks(self) -> tuple[Float, Float]:
        """Those of the map, and the mean of those of the others."""
        one, others = self._pair
        return centred_ranks(one), np.mean([centred_ranks(other) for other in others], axis=0)

    def _of_copies(self, *, anywhere: bool) -> list[float]:
        """Mean rank correlations of moved copies with the others."""
        one, others = self._ranks
        copies = moved_copies(one, _COPIES, self.seed, anywhere=anywhere)
        return [float((copy * others).sum()) for copy in copies]

    @cached_property
    def correlation(self) -> float:
        """Mean rank correlation with the others."""
        one, others = self._ranks
        return float((one * others).sum())

    @cached_property
    def by_chance(self) -> float:
        """Mean rank correlation of copies that are moved elsewhere."""
        return float(np.mean(self._of_copies(anywhere=False)))

    @cached_property
    def limit(self) -> float:
        """The rank correlation that 95 of 100 moved copies stay below."""
        return float(np.quantile(self._of_copies(anywhere=True), _BEYOND))

    @property
    def share(self) -> float:
        """How far the map is from unrelated ones, 0, towards being the same as the others, 1."""
        return (self.correlation - self.by_chance) / (1 - self.by_chance)

    @property
    def is_alike(self) -> bool:
        """Whether it is more alike than 95 of 100 moved copies, and by more than `PART` of the way to the same map."""
        return self.correlation > self.limit and self.share > PART

    @property
    def numbers(self) -> str:
        """The rank correlation and that of the control, for a sentence."""
        return f"rank correlation {self.correlation:.2f}, {MOVED} {self.by_chance:.2f}"

    def verdict(self, before: str, different: str, partly: str, alike: str) -> Verdict:
        """What likeness means where maps should differ.

        Parameters
        ----------
        before : str
            How the sentence begins.
        different, partly, alike : str
            How it ends: if the map is as the moved copies; if it is alike; if it is nearer to the same map than to
            these.
        """
        if self.reason:
            return Verdict(f"{before} nothing can be compared: {self.reason}")
        if not self.is_alike:
            return Verdict(f"{before} the map changes as unrelated maps differ ({self.numbers}): {different}.", True)
        if self.share <= 0.5:
            return Verdict(f"{before} the map keeps a part of its likeness ({self.numbers}): {partly}.", False)
        return Verdict(f"{before} the map stays alike ({self.numbers}): {alike}.", False)

    def scores(self, better: Better, of: str = "", at: str = "") -> list[Score]:
        """The mean similarities, and those of the control."""
        if reason := self.reason:
            return [Score(name, nan, reason, of=of, at=at, better=better) for name in NAMES]
        own = [mean_score(name, self.found, of=of, at=at, better=better) for name in NAMES]
        control = [mean_score(name, self.unrelated, subject=MOVED, of=of, at=at, better=better) for name in NAMES]
        return own + control


def mean_score(
    name: str,
    found: Sequence[Similarities],
    subject: str = EXPLANATION,
    of: str = "",
    at: str = "",
    better: Better = Better.NEITHER,
) -> Score:
    """The mean of one similarity with its confidence interval, or why there is none."""
    values = [value for each in found if not isinstance(value := each[name], str)]
    mean, low, high, reason = nan, nan, nan, ""
    if values:
        mean, *interval = mean_and_interval(values)
        # Student's t knows nothing of the range.
        low, high = np.clip(interval, -1, 1)
    else:
        reason = next((str(each[name]) for each in found), "There is nothing to compare.")
    return Score(name, mean, reason, subject=subject, of=of, at=at, better=better, low=low, high=high)


def means(found: Sequence[Similarities]) -> list[float]:
    """The mean of each similarity, NaN where there is none."""
    return [mean_score(name, found).value for name in NAMES]
