"""Occlusion: what the answer loses when a part of the image is covered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from math import ceil, prod
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_xai_med.errors import InputError
from napari_xai_med.explainers.base import Question, RawMap, register
from napari_xai_med.explainers.baselines import WithBaseline, spacing_of
from napari_xai_med.explainers.batches import FEWER, batch_option, batch_size
from napari_xai_med.job import Job
from napari_xai_med.models.devices import in_batches
from napari_xai_med.models.formats.base import Gives
from napari_xai_med.models.head import Answer
from napari_xai_med.models.run import forward
from napari_xai_med.options import option

_MOST = 20_000
"""Passes for one image that are not too many: some hours for a large volume on a processor."""

_FIFTH = 5
"""Windows of the default that lie side by side along an axis."""

_ANSWERING = 0.02
"""Share of the time that the answers about the image itself take."""


@dataclass(frozen=True)
class _Cover:
    """Where windows lie, in voxels.

    Parameters
    ----------
    window, stride, shape : tuple of int
        Along each axis, `shape` of the image.
    """

    window: tuple[int, ...]
    stride: tuple[int, ...]
    shape: tuple[int, ...]

    def starts(self) -> tuple[range, ...]:
        """First voxels of the windows along each axis. As in captum the last one ends with the image."""
        axes = zip(self.window, self.stride, self.shape, strict=True)
        return tuple(range(0, max(ceil((n - w) / s), 0) * s + 1, s) for w, s, n in axes)

    def place(self, start: tuple[int, ...]) -> tuple[slice, ...]:
        """A window's voxels."""
        return tuple(slice(first, first + n) for first, n in zip(start, self.window, strict=True))

    def inside(self, starts: list[tuple[int, ...]], device: torch.device) -> Tensor:
        """Which voxels each of some windows covers, shape (len(starts), 1, *shape)."""
        first = torch.tensor(starts, device=device)
        covered = torch.ones((len(starts), *(1 for _ in self.shape)), dtype=torch.bool, device=device)
        for axis, (window, n) in enumerate(zip(self.window, self.shape, strict=True)):
            past = torch.arange(n, device=device) - first[:, axis, None]
            line = (past >= 0) & (past < window)
            covered = covered & line.reshape(-1, *(n if k == axis else 1 for k in range(len(self.shape))))
        return covered[:, None]


@register
@dataclass(frozen=True)
class Occlusion(WithBaseline):
    """Occlusion: what is explained minus the same with a window of the image replaced by a baseline.

    Each voxel gets the mean over the windows that cover it. Own code and not captum's: that computes each class
    anew, makes every window's mask on the processor, and can't be stopped.

    References
    ----------
    Zeiler & Fergus 2014, Visualizing and understanding convolutional networks, ECCV, arXiv:1311.2901.
    """

    name: ClassVar[str] = "occlusion"
    title: ClassVar[str] = "Occlusion"
    paper: ClassVar[str] = "Zeiler & Fergus 2014, arXiv:1311.2901"
    signed: ClassVar[bool] = True
    needs: ClassVar[frozenset[Gives]] = frozenset()

    window: float = option(
        0.0,
        "Length of the window along each axis, in millimetres, or in pixels for pictures; a fifth of the image if 0.",
        limits=(0.0, None),
    )
    stride: float = option(
        0.0,
        "From one window to the next, in millimetres, or in pixels for pictures; half the window if 0.",
        limits=(0.0, None),
    )
    batch_size: int = batch_option()

    def attribute(self, question: Question, job: Job) -> tuple[list[RawMap], Answer]:
        """One pass for each window, which all targets share; see `Explainer`."""
        question = replace(question, inputs=question.inputs.to(question.classifier.device))
        cover = self._cover(question)
        # Counted before they are listed: small windows in a large volume are more than fit the memory.
        passes = prod(len(axis) for axis in cover.starts())
        if passes > _MOST:
            raise InputError(
                f"Occlusion would need {passes} passes through the network, and at most {_MOST} are made; enlarge the "
                "window and the stride."
            )
        starts, rows = list(product(*cover.starts())), list(dict.fromkeys(row for row, _ in question.targets))
        baselines = self.baselines(question)[:, 0]
        with torch.no_grad():
            answer = forward(question.classifier, question.inputs, job.part(0.0, _ANSWERING))
        covering = job.part(_ANSWERING, 1.0)
        wanted = question.resolved(answer)
        units = [(row, start) for row in rows for start in starts]
        sizes = [batch_size(question, self.batch_size, gradients=False)]
        done = 0

        def ask(part: Tensor) -> NDArray[np.float64]:
            nonlocal done
            here = [units[k] for k in part.tolist()]
            index = torch.tensor([row for row, _ in here], device=question.inputs.device)
            covered = cover.inside([start for _, start in here], question.inputs.device)
            images = torch.where(covered, baselines[index], question.inputs[index])
            after = done + len(here)
            with torch.no_grad():
                found = forward(question.classifier, images, covering.part(done / len(units), after / len(units)))
            done = after
            return torch.stack([target.of(found) for _, target in wanted], 1).double().cpu().numpy()

        values = np.concatenate(in_batches(torch.arange(len(units)), sizes[0], ask, sizes.append))
        values = values.reshape(len(rows), len(starts), len(wanted))
        facts = self._facts(question, cover, len(starts)) | {"batch_size": sizes[-1]}
        notices = tuple(FEWER.format(sizes[0], size) for size in sizes[-1:] if size < sizes[0])
        maps = []
        for k, (row, target) in enumerate(wanted):
            lost = float(target.of(answer)[row].detach()) - values[rows.index(row), :, k]
            maps.append(RawMap(_mean(cover, starts, lost), np.eye(len(cover.shape) + 1), facts, notices))
        return maps, answer

    def _cover(self, question: Question) -> _Cover:
        if 0 < self.window < self.stride:
            raise InputError(
                f"Windows of {self.window:g} every {self.stride:g} don't cover the image; choose a stride at most as "
                "long as the window."
            )
        shape, spacing = tuple(question.inputs.shape[2:]), spacing_of(question)
        lengths = [self.window / step if self.window else n / _FIFTH for step, n in zip(spacing, shape, strict=True)]
        window = tuple(min(max(round(length), 1), n) for length, n in zip(lengths, shape, strict=True))
        steps = [self.stride / step if self.stride else n / 2 for step, n in zip(spacing, window, strict=True)]
        stride = tuple(max(round(step), 1) for step in steps)
        if not self.window:
            # Of a window that nobody chose the stride can't be known to be too long.
            stride = tuple(min(pair) for pair in zip(stride, window, strict=True))
        return _Cover(window, stride, shape)

    def _facts(self, question: Question, cover: _Cover, passes: int) -> dict[str, Any]:
        spacing = spacing_of(question)
        return {
            "window": list(cover.window),
            "window_mm": [n * step for n, step in zip(cover.window, spacing, strict=True)],
            "stride": list(cover.stride),
            "stride_mm": [n * step for n, step in zip(cover.stride, spacing, strict=True)],
            "passes": passes,
        }


def _mean(cover: _Cover, starts: list[tuple[int, ...]], values: NDArray[np.float64]) -> NDArray[np.float32]:
    """The mean at each voxel of the values of the windows that cover it."""
    sums, counts = np.zeros(cover.shape), np.zeros(cover.shape)
    for start, value in zip(starts, values, strict=True):
        place = cover.place(start)
        sums[place] += value
        counts[place] += 1
    return (sums / counts).astype(np.float32)
