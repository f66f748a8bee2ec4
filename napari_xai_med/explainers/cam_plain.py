"""Class activation maps that need neither gradients' means nor further passes: the first one, and Eigen-CAM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from napari_xai_med.errors import ModelError
from napari_xai_med.explainers.base import Question, register
from napari_xai_med.explainers.layer_maps import (
    GradientCAM,
    LayerExplainer,
    LayerMap,
    activations_at,
    gradients_at,
    last_with_cells,
    outputs_at,
    weighted_sum,
)
from napari_xai_med.job import Job
from napari_xai_med.models.head import Answer
from napari_xai_med.models.receptive_field import Layer
from napari_xai_med.models.target import Direction

_NOT_POOLED = (
    "CAM needs a network that takes the mean over space of its last feature maps and ends in one linear layer, which "
    "{} does not do behind layer {}; choose Grad-CAM or HiResCAM instead."
)
_TOLERANCE = 1e-3
"""Share of the largest gradient by which others may differ: float32 and GPUs sum in another order each time."""


@register
@dataclass(frozen=True)
class CAM(GradientCAM):
    """CAM: the last feature maps, each weighted as the linear layer behind their mean over space weighs it.

    ``sum_k w_k A_k``, without ``relu``; its mean over space is the logit, less the bias. The weight of the linear
    layer is the gradient times the number of cells. That the network really is such a one is checked with the
    gradients of its logits: they have to be the same at all cells, and for any other feature maps, for which noise
    is put in their place in a second pass. Other linear operators behind the layer, such as a normalisation, pass
    that check; the weight is that of all of them together.

    References
    ----------
    Zhou et al. 2016, Learning deep features for discriminative localization, CVPR, doi:10.1109/CVPR.2016.319.
    """

    name: ClassVar[str] = "cam"
    title: ClassVar[str] = "CAM"
    paper: ClassVar[str] = "Zhou et al. 2016, doi:10.1109/CVPR.2016.319"
    signed: ClassVar[bool] = True

    def default(self, layers: tuple[Layer, ...]) -> Layer:
        """What is pooled."""
        return last_with_cells(layers)

    def examine(
        self, question: Question, activations: Mapping[str, Tensor], answer: Answer, job: Job
    ) -> Mapping[str, tuple[str, ...]]:
        """Check that the logits are linear in the mean over space of each layer; see `GradientCAM`."""
        random = torch.Generator().manual_seed(0)
        # Any sum of all logits: what is linear for it is linear for each of them.
        logits = torch.randn(answer.logits.shape[1], generator=random)
        targets = [(row, Direction(logits)) for row in range(len(question.inputs))]
        gradients = gradients_at(question, answer, targets, activations)
        for k, (name, here) in enumerate(gradients.items()):
            part = job.part(k / len(gradients), (k + 1) / len(gradients))
            noise, other = activations_at(question, [name], part, lambda output: _noise_like(output, random))
            there = gradients_at(question, other, targets, noise)[name]
            most = _TOLERANCE * max(float(here.abs().max()), float(there.abs().max()))
            means = here.mean(tuple(range(2, here.ndim)), keepdim=True)
            # No gradient at all: the layer is read elsewhere, such as at a class token.
            if not here.any() or any(float((each - means).abs().max()) > most for each in (here, there)):
                raise ModelError(_NOT_POOLED.format(question.classifier.name, name))
        return {}

    def weigh(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """See `GradientCAM`."""
        return weighted_sum(gradients.flatten(2).sum(2), activations)


def _noise_like(values: Tensor, random: torch.Generator) -> Tensor:
    """Other feature maps: of another mean in each channel, so that a function of the mean shows as well."""
    values = values.detach()
    scale = float(values.abs().max()) or 1.0
    means = torch.randn((*values.shape[:2], *[1] * (values.ndim - 2)), generator=random)
    return (2 * scale * (means + torch.randn(values.shape, generator=random))).to(values)


@register
@dataclass(frozen=True)
class EigenCAM(LayerExplainer):
    """Eigen-CAM: what the feature maps have most in common, whatever the class.

    The K feature maps as a matrix of cells by channels, projected on its first right singular vector, without
    taking the mean off, as in the paper. The sign of that vector is arbitrary there; here it is the one with which
    the map's sum is not negative, for feature maps without negative values the one with which the map has none.
    Negative cells, which other feature maps can leave, become 0.

    References
    ----------
    Muhammad and Yeasin 2020, Eigen-CAM: class activation map using principal components, IJCNN,
    doi:10.1109/IJCNN48605.2020.9206626.
    """

    name: ClassVar[str] = "eigencam"
    title: ClassVar[str] = "Eigen-CAM"
    paper: ClassVar[str] = "Muhammad and Yeasin 2020, doi:10.1109/IJCNN48605.2020.9206626"
    signed: ClassVar[bool] = False
    caution: ClassVar[str] = (
        "Eigen-CAM is the same for every class: it shows where the layer responds most, not what speaks for a class."
    )

    def layer_maps(self, question: Question, layers: Sequence[Layer], job: Job) -> tuple[list[list[LayerMap]], Answer]:
        """One forward pass; see `LayerExplainer`."""
        outputs, answer = outputs_at(question, [layer.name for layer in layers], job.part(0.0, 0.9))
        rows = sorted({row for row, _ in question.targets})
        maps: dict[int, list[LayerMap]] = {}
        for k, row in enumerate(rows):
            job.step(0.9 + 0.1 * k / len(rows), "Finding the principal component")
            maps[row] = [_first_component(outputs[layer.name][-1][row]) for layer in layers]
        return [maps[row] for row, _ in question.targets], answer


def _first_component(activations: Tensor) -> LayerMap:
    """The projection of feature maps, shape (K, *layer), on their first singular vector, and its share of all."""
    # In double precision, and so on the processor, since the product squares the range of numbers.
    cells = activations.detach().cpu().double().flatten(1).T
    # Eigenvectors of the smaller product, of cells or of channels, instead of a singular value decomposition: of
    # 512 channels with 27 cells these are 27 x 27 numbers.
    few = len(cells) <= cells.shape[1]
    values, vectors = torch.linalg.eigh(cells @ cells.T if few else cells.T @ cells)
    most = values[-1].clamp(min=0)
    projection = vectors[:, -1] * most.sqrt() if few else cells @ vectors[:, -1]
    if projection.sum() < 0:
        projection = -projection
    total = float(values.sum())
    share = float(most) / total if total > 0 else 0.0
    return LayerMap(projection.relu().reshape(activations.shape[1:]), {"share_of_squares": share})
