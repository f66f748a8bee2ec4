"""Class activation maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from napari_xai_med.explainers.base import register
from napari_xai_med.explainers.layer_maps import GradientCAM


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

    def weigh(self, activations: Tensor, gradients: Tensor, logits: Tensor) -> Tensor:  # noqa: ARG002  # others need it
        """See `GradientCAM`."""
        return torch.einsum("nc,nc...->n...", gradients.flatten(2).mean(2), activations).relu()
