"""Score-CAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from napari_xai_med.explainers.base import register
from napari_xai_med.explainers.cam_scored import AtLayer, ScoredCAM, Weights
from napari_xai_med.explainers.placing import on_input
from napari_xai_med.job import Job
from napari_xai_med.options import option


@register
@dataclass(frozen=True)
class ScoreCAM(ScoredCAM):
    """Score-CAM: each feature map, weighted by the score of the image seen through it; without gradients.

    ``relu(sum_k w_k A_k)``. The mask of channel k is its feature map on the input's grid, from 0 at its smallest to
    1 at its largest value; the input is multiplied with it. The weights are the softmax over channels of the scores,
    as in the paper's algorithm, where the score of a baseline that is taken off first changes nothing; or these
    increases of the score over the baseline themselves, for which the baseline is the input of zeros that remains
    behind an empty mask. Channels that have the same value everywhere make no mask and get no weight.

    References
    ----------
    Wang et al. 2020, Score-CAM: score-weighted visual explanations for convolutional neural networks, CVPR
    workshops, doi:10.1109/CVPRW50498.2020.00020.
    """

    name: ClassVar[str] = "scorecam"
    title: ClassVar[str] = "Score-CAM"
    paper: ClassVar[str] = "Wang et al. 2020, doi:10.1109/CVPRW50498.2020.00020"
    signed: ClassVar[bool] = False

    weighting: str = option(
        "softmax",
        "The softmax over channels of the masked images' scores, or each score's increase over an input of zeros.",
        choices=("softmax", "increase"),
    )

    def choose(self, activations: Tensor) -> list[int]:
        """The channels that can be masks; see `ScoredCAM`."""
        flat = activations.flatten(1)
        varying = (flat.amax(1) > flat.amin(1)).nonzero().flatten()
        return [int(varying[k]) for k in super().choose(activations[varying])]

    def weights(self, at: AtLayer, job: Job) -> list[Weights]:
        """Ask about the masked images of all rows; see `ScoredCAM`."""
        items = torch.tensor([(row, k) for row, channels in at.chosen.items() for k in channels]).reshape(-1, 2)
        if not len(items):
            return [Weights(torch.zeros(0), {}, ()) for _ in at.wanted]
        zeros = None
        if self.weighting == "increase":
            baseline = torch.zeros_like(at.question.inputs[:1])
            zeros = at.scores(at.ask(baseline, job.part(0.0, 0.02)))[:, 0]

        def ask(part: Tensor, its: Job) -> Tensor:
            return at.scores(at.ask(_masked(at, part), its))

        scores, notices = self.in_parts(items, self.batch_size, ask, job.part(0.02, 1.0))
        weights = []
        for k, (row, _) in enumerate(at.wanted):
            own = scores[k, items[:, 0] == row]
            if zeros is None:
                weights.append(Weights(own.softmax(0), {}, notices))
            else:
                weights.append(Weights(own - zeros[k], {"baseline_score": float(zeros[k])}, notices))
        return weights


def _masked(at: AtLayer, items: Tensor) -> Tensor:
    """Inputs behind the masks of channels, shape (B, C, *spatial), for rows and channels, shape (B, 2)."""
    rows, channels = items.T
    inputs = at.question.inputs.to(at.outputs[-1].device)
    masks = on_input(at.outputs[-1][rows, channels], at.layer.receptive_field, tuple(inputs.shape[2:]))
    flat = masks.flatten(1)
    low, high = flat.aminmax(dim=1, keepdim=True)
    # In place: a mask is as large as the input.
    flat.sub_(low).div_(torch.where(high > low, high - low, 1))
    return inputs[rows] * masks[:, None].to(inputs.dtype)
