"""How far several explanations of the same image agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from math import nan
from typing import ClassVar

import numpy as np

from napari_xai_med.job import Job
from napari_xai_med.metrics.base import Family, Meaning, Metric, Need, register
from napari_xai_med.metrics.case import Case, Map, Sign
from napari_xai_med.metrics.outcome import EXPLANATION, Better, Float, Matrix, Outcome, Score, Verdict
from napari_xai_med.metrics.similarity_of_maps import moved_copies, rank_correlation, thinned, why_not
from napari_xai_med.metrics.unrelated import MOVED
from napari_xai_med.options import option

_COPIES = 20
_TOO_FEW = "A map has evidence in fewer voxels than the highest {:g} % of them."


def top_overlap(one: Map, other: Map, share: float) -> float | str:
    """The share that the highest voxels of two maps have in common, or why there is none.

    Voxels of equal value at the limit count in part, so that their order does not matter.

    Parameters
    ----------
    one, other : ndarray of float32
    share : float
        Of the voxels that are the highest; only those above zero can be.
    """
    if reason := why_not(one) or why_not(other):
        return reason
    count = max(1, round(share * one.size))
    if min(np.count_nonzero(one > 0), np.count_nonzero(other > 0)) < count:
        return _TOO_FEW.format(100 * share)
    weights = np.minimum(_highest(one, count), _highest(other, count))
    return float(weights.sum(dtype=np.float64) / count)


def _highest(values: Map, count: int) -> Map:
    """1 for the highest voxels, and a part of 1 for those at the limit."""
    limit = np.partition(values.ravel(), values.size - count)[values.size - count]
    above, level = values > limit, values == limit
    part = (count - np.count_nonzero(above)) / np.count_nonzero(level)
    return above.astype(np.float32) + np.float32(part) * level


@register
@dataclass(frozen=True)
class Agreement(Metric):
    """Rank correlation, and overlap of the highest voxels, of each pair of explanations.

    The ranks are those of signed values, or of absolute ones if these are the evidence.
    """

    name: ClassVar[str] = "agreement"
    title: ClassVar[str] = "Agreement between methods"
    family: ClassVar[Family] = Family.STABILITY
    about: ClassVar[str] = "How far the explanation agrees with others of the same image."
    paper: ClassVar[str] = (
        "Krishna et al. 2022, The disagreement problem in explainable machine learning, arXiv:2202.01602"
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.OTHERS})
    quantities: ClassVar[Mapping[str, Meaning]] = {
        "rank_correlation": Meaning(Better.HIGHER, "-1 to 1"),
        "top_overlap": Meaning(Better.HIGHER, "0 to 1"),
    }

    share: float = option(0.1, "Share of the voxels that count as the highest.", limits=(1e-6, 1.0))

    def measure(self, case: Case, job: Job) -> Outcome:
        """See `Metric`."""
        maps = {
            name: _strength(np.asarray(thinned(values), np.float32), case.sign)
            for name, values in {EXPLANATION: case.values, **case.others}.items()
        }
        names = list(maps)
        kinds = {"rank_correlation": rank_correlation, "top_overlap": self._overlap}
        tables: dict[str, Float] = {}
        scores: list[Score] = []
        for k, (kind, compare) in enumerate(kinds.items()):
            job.step(k / len(kinds), "Comparing explanations")
            table = np.array([[1.0 if not why_not(maps[a]) and a == b else nan for b in names] for a in names])
            for a, b in combinations(range(len(names)), 2):
                found = compare(maps[names[a]], maps[names[b]])
                if a == 0:
                    scores.append(self._score(kind, found, names[b], EXPLANATION))
                    scores.append(self._score(kind, self._control(maps, names[b], kind, case.seed), names[b], MOVED))
                if not isinstance(found, str):
                    table[a, b] = table[b, a] = found
            tables[kind] = table
        at = self._at
        plots = (
            Matrix("Agreement of ranks", "rank correlation", names, names, tables["rank_correlation"]),
            Matrix(f"Agreement of the {at}", "overlap", names, names, tables["top_overlap"]),
        )
        return Outcome(tuple(scores), _verdicts(scores), plots)

    @property
    def _at(self) -> str:
        return f"highest {100 * self.share:g} %"

    def _overlap(self, one: Map, other: Map) -> float | str:
        return top_overlap(one, other, self.share)

    def _score(self, kind: str, found: float | str, of: str, subject: str) -> Score:
        at = self._at if kind == "top_overlap" else ""
        value, reason = (nan, found) if isinstance(found, str) else (found, "")
        return Score(kind, value, reason, subject=subject, of=of, at=at, better=Better.HIGHER)

    def _control(self, maps: Mapping[str, Map], other: str, kind: str, seed: int) -> float | str:
        """The mean of the same number after the explanation was moved elsewhere."""
        compare = self._overlap if kind == "top_overlap" else rank_correlation
        found = [compare(copy, maps[other]) for copy in moved_copies(maps[EXPLANATION], _COPIES, seed)]
        return next((each for each in found if isinstance(each, str)), "") or float(np.mean(np.array(found, float)))


def _strength(values: Map, sign: Sign) -> Map:
    """What is ranked: unlike `Sign.of`, what speaks the other way comes last and not level with zero."""
    return np.abs(values) if sign is Sign.ABSOLUTE else -values if sign is Sign.NEGATIVE else values


def _verdicts(scores: list[Score]) -> tuple[Verdict, ...]:
    """The methods that agree least and most, and the control; who is right can't be told from that."""
    own = [each for each in scores if each.name == "rank_correlation" and np.isfinite(each.value)]
    found = sorted((each for each in own if each.subject == EXPLANATION), key=lambda each: each.value)
    control = [each.value for each in own if each.subject == MOVED]
    if not found:
        return ()
    told = [f"{each.of} ({each.value:.2f})" for each in found]
    which = f"lowest with {told[0]} and highest with {told[-1]}" if len(told) > 1 else f"with {told[0]}"
    return (
        Verdict(
            f"Rank correlation {which}; moved elsewhere {float(np.mean(control)):.2f}. That methods agree "
            "does not show that they are right."
        ),
    )
