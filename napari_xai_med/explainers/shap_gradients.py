"""GradientSHAP: gradients on the way from several baselines to the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from napari_xai_med.explainers.base import Question, register
from napari_xai_med.explainers.baselines import WithBackground
from napari_xai_med.explainers.input_gradients import InputGradients, Point
from napari_xai_med.explainers.noise import Tunnel, generator
from napari_xai_med.options import option


@register
@dataclass(frozen=True)
class GradientSHAP(WithBackground, InputGradients):
    """GradientSHAP: Integrated Gradients from randomly drawn baselines, at one random place on each way.

    An estimate of the SHAP values of the expected gradients. Each draw also gets noise, if asked for; as in captum
    the method is a noise tunnel whose samples have baselines of their own.

    References
    ----------
    Lundberg & Lee 2017, A unified approach to interpreting model predictions, NeurIPS, arXiv:1705.07874;
    Erion et al. 2021, Improving performance of deep learning models with axiomatic attribution priors and
    expected gradients, doi:10.1038/s42256-021-00343-w.
    """

    name: ClassVar[str] = "gradient_shap"
    title: ClassVar[str] = "GradientSHAP"
    paper: ClassVar[str] = "Lundberg & Lee 2017, arXiv:1705.07874"
    advice: ClassVar[str] = "draw more noise_samples"

    noise_tunnel: str = option(
        "smoothgrad",
        "What becomes of all draws: their mean (smoothgrad), the mean of their squares (smoothgrad_sq) or their "
        "variance (vargrad).",
        choices=tuple(str(each) for each in Tunnel if each is not Tunnel.NONE),
    )
    noise_samples: int = option(32, "Draws of a baseline, a place on the way from it and noise.", limits=(1, 100_000))
    noise_std: float = option(
        0.0,
        "Standard deviation of the noise, as a share of the range of the image's values behind the preprocessing.",
        limits=(0.0, None),
    )

    @property
    def adds_up(self) -> bool:
        """See `InputGradients`; on the mean of many draws."""
        return self.noise_tunnel == Tunnel.SMOOTHGRAD

    def references(self, question: Question) -> Tensor:
        """The background."""
        return self.backgrounds(question)

    def draw(self, count: int, sample: int) -> tuple[int, float]:
        """Number of the baseline, one of so many, and place on the way, 0 to 1, of one draw."""
        random = generator(self.seed, sample, 1)
        number = int(torch.randint(count, (), generator=random))
        return number, float(torch.rand((), generator=random, dtype=torch.double))

    def shares(self, count: int) -> list[float]:
        """How often each baseline is drawn."""
        drawn = [self.draw(count, sample)[0] for sample in range(self.noise_samples)]
        return [drawn.count(k) / len(drawn) for k in range(count)]

    def point(self, image: Tensor, references: Tensor | None, inner: int, sample: int) -> Point:  # noqa: ARG002
        """See `InputGradients`."""
        assert references is not None
        number, place = self.draw(len(references), sample)
        step = image - references[number]
        return Point(references[number] + place * step, step)
