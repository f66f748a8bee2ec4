"""Gradients on the way from a baseline to the image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
from torch import Tensor

from napari_xai_med.explainers.base import Question, register
from napari_xai_med.explainers.baselines import WithBaseline
from napari_xai_med.explainers.input_gradients import InputGradients, Point
from napari_xai_med.explainers.noise import Tunnel
from napari_xai_med.options import option


@lru_cache
def gauss_legendre(steps: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Nodes and weights of an integral from 0 to 1, as captum takes them by default."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return tuple(((nodes + 1) / 2).tolist()), tuple((weights / 2).tolist())


@register
@dataclass(frozen=True)
class IntegratedGradients(WithBaseline, InputGradients):
    """Integrated Gradients: the mean gradient on the line from a baseline to the image, times their difference.

    The map adds up to the difference between the answers at image and baseline, but for the error of the integral,
    which is told. The integral is Gauss and Legendre's, which needs the fewest steps where the network is smooth.
    Own code and not captum's: that keeps the gradients of all steps until the end, and starts anew for each class.

    References
    ----------
    Sundararajan et al. 2017, Axiomatic attribution for deep networks, ICML, arXiv:1703.01365.
    """

    name: ClassVar[str] = "integrated_gradients"
    title: ClassVar[str] = "Integrated Gradients"
    paper: ClassVar[str] = "Sundararajan et al. 2017, arXiv:1703.01365"
    advice: ClassVar[str] = "take more steps, or another baseline"

    steps: int = option(32, "Points on the way from the baseline to the image.", limits=(1, 10_000))

    @property
    def adds_up(self) -> bool:
        """See `InputGradients`; with noise the map is about other images."""
        return self.noise_tunnel == Tunnel.NONE

    def references(self, question: Question) -> Tensor:
        """The baseline."""
        return self.baselines(question)

    def inner(self, references: Tensor | None) -> int:  # noqa: ARG002  # see `InputGradients`
        """The steps."""
        return self.steps

    def point(self, image: Tensor, references: Tensor | None, inner: int, sample: int) -> Point:  # noqa: ARG002
        """See `InputGradients`."""
        assert references is not None
        nodes, weights = gauss_legendre(self.steps)
        step = image - references[0]
        return Point(references[0] + nodes[inner] * step, weights[inner] * step)
