"""Whether a map becomes more complex when the network forgets all that it learnt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from typing import ClassVar

import numpy as np
from scipy.stats import entropy

from napari_xai_med.errors import ModelError
from napari_xai_med.job import Job
from napari_xai_med.metrics.asked_again import asked_of
from napari_xai_med.metrics.base import Family, Meaning, Metric, Need, register
from napari_xai_med.metrics.case import Case, Map
from napari_xai_med.metrics.outcome import Better, Outcome, Score, Verdict
from napari_xai_med.metrics.parameter_randomisation import random_maps
from napari_xai_med.metrics.similarity_of_maps import mean_and_interval, why_not
from napari_xai_med.models.randomised import weight_layers
from napari_xai_med.options import option

RANDOM = "random weights"
"""The subject of the complexity of maps of random networks."""

_CONSTANT = "With random weights the map is the same everywhere."


def complexity(values: Map, bins: int) -> float:
    """Entropy in nats of the histogram of a map's absolute values, in bins of equal width from the least to the most.

    Quantus divides by the square root of the map's mean square first, which changes no bin.
    """
    counts, _ = np.histogram(np.abs(values.astype(np.float64)), bins)
    return float(entropy(counts))


@register
@dataclass(frozen=True)
class EfficientRandomisation(Metric):
    """Efficient model parameter randomisation test (eMPRT): the relative rise of the map's complexity.

    Quantus' rules for the number of bins take the number of a map's axes for that of its values, so that its default,
    100 bins, is all that is used here.

    References
    ----------
    Hedstrom et al. 2024, Sanity checks revisited: an exploration to repair the model parameter randomisation test,
    arXiv:2401.06465.
    """

    name: ClassVar[str] = "efficient_randomisation"
    title: ClassVar[str] = "Efficient parameter randomisation"
    family: ClassVar[Family] = Family.SANITY
    about: ClassVar[str] = "How much more complex the map is when all of the network's weights are random."
    paper: ClassVar[str] = "Hedstrom et al. 2024, arXiv:2401.06465"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CLASSIFIER})
    quantities: ClassVar[Mapping[str, Meaning]] = {
        "complexity": Meaning(Better.NEITHER, "nats"),
        "rise": Meaning(Better.HIGHER, "share"),
    }

    draws: int = option(4, "Random networks.", limits=(1, None))
    bins: int = option(100, "Bins of the histogram whose entropy is the map's complexity.", limits=(2, None))

    def measure(self, case: Case, job: Job) -> Outcome:
        """See `Metric`."""
        asked = asked_of(case)
        one = asked.on_input(case.values)
        if reason := why_not(np.abs(one)):
            nothing = (self._undefined("complexity", reason), self._undefined("rise", reason))
            return Outcome(nothing, (Verdict.undefined(self.title, reason),))
        maps, failed = random_maps(asked, weight_layers(asked.classifier.network), self.draws, case.seed, job)
        if not maps:
            raise ModelError(failed[0])
        own = complexity(one, self.bins)
        after = [complexity(each, self.bins) for each in maps if not why_not(np.abs(each))]
        facts = {"random_networks": self.draws, "compared": len(after)}
        scores = [Score("complexity", own, unit="nats")]
        if not after:
            told = Verdict.undefined(self.title, _CONSTANT)
            return Outcome((*scores, self._undefined("rise", _CONSTANT)), (told,), facts=facts)
        mean, low, high = mean_and_interval(after)
        scores.append(Score("complexity", mean, unit="nats", subject=RANDOM, low=low, high=high))
        rise = [(each - own) / own for each in after]
        mean, low, high = mean_and_interval(rise)
        scores.append(Score("rise", mean, better=Better.HIGHER, low=low, high=high))
        return Outcome(tuple(scores), (_verdict(own, after, low),), facts=facts)

    @staticmethod
    def _undefined(name: str, reason: str) -> Score:
        return Score(name, nan, reason, better=Better.HIGHER if name == "rise" else Better.NEITHER)


def _verdict(own: float, after: list[float], low: float) -> Verdict:
    mean = float(np.mean(after))
    numbers = f"{mean:.2f} nats with random weights, {own:.2f} with the learnt ones"
    if mean <= own:
        return Verdict(f"The map does not become more complex without what the network learnt ({numbers}).", False)
    if low > 0:
        return Verdict(f"The map becomes more complex without what the network learnt ({numbers}).", True)
    return Verdict(f"Whether the map becomes more complex without what was learnt is within chance ({numbers}).")
