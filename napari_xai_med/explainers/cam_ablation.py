"""Ablation-CAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from napari_xai_med.errors import ModelError
from napari_xai_med.explainers.base import register
from napari_xai_med.explainers.cam_scored import AtLayer, ScoredCAM, Weights
from napari_xai_med.job import Job
from napari_xai_med.models.layouts import Layout
from napari_xai_med.models.passes import Hook
from napari_xai_med.models.target import Direction

_NEAR_ZERO = (
    "The score without ablation is 0 beside the changes by it; the weights of Ablation-CAM were not divided by it."
)

_LEAST = 1e-6
"""Share of the largest change of the score below which the score itself is taken for 0: float32 has seven digits."""

_TRIED = 16
"""Channels with which it is tried whether copies can be made at the layer."""


@register
@dataclass(frozen=True)
class AblationCAM(ScoredCAM):
    """Ablation-CAM: each feature map, weighted by how much the score drops without it; without gradients.

    ``relu(sum_k w_k A_k)`` with ``w_k = (y - y_k) / |y|``, y the score and y_k that with channel k of the layer set
    to 0. The paper divides by y, as its scores are positive; by a negative one channels that speak for the class
    would count against it. Where y is 0, to a millionth of the largest change, nothing is divided. The denominator
    is the same for all channels and changes the scale of the map alone.

    The image goes through the network up to the layer once for many channels, and the copies with a channel less
    are made there, if the network behind it gives the same answers then; else for each channel anew.

    References
    ----------
    Desai and Ramaswamy 2020, Ablation-CAM: visual explanations for deep convolutional network via gradient-free
    localization, WACV, doi:10.1109/WACV45572.2020.9093360.
    """

    name: ClassVar[str] = "ablationcam"
    title: ClassVar[str] = "Ablation-CAM"
    paper: ClassVar[str] = "Desai and Ramaswamy 2020, doi:10.1109/WACV45572.2020.9093360"
    signed: ClassVar[bool] = False

    def weights(self, at: AtLayer, job: Job) -> list[Weights]:
        """Ask about each row without each of its channels; see `ScoredCAM`."""
        found: dict[int, tuple[Tensor, tuple[str, ...]]] = {}
        # Copies are made of the layer's output where that works, of which as many fit in as of images in a batch.
        sizes = [each[0].numel() for each in (at.question.inputs, at.outputs[-1])]
        size = self.batch_size * max(1, sizes[0] // sizes[1])
        shared = True
        for done, (row, channels) in enumerate(at.chosen.items()):
            part = job.part(done / len(at.chosen), (done + 1) / len(at.chosen))
            ablation, items = Ablation(at, row), torch.tensor(channels)
            shared = shared and self._can_share(ablation, items, size, part.part(0.0, 0.05))
            if shared:
                found[row] = self.in_parts(items, size, ablation.together, part.part(0.05, 1.0))
            else:
                found[row] = self.in_parts(items, self.batch_size, ablation.one_by_one, part.part(0.05, 1.0))
        scores = at.scores(at.answer)
        weights = []
        for k, (row, target) in enumerate(at.wanted):
            without, notices = found[row]
            drops = scores[k, row] - without[k]
            # Windows are shares of one whole: by its own score one that hardly speaks for or against would count most.
            score = target.whole if isinstance(target, Direction) else float(scores[k, row])
            near = abs(score) <= _LEAST * float(drops.abs().max())
            told = (_NEAR_ZERO,) if near else ()
            values = drops if near else drops / abs(score)
            weights.append(Weights(values, {"score": score, "divided_by": 1.0 if near else abs(score)}, notices + told))
        return weights

    def _can_share(self, ablation: Ablation, channels: Tensor, size: int, job: Job) -> bool:
        """Whether copies made at the layer give the answers that those of the whole network give.

        They do not where something goes round the layer that is not simply added, such as in a DenseNet, or the
        number of images is written into the network.
        """
        tried, question = channels[:_TRIED], ablation.at.question
        # It does not depend on the image.
        known, key = question.classifier.no_copies, (ablation.at.layer.name, tuple(question.inputs.shape[1:]))
        if key in known:
            return False
        try:
            together, _ = self.in_parts(tried, size, ablation.together, job.part(0.0, 0.3))
        except ModelError:
            known.add(key)
            return False
        if together.shape[1] != len(tried):
            known.add(key)
            return False
        # Those that change the answer most and least can't be taken for each other.
        change = (together - ablation.unchanged).abs().amax(0)
        some = torch.stack([change.argmax(), change.argmin()])
        alone, _ = self.in_parts(tried[some], self.batch_size, ablation.one_by_one, job.part(0.3, 1.0))
        return torch.allclose(together[:, some], alone, rtol=1e-4, atol=1e-4 * float(alone.abs().max()))


@dataclass(frozen=True)
class Ablation:
    """One image, asked about without single channels of a layer.

    Parameters
    ----------
    at : AtLayer
    row : int
        The image's.
    """

    at: AtLayer
    row: int

    def one_by_one(self, channels: Tensor, job: Job) -> Tensor:
        """The scores without each of some channels, shape (number of targets, B), each with its own whole pass."""
        image = self.at.question.inputs[self.row : self.row + 1]
        return self._scores(
            image.expand(len(channels), *image.shape[1:]),
            _without(channels, len(self.at.outputs), self.at.layer.layout),
            job,
        )

    def together(self, channels: Tensor, job: Job) -> Tensor:
        """The same, but with copies made only at the layer."""
        left = len(self.at.outputs)

        def copy(output: Tensor) -> Tensor:
            nonlocal left
            left -= 1
            without = _without(channels, 1, self.at.layer.layout)
            return output if left else without(output.expand(len(channels), *output.shape[1:]))

        return self._scores(self.at.question.inputs[self.row : self.row + 1], copy, job)

    @property
    def unchanged(self) -> Tensor:
        """The scores with all channels, shape (number of targets, 1)."""
        return self.at.scores(self.at.answer)[:, self.row : self.row + 1]

    def _scores(self, inputs: Tensor, hook: Hook, job: Job) -> Tensor:
        # A copy, since what is asked about may be changed in place.
        return self.at.scores(self.at.ask(inputs.clone(), job, {self.at.layer.name: hook}))


def _without(channels: Tensor, uses: int, layout: Layout) -> Hook:
    """A hook that sets one channel of each image to 0, at the last of the layer's uses.

    Networks from files that take one image at a time use their layers for one image after the other.
    """
    calls = 0

    def ablate(output: Tensor) -> Tensor:
        nonlocal calls
        part, use = divmod(calls, uses)
        calls += 1
        if use < uses - 1:
            return output
        rows = torch.arange(len(output))
        result = layout.maps(output).clone()
        result[rows, channels[part * len(output) + rows]] = 0
        return layout.output(result, output)

    return ablate
