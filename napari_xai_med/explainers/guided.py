"""Other ways back through ReLUs."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from torch import Tensor

from napari_xai_med.errors import ModelError
from napari_xai_med.explainers.base import Question, RawMap, register
from napari_xai_med.explainers.cam import GradCAM
from napari_xai_med.explainers.input_gradients import InputGradients, Point
from napari_xai_med.explainers.layer_maps import WithLayers
from napari_xai_med.explainers.rules import ReluRules, Rule, deconvolution, guided
from napari_xai_med.grid import resample_linear
from napari_xai_med.job import Job
from napari_xai_med.models.formats.base import Gives
from napari_xai_med.models.head import Answer
from napari_xai_med.models.run import forward

_CAUTION = (
    "{} hardly depends on the network's weights and on the class (Adebayo et al. 2018, Nie et al. 2018): do not take "
    "it as evidence."
)


@dataclass(frozen=True)
class ThroughReLUs(InputGradients):
    """A method whose gradient goes back through each ReLU in another way."""

    # The steps of TorchScript can't be seen, nor its layers.
    needs: ClassVar[frozenset[Gives]] = frozenset({Gives.GRADIENTS, Gives.LAYERS})

    @property
    @abstractmethod
    def rule(self) -> Rule:
        """The way back."""

    def point(self, image: Tensor, references: Tensor | None, inner: int, sample: int) -> Point:  # noqa: ARG002
        """See `InputGradients`."""
        return Point(image)

    def answers(
        self,
        question: Question,
        images: Tensor,
        beside: Tensor | None,  # noqa: ARG002  # others need it
        job: Job,
    ) -> tuple[Answer, Answer | None]:
        """See `InputGradients`.

        Raises
        ------
        ModelError
            If the network has no ReLU.
        """
        with ReluRules(self.rule) as rules:
            answer = forward(question.classifier, images, job)
        if not rules.replaced:
            raise ModelError(
                f"{question.classifier.name} has no ReLU, which {self.title} needs; choose another method."
            )
        return answer, None


@register
@dataclass(frozen=True)
class GuidedBackpropagation(ThroughReLUs):
    """Guided backpropagation: the gradient without what is negative at any ReLU.

    References
    ----------
    Springenberg et al. 2014, Striving for simplicity: the all convolutional net, arXiv:1412.6806.
    """

    name: ClassVar[str] = "guided_backpropagation"
    title: ClassVar[str] = "Guided backpropagation"
    paper: ClassVar[str] = "Springenberg et al. 2014, arXiv:1412.6806"
    caution: ClassVar[str] = _CAUTION.format(title)

    @property
    def rule(self) -> Rule:
        """See `ThroughReLUs`."""
        return guided


@register
@dataclass(frozen=True)
class Deconvolution(ThroughReLUs):
    """Deconvolution: what goes back through a ReLU is what is positive of it, whatever passed on the way there.

    References
    ----------
    Zeiler & Fergus 2014, Visualizing and understanding convolutional networks, ECCV, arXiv:1311.2901.
    """

    name: ClassVar[str] = "deconvolution"
    title: ClassVar[str] = "Deconvolution"
    paper: ClassVar[str] = "Zeiler & Fergus 2014, arXiv:1311.2901"
    caution: ClassVar[str] = _CAUTION.format(title)

    @property
    def rule(self) -> Rule:
        """See `ThroughReLUs`."""
        return deconvolution


@register
@dataclass(frozen=True)
class GuidedGradCAM(WithLayers):
    """Guided Grad-CAM: guided backpropagation, times Grad-CAM on the grid of the network's input.

    captum enlarges the layer's map to the input's size whatever its cells see; here each is put where it looks.

    References
    ----------
    Selvaraju et al. 2017, Grad-CAM: visual explanations from deep networks via gradient-based
    localization, ICCV, doi:10.1109/ICCV.2017.74.
    """

    name: ClassVar[str] = "guided_gradcam"
    title: ClassVar[str] = "Guided Grad-CAM"
    paper: ClassVar[str] = "Selvaraju et al. 2017, doi:10.1109/ICCV.2017.74"
    caution: ClassVar[str] = _CAUTION.format(title)
    signed: ClassVar[bool] = True
    needs: ClassVar[frozenset[Gives]] = frozenset({Gives.GRADIENTS, Gives.LAYERS})

    def attribute(self, question: Question, job: Job) -> tuple[list[RawMap], Answer]:
        """Both methods, one after the other; see `Explainer`."""
        coarse, answer = GradCAM(layers=self.layers).attribute(question, job.part(0.0, 0.5))
        question = replace(question, targets=question.resolved(answer))
        fine, _ = GuidedBackpropagation().attribute(question, job.part(0.5, 1.0))
        maps = []
        for cam, raw in zip(coarse, fine, strict=True):
            on_input = resample_linear(cam.values, np.linalg.inv(cam.to_input), raw.values.shape)
            facts, notices = {**raw.facts, **cam.facts}, (*cam.notices, *raw.notices)
            maps.append(RawMap(raw.values * on_input, raw.to_input, facts, notices))
        return maps, answer
