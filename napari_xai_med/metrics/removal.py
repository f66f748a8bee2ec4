"""Images of which the voxels that a map ranks first, or last, are taken away step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_xai_med.games.base import Float
from napari_xai_med.metrics.case import Sign
from napari_xai_med.metrics.controls import ascending
from napari_xai_med.metrics.probing import Make, Probe

Levels = NDArray[np.int16]


def levels_of(
    values: NDArray[np.floating], shares: Sequence[float], sign: Sign, seed: int, *, least: bool = False
) -> Levels:
    """At which step a voxel goes that is taken away with its rank.

    Parameters
    ----------
    values : ndarray of float
        As `Probe.maps` has them: highest first, by their size for the sign "absolute".
    shares : sequence of float
        Of the voxels that are gone after each step, rising from above 0 to 1 at most.
    sign : Sign
    seed : int
        Equal values go in an order that it draws, the same for every map.
    least : bool
        Whether the lowest go first.

    Returns
    -------
    ndarray of int16
        0 for the voxels of the first step; ``len(shares)`` for those that stay.
    """
    by = np.abs(values) if sign is Sign.ABSOLUTE else values
    order = ascending(by if least else -by, np.random.default_rng((seed, 2)).permutation(by.size))
    cuts = np.rint(np.asarray(shares) * by.size).astype(int)
    sizes = np.diff([0, *cuts, by.size])
    levels = np.empty(by.size, np.int16)
    levels[order] = np.repeat(np.arange(len(sizes), dtype=np.int16), sizes)
    return levels.reshape(by.shape)


@dataclass(frozen=True)
class Step:
    """An image in the making.

    Parameters
    ----------
    subject : int
    cut : int
        Levels below it are the first ones, the others the last ones.
    first : bool
        Whether the first ones are taken away, or the last ones.
    baseline : int
    """

    subject: int
    cut: int
    first: bool
    baseline: int = 0


@dataclass
class Steps:
    """All images that are asked about, each once: without any step they are the image, whatever the map is.

    Parameters
    ----------
    levels : list of ndarray of int16
        Of each subject.
    most : int
        Level from which on voxels stay in all images.
    whole : bool
        Whether no voxels stay, so that the last step leaves the baseline alone.
    """

    levels: Sequence[Levels]
    most: int
    whole: bool
    steps: dict[Step, int] = field(default_factory=dict)

    def add(self, step: Step) -> int:
        """The number of a step's image."""
        removes_none = step.cut == 0 if step.first else step.cut > self.most or (self.whole and step.cut == self.most)
        removes_all = self.whole and step.cut == self.most if step.first else step.cut == 0
        if removes_none:
            step = Step(0, 0, True)
        elif removes_all:
            step = Step(0, 0, False, step.baseline)
        return self.steps.setdefault(step, len(self.steps))

    def removed(self, device: torch.device) -> Make:
        """Which voxels are taken away in images by number, shape (B, *spatial) of bool."""
        levels = torch.from_numpy(np.stack(self.levels)).to(device)
        table = torch.tensor([(step.subject, step.cut, step.first) for step in self.steps], device=device)

        def make(numbers: Tensor) -> Tensor:
            subject, cut, first = table[numbers].T
            shape = (-1, *(1 for _ in levels.shape[1:]))
            below = levels[subject] < cut.to(levels.dtype).reshape(shape)
            return below ^ ~first.bool().reshape(shape)

        return make

    def replaced(self, image: Tensor, baselines: Tensor) -> Make:
        """Images by number, with baselines, (K, C, *spatial), in place of what is taken away."""
        removed = self.removed(image.device)
        which = torch.tensor([step.baseline for step in self.steps], device=image.device)

        def make(numbers: Tensor) -> Tensor:
            # One baseline is not copied for each image.
            others = baselines if len(baselines) == 1 else baselines[which[numbers]]
            return torch.where(removed(numbers)[:, None], others, image)

        return make


def curves(
    probe: Probe, levels: Mapping[str, Levels], steps: int, ways: Sequence[bool], baselines: Tensor, *, whole: bool
) -> Float:
    """What is explained after each step of taking voxels away.

    Parameters
    ----------
    probe : Probe
    levels : mapping of str to ndarray of int16
        Of each subject; see `levels_of`.
    steps : int
    ways : sequence of bool
        True to take the first levels away one by one, False to start without them all and to put the first ones back.
    baselines : Tensor, shape (K, C, *spatial)
    whole : bool
        Whether the steps come to all voxels.

    Returns
    -------
    ndarray of float64, shape (K, len(ways), number of subjects, steps + 1)
    """
    plan = Steps(list(levels.values()), steps, whole)
    numbers = [
        [[[plan.add(Step(s, cut, first, k)) for cut in range(steps + 1)] for s in range(len(levels))] for first in ways]
        for k in range(len(baselines))
    ]
    scores = probe.scores(plan.replaced(probe.image, baselines.to(probe.image)), len(plan.steps))
    result: Float = scores[np.array(numbers)]
    return result
