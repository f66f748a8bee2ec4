"""ROAD: what the answer becomes when voxels are filled in from around them, so that their shape tells nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from napari_xai_med.explainers.noise import generator, value_range
from napari_xai_med.metrics.base import Meaning, register
from napari_xai_med.metrics.controls import against_controls
from napari_xai_med.metrics.imputation import imputed, side_weights
from napari_xai_med.metrics.outcome import EXPLANATION, Better, Curves, Line, Outcome, Score, Verdict
from napari_xai_med.metrics.probing import Make, Probe, Probing
from napari_xai_med.metrics.removal import Step, Steps, levels_of
from napari_xai_med.metrics.shares import checked_shares
from napari_xai_med.options import option

_FLAT = (
    "Filling in voxels hardly changes the score, from {:.3g} to {:.3g} at least, whatever map they are chosen by, so "
    "that nothing can be said."
)


@register
@dataclass(frozen=True)
class Road(Probing):
    """Remove and debias: voxels go by the map's order, and noisy linear imputation fills them in.

    The score with the least relevant voxels gone and that with the most relevant ones gone, each as a mean over the
    shares, and half of their difference, as in the library pytorch-grad-cam. The noise is a share of the input's range.
    """

    name: ClassVar[str] = "road"
    title: ClassVar[str] = "ROAD"
    about: ClassVar[str] = (
        "How much more the answer falls when the most relevant voxels are filled in from around them than when the "
        "least relevant ones are; higher is better."
    )
    paper: ClassVar[str] = "Rong et al. 2022, A consistent and efficient evaluation strategy, arXiv:2202.00449"
    quantities: ClassVar[Mapping[str, Meaning]] = {
        "road_most_first": Meaning(Better.LOWER, "-1 to 1 of a probability"),
        "road_least_first": Meaning(Better.HIGHER, "-1 to 1 of a probability"),
        "road": Meaning(Better.HIGHER, "-1 to 1 of a probability"),
    }

    shares: tuple[float, ...] = option(
        (0.1, 0.3, 0.5, 0.7, 0.9), "Shares of the voxels that are taken away, rising.", limits=(0.001, 0.999)
    )
    noise: float = option(
        0.01, "Standard deviation of the noise, as a share of the range of the network's input.", limits=(0.0, 1.0)
    )

    def __post_init__(self) -> None:
        checked_shares(self.shares, self.title)

    def judge(self, probe: Probe) -> Outcome:
        """Most and least relevant first, of each subject; see `Probing`."""
        case, count = probe.case, len(self.shares)
        levels = [
            levels_of(values, self.shares, case.sign, case.seed, least=least)
            for least in (False, True)
            for values in probe.maps.values()
        ]
        plan = Steps(levels, count, whole=False)
        numbers = np.array([[plan.add(Step(k, cut, True)) for cut in range(count + 1)] for k in range(len(levels))])
        found = probe.scores(self._made(plan, probe), len(plan.steps))[numbers]
        lines = found.reshape(2, len(probe.maps), count + 1)
        most, least = lines[:, :, 1:].mean(2)
        scores = [
            Score(name, value, subject=subject, better=self.quantities[name].better)
            for k, subject in enumerate(probe.subjects)
            for name, value in zip(self.quantities, (most[k], least[k], (least[k] - most[k]) / 2), strict=True)
        ]
        gaps = dict(zip(probe.subjects, ((least - most) / 2).tolist(), strict=True))
        whole, lowest = float(found[0, 0]), float(found.min())
        verdict = Verdict(_FLAT.format(whole, lowest))
        if probe.is_enough(whole, lowest):
            verdict = against_controls("ROAD (higher is better)", gaps.pop(EXPLANATION), gaps, Better.HIGHER)
        facts = {"shares": list(self.shares), "noise": self.noise}
        return Outcome(tuple(scores), (verdict,), (self._plot(probe, lines),), facts=facts)

    def _made(self, plan: Steps, probe: Probe) -> Make:
        """Images by number, with what is taken away filled in."""
        image = probe.image
        removed, sides = plan.removed(image.device), side_weights(probe.play.question.spacing)
        # The same for all images, so that they differ by the map alone.
        drawn = torch.randn(image.shape, generator=generator(probe.case.seed, 3), dtype=image.dtype).to(image.device)
        noise = drawn * (self.noise * value_range(image))

        def make(numbers: Tensor) -> Tensor:
            gone = removed(numbers)
            return imputed(image, gone, sides) + torch.where(gone[:, None], noise, 0)

        return make

    def _plot(self, probe: Probe, lines: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Curves:
        x = np.concatenate([[0.0], self.shares])
        drawn = tuple(
            Line(f"{subject}, {way} relevant first", x, y, subject)
            for way, each in zip(("most", "least"), lines, strict=True)
            for subject, y in zip(probe.subjects, each, strict=True)
        )
        return Curves(self.title, "share of the voxels filled in", str(probe.facts["quantity"]), drawn)
