"""Sensitivity-n: whether what a map says of parts together is by how much the answer falls without them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from typing import ClassVar

import numpy as np

from napari_xai_med.games.base import Float
from napari_xai_med.metrics.base import Meaning, register
from napari_xai_med.metrics.controls import against_controls
from napari_xai_med.metrics.outcome import EXPLANATION, Better, Curves, Line, Outcome, Score
from napari_xai_med.metrics.parts import all_sums, falls, parts_of, parts_option
from napari_xai_med.metrics.probing import AS_EXPLAINED, QUANTITIES, Probe, WithBaselines, joined
from napari_xai_med.metrics.shares import checked_shares
from napari_xai_med.options import option

_SAME = "The {} is the same for all sets of parts of one size."


@register
@dataclass(frozen=True)
class SensitivityN(WithBaselines):
    """Pearson correlation over random sets of n parts, for several n; boxes stand for Ancona et al.'s pixels."""

    name: ClassVar[str] = "sensitivity_n"
    title: ClassVar[str] = "Sensitivity-n"
    about: ClassVar[str] = (
        "How well the map's sum over n parts goes with the fall of the answer without them: correlation over random "
        "sets, as a mean over several n; 1 is best."
    )
    paper: ClassVar[str] = "Ancona et al. 2018, Towards better understanding of gradient-based attribution methods"
    quantities: ClassVar[Mapping[str, Meaning]] = {
        "sensitivity_n": Meaning(Better.HIGHER, "-1 to 1"),
        "sensitivity_n_mean": Meaning(Better.HIGHER, "-1 to 1"),
    }
    ranks: ClassVar[bool] = False

    quantity: str = option(
        AS_EXPLAINED,
        "What is asked of the classifier; as for deletion.",
        choices=QUANTITIES,
    )
    parts: int = parts_option()
    shares: tuple[float, ...] = option(
        (0.05, 0.1, 0.2, 0.4, 0.6, 0.8), "Shares of the parts that are taken away together, rising.", limits=(0, 1)
    )
    samples: int = option(50, "Random sets of each size.", limits=(3, 100_000))

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_shares(self.shares, self.title)

    def judge(self, probe: Probe) -> Outcome:
        """Correlations for each baseline, size and subject; see `Probing`."""
        labels = parts_of(probe, "grid", self.parts)
        count = int(labels.max())
        random = np.random.default_rng((probe.case.seed, 4))
        sizes = sorted({min(max(round(share * count), 1), count - 1) for share in self.shares})
        # The parts of the smallest random numbers.
        order = random.random((len(sizes), self.samples, count)).argsort(2).argsort(2)
        gone = order < np.array(sizes)[:, None, None]
        said = gone @ all_sums(probe.maps, labels).T
        baselines = probe.baselines(self.baselines, self)
        outcomes = []
        for k, name in enumerate(self.baselines):
            shares = k / len(baselines), (k + 1) / len(baselines)
            fell = falls(probe, labels, gone.reshape(-1, count), baselines[k], *shares).reshape(gone.shape[:2])
            outcomes.append(self._told(probe, f"baseline {name}", sizes, fell, said))
        facts = {"baselines": list(self.baselines), "parts": count, "sizes": sizes, "samples": self.samples}
        return joined(outcomes, facts)

    def _told(self, probe: Probe, told: str, sizes: list[int], fell: Float, said: Float) -> Outcome:
        scores, means, drawn = [], {}, []
        for k, subject in enumerate(probe.subjects):
            found = [_correlation(said[n, :, k], fell[n]) for n in range(len(sizes))]
            values = np.array([value for value, _ in found])
            reason = next((reason for _, reason in found if reason), "")
            means[subject] = nan if reason else float(values.mean())
            scores += [
                Score(self.name, value, why, subject=subject, at=f"{told}, n = {n}", better=Better.HIGHER)
                for n, (value, why) in zip(sizes, found, strict=True)
            ]
            scores.append(
                Score(f"{self.name}_mean", means[subject], reason, subject=subject, at=told, better=Better.HIGHER)
            )
            drawn.append(Line(subject, np.array(sizes, float), values, subject))
        own = means.pop(EXPLANATION)
        verdict = against_controls(f"Sensitivity-n ({told}, higher is better)", own, means, Better.HIGHER)
        plot = Curves(f"{self.title}, {told}", "n, parts taken away", "correlation", tuple(drawn))
        return Outcome(tuple(scores), (verdict,), (plot,))


def _correlation(said: Float, fell: Float) -> tuple[float, str]:
    """Pearson's correlation, or NaN and why it is not defined."""
    for values, what in ((said, "map's sum"), (fell, "fall of the score")):
        if np.ptp(values) <= 1e-9 * np.abs(values).max():
            return nan, _SAME.format(what)
    return float(np.corrcoef(said, fell)[0, 1]), ""
