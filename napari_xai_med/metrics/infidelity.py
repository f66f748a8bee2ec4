"""Infidelity: by how much a map misses what happens to the answer when something is taken away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_xai_med.games.base import Float
from napari_xai_med.metrics.base import Meaning, register
from napari_xai_med.metrics.controls import against_controls
from napari_xai_med.metrics.outcome import EXPLANATION, Better, Outcome, Score, Verdict
from napari_xai_med.metrics.parts import all_sums, falls, parts_of
from napari_xai_med.metrics.probing import AS_EXPLAINED, QUANTITIES, Make, Probe, WithBaselines, joined
from napari_xai_med.options import option

_TURNED = "Infidelity ({}) is smallest with the map turned round, so that it says the opposite of what happens."


@register
@dataclass(frozen=True)
class Infidelity(WithBaselines):
    """The mean squared difference between what the map says of a perturbation and by how much the score falls.

    With `scaled` after the one factor that fits the map best, as in captum's ``normalize``, since most maps have no
    unit. ``infidelity_share`` is the share of the mean squared fall: 0 where the map says all of it, and 1, with
    `scaled`, where it says nothing.
    """

    name: ClassVar[str] = "infidelity"
    title: ClassVar[str] = "Infidelity"
    about: ClassVar[str] = (
        "By how much the map's sum over what is taken away misses the fall of the answer, squared; lower is better."
    )
    paper: ClassVar[str] = "Yeh et al. 2019, On the (in)fidelity and sensitivity of explanations, arXiv:1901.09392"
    quantities: ClassVar[Mapping[str, Meaning]] = {
        "infidelity": Meaning(Better.LOWER, "0 up, in the score's units squared"),
        "infidelity_share": Meaning(Better.LOWER, "0 up; 1 of a map of zeros"),
    }
    ranks: ClassVar[bool] = False

    quantity: str = option(
        AS_EXPLAINED,
        "What is asked of the classifier; as for deletion.",
        choices=QUANTITIES,
    )
    perturbation: str = option(
        "square",
        "What is taken away: a box at a random place, or a random set of superpixels, of which each number is as "
        "probable.",
        choices=("square", "segments"),
    )
    samples: int = option(200, "Perturbations.", limits=(2, 100_000))
    side: float = option(0.25, "Length of a box along each axis, as a share of the input's.", limits=(0.01, 0.99))
    parts: int = option(100, "About how many superpixels there are.", limits=(2, 10_000))
    scaled: bool = option(True, "Whether the map is multiplied by the one number that fits it best.")
    per_unit: bool = option(
        False,
        "Whether the map tells what one unit more of a voxel's value does, as a gradient does, and not what the voxel "
        "contributes.",
    )

    def judge(self, probe: Probe) -> Outcome:
        """One number for each baseline and subject; see `Probing`."""
        baselines = probe.baselines(self.baselines, self)
        outcomes = []
        for k, name in enumerate(self.baselines):
            fields = dict(probe.maps)
            if self.per_unit:
                change = (probe.image - baselines[k].to(probe.image)).sum(0).cpu().numpy()
                fields = {subject: values * change for subject, values in fields.items()}
            shares = k / len(baselines), (k + 1) / len(baselines)
            perturb = self._squares if self.perturbation == "square" else self._segments
            said, fell = perturb(probe, fields, baselines[k], *shares)
            outcomes.append(self._told(f"baseline {name}", dict(zip(fields, said, strict=True)), fell))
        return joined(outcomes, {"baselines": list(self.baselines), "samples": self.samples})

    def _squares(
        self, probe: Probe, fields: Mapping[str, NDArray[np.float32]], baseline: Tensor, start: float, stop: float
    ) -> tuple[Float, Float]:
        """What maps say, (number of maps, samples), and by how much the score falls, (samples,)."""
        image = probe.image
        shape = np.array(image.shape[1:])
        size = np.maximum(np.rint(self.side * shape).astype(int), 1)
        random = np.random.default_rng((probe.case.seed, 5))
        starts = random.integers(0, shape - size + 1, (self.samples, len(shape)))
        places, inverse = np.unique(starts, axis=0, return_inverse=True)
        boxes = [tuple(slice(a, a + n) for a, n in zip(place, size, strict=True)) for place in places]
        axes = tuple(range(1, len(shape) + 1))
        stacked = np.stack(list(fields.values()))
        sums = np.stack([stacked[(slice(None), *box)].sum(axes, dtype=np.float64) for box in boxes], 1)
        make = _without(image, baseline.to(image), torch.from_numpy(places).to(image.device), size.tolist())
        found = probe.scores(make, len(places) + 1, start, stop)
        order = inverse.ravel()
        return sums[:, order], (found[-1] - found[:-1])[order]

    def _segments(
        self, probe: Probe, fields: Mapping[str, NDArray[np.float32]], baseline: Tensor, start: float, stop: float
    ) -> tuple[Float, Float]:
        labels = parts_of(probe, "slic", self.parts)
        count = int(labels.max())
        random = np.random.default_rng((probe.case.seed, 5))
        numbers = random.integers(1, max(count, 2), (self.samples, 1))
        gone = random.random((self.samples, count)).argsort(1).argsort(1) < numbers
        return all_sums(fields, labels) @ gone.T, falls(probe, labels, gone, baseline, start, stop)

    def _told(self, told: str, said: Mapping[str, Float], fell: Float) -> Outcome:
        shares, scores, own = {}, [], 1.0
        size = float(np.square(fell).mean())
        for subject, sums in said.items():
            squares = float(np.square(sums).mean())
            factor = float((sums * fell).mean()) / squares if self.scaled and squares else 1.0
            reason = "The map's sum is 0 for all perturbations." if self.scaled and not squares else ""
            value = nan if reason else float(np.square(factor * sums - fell).mean())
            why = reason or ("" if size else "No perturbation changes the score.")
            shares[subject] = nan if why else value / size
            for name, number, because in (("", value, reason), ("_share", shares[subject], why)):
                scores.append(
                    Score(f"{self.name}{name}", number, because, subject=subject, at=told, better=Better.LOWER)
                )
            own = factor if subject == EXPLANATION else own
        first = shares.pop(EXPLANATION)
        if own < 0:
            return Outcome(tuple(scores), (Verdict(_TURNED.format(told), False),))
        called = f"Infidelity ({told}, as a share of the squared fall, lower is better)"
        return Outcome(tuple(scores), (against_controls(called, first, shares, Better.LOWER),))


def _without(image: Tensor, baseline: Tensor, places: Tensor, size: list[int]) -> Make:
    """Images without one box each, by number, and the image itself at the end."""

    def make(numbers: Tensor) -> Tensor:
        whole = numbers == len(places)
        starts = places[torch.where(whole, 0, numbers)]
        inside = ~whole.reshape(-1, *(1 for _ in size))
        for axis, length in enumerate(size):
            index = torch.arange(image.shape[axis + 1], device=image.device)
            along = (index >= starts[:, axis, None]) & (index < starts[:, axis, None] + length)
            inside = inside & along.reshape(-1, *(len(index) if k == axis else 1 for k in range(len(size))))
        return torch.where(inside[:, None], baseline, image)

    return make
