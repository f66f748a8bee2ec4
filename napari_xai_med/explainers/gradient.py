"""The gradient at the image itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from napari_xai_med.explainers.base import register
from napari_xai_med.explainers.input_gradients import InputGradients, Point
from napari_xai_med.options import option


@register
@dataclass(frozen=True)
class Saliency(InputGradients):
    """Saliency: the gradient of the class's logit with respect to each voxel.

    Absolute, of several channels the largest, as in the paper; or with its sign, channels added up. With noise it
    is the mean gradient that becomes absolute, as Smilkov et al. have it, and not each by itself as in captum.

    References
    ----------
    Simonyan et al. 2013, Deep inside convolutional networks: visualising image classification models and
    saliency maps, arXiv:1312.6034.
    """

    name: ClassVar[str] = "saliency"
    title: ClassVar[str] = "Saliency"
    paper: ClassVar[str] = "Simonyan et al. 2013, arXiv:1312.6034"

    absolute: bool = option(True, "Take the gradient's absolute value, of several channels the largest.")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "signed", self.signed and not self.absolute)

    def point(self, image: Tensor, references: Tensor | None, inner: int, sample: int) -> Point:  # noqa: ARG002
        """See `InputGradients`."""
        return Point(image)

    def reduced(self, attribution: Tensor) -> Tensor:
        """See `InputGradients`."""
        return attribution.abs().amax(0) if self.absolute else super().reduced(attribution)


@register
@dataclass(frozen=True)
class InputXGradient(InputGradients):
    """Input times gradient: how much each voxel adds to a linear network's logit.

    References
    ----------
    Shrikumar et al. 2016, Not just a black box: learning important features through propagating activation
    differences, arXiv:1605.01713.
    """

    name: ClassVar[str] = "input_x_gradient"
    title: ClassVar[str] = "Input times gradient"
    paper: ClassVar[str] = "Shrikumar et al. 2016, arXiv:1605.01713"

    def point(self, image: Tensor, references: Tensor | None, inner: int, sample: int) -> Point:  # noqa: ARG002
        """See `InputGradients`."""
        return Point(image, image)
