"""Class activation maps whose weights are gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from napari_xai_med.explainers.base import Question, register
from napari_xai_med.explainers.layer_maps import GradientCAM, last_with_cells, weighted_sum
from napari_xai_med.job import Job
from napari_xai_med.models.head import Answer
from napari_xai_med.models.receptive_field import Layer

_NEGATIVE = (
    "Layer {} also has negative values, for which {} is not made; choose a layer without any, such as a ReLU, or "
    "explain with Grad-CAM or HiResCAM."
)


@register
@dataclass(frozen=True)
class GradCAM(GradientCAM):
    """Grad-CAM: the feature maps of a layer, weighted by the mean gradient of the class's logit.

    ``relu(sum_k a_k A_k)`` with ``a_k`` the mean over space of the gradient with respect to channel k.
    Own code and not captum's or MONAI's: those keep gradients below the layer, and MONAI 1.6 sums them
    over the batch; the tests hold this one to both.

    References
    ----------
    Selvaraju et al. 2017, Grad-CAM: visual explanations from deep networks via gradient-based
    localization, ICCV, doi:10.1109/ICCV.2017.74.
    """

    name: ClassVar[str] = "gradcam"
    title: ClassVar[str] = "Grad-CAM"
    paper: ClassVar[str] = "Selvaraju et al. 2017, doi:10.1109/ICCV.2017.74"
    signed: ClassVar[bool] = False

    def weigh(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """See `GradientCAM`."""
        return weighted_sum(gradients.flatten(2).mean(2), activations).relu()


@register
@dataclass(frozen=True)
class HiResCAM(GradientCAM):
    """HiResCAM: each cell of the feature maps times its own gradient, without a mean over space.

    ``relu(sum_k g_k A_k)``, cell by cell. Where the rest of the network is linear in the layer the sum before
    ``relu`` is what each cell adds to the logit.

    References
    ----------
    Draelos and Carin 2020, Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural
    networks, arXiv:2011.08891.
    """

    name: ClassVar[str] = "hirescam"
    title: ClassVar[str] = "HiResCAM"
    paper: ClassVar[str] = "Draelos and Carin 2020, arXiv:2011.08891"
    signed: ClassVar[bool] = False

    def weigh(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """See `GradientCAM`."""
        return (gradients * activations).sum(1).relu()


@register
@dataclass(frozen=True)
class LayerCAM(GradientCAM):
    """LayerCAM: each cell of the feature maps times its own gradient where that is positive.

    ``relu(sum_k relu(g_k) A_k)``, cell by cell; meant for early layers as well.

    References
    ----------
    Jiang et al. 2021, LayerCAM: exploring hierarchical class activation maps for localization, IEEE Transactions
    on Image Processing 30, doi:10.1109/TIP.2021.3089943.
    """

    name: ClassVar[str] = "layercam"
    title: ClassVar[str] = "LayerCAM"
    paper: ClassVar[str] = "Jiang et al. 2021, doi:10.1109/TIP.2021.3089943"
    signed: ClassVar[bool] = False

    def weigh(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """See `GradientCAM`."""
        return (gradients.relu() * activations).sum(1).relu()


@register
@dataclass(frozen=True)
class GatedGradCAM(GradientCAM):
    """Gated Grad-CAM: only gradients that are positive, at cells that are positive, count for the weights.

    ``relu(sum_k a_k A_k)`` with ``a_k`` the mean over space of ``(A_k > 0) (g_k > 0) g_k``: the gates of guided
    backpropagation (Springenberg et al. 2015, arXiv:1412.6806), here at the layer alone and before the mean. The
    variant of much 3D Grad-CAM code for Keras, and of the maps published with the work below, which are divided by
    their maximum. That code takes the gradient of ``1 - p`` of a network with one output: its maps are those of
    class 0 here, to a factor.

    References
    ----------
    Makraduli 2021, Explainability pipelines for an end-to-end understanding of 3D Covid-19 CT scans, code in the
    repository fm1320/ICL.
    """

    name: ClassVar[str] = "gated_gradcam"
    title: ClassVar[str] = "Gated Grad-CAM"
    paper: ClassVar[str] = "Makraduli 2021, repository fm1320/ICL"
    signed: ClassVar[bool] = False

    def weigh(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """See `GradientCAM`."""
        gated = torch.where(activations > 0, gradients.relu(), 0)
        return weighted_sum(gated.flatten(2).mean(2), activations).relu()


@dataclass(frozen=True)
class _OfRectified(GradientCAM):
    """A method whose weights are divided by sums of feature maps: it is made for layers without negative values."""

    def default(self, layers: tuple[Layer, ...]) -> Layer:
        """What is pooled, in most networks behind an activation function, and not the convolution before it."""
        return last_with_cells(layers)

    def examine(
        self,
        question: Question,  # noqa: ARG002  # given to all
        activations: Mapping[str, Tensor],
        answer: Answer,  # noqa: ARG002
        job: Job,  # noqa: ARG002
    ) -> Mapping[str, tuple[str, ...]]:
        """A notice for each layer with negative values; see `GradientCAM`."""
        return {
            name: (_NEGATIVE.format(name, self.title),)
            for name, values in activations.items()
            if bool((values.detach() < 0).any())
        }


@register
@dataclass(frozen=True)
class GradCAMPlusPlus(_OfRectified):
    """Grad-CAM++: positive gradients, weighted at each cell so that several regions of one class count alike.

    ``relu(sum_k w_k A_k)`` with ``w_k = sum(alpha_k relu(g_k))`` over space and
    ``alpha_k = g_k^2 / (2 g_k^2 + sum(A_k) g_k^3)``. The paper explains ``Y = exp(S)`` of the logit S and takes S as
    piecewise linear in the layer: the n-th derivative of Y is then ``Y g^n``, Y drops out of alpha and is left in
    the weights as a factor of the whole map, by which this one is divided. Cells where alpha has no value, with
    ``sum(A_k) g_k = -2``, do not count.

    References
    ----------
    Chattopadhay et al. 2018, Grad-CAM++: generalized gradient-based visual explanations for deep convolutional
    networks, WACV, doi:10.1109/WACV.2018.00097.
    """

    name: ClassVar[str] = "gradcampp"
    title: ClassVar[str] = "Grad-CAM++"
    paper: ClassVar[str] = "Chattopadhay et al. 2018, doi:10.1109/WACV.2018.00097"
    signed: ClassVar[bool] = False

    def weigh(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """See `GradientCAM`."""
        sums = activations.flatten(2).sum(2)
        # Divided through by g^2: its square is less than the smallest float where g is small.
        below = 2 + gradients.flatten(2) * sums[..., None]
        weights = torch.where(below == 0, 0, gradients.flatten(2).relu() / below).sum(2)
        return weighted_sum(weights, activations).relu()


@register
@dataclass(frozen=True)
class XGradCAM(_OfRectified):
    """XGrad-CAM: gradients, averaged over space with the feature map itself as weight.

    ``relu(sum_k w_k A_k)`` with ``w_k = sum(g_k A_k) / sum(A_k)`` over space; channels whose values sum to 0 do not
    count.

    References
    ----------
    Fu et al. 2020, Axiom-based Grad-CAM: towards accurate visualization and explanation of CNNs, BMVC,
    arXiv:2008.02312.
    """

    name: ClassVar[str] = "xgradcam"
    title: ClassVar[str] = "XGrad-CAM"
    paper: ClassVar[str] = "Fu et al. 2020, arXiv:2008.02312"
    signed: ClassVar[bool] = False

    def weigh(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """See `GradientCAM`."""
        sums = activations.flatten(2).sum(2)
        weights = torch.where(sums == 0, 0, (gradients * activations).flatten(2).sum(2) / sums)
        return weighted_sum(weights, activations).relu()
