"""DeepLIFT: differences from a baseline, handed back through the network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from napari_xai_med.explainers.base import Question, register
from napari_xai_med.explainers.baselines import WithBackground, WithBaseline
from napari_xai_med.explainers.input_gradients import InputGradients, Point
from napari_xai_med.explainers.integrated import gauss_legendre
from napari_xai_med.explainers.noise import Tunnel
from napari_xai_med.explainers.rules import Baseline, Rescale
from napari_xai_med.job import Job
from napari_xai_med.models.formats.base import Gives
from napari_xai_med.models.head import Answer
from napari_xai_med.models.run import forward
from napari_xai_med.models.target import AnyTarget

_NODES = 32
"""Points of the integral over logits: exact in double precision for all but very sure answers."""


@dataclass(frozen=True)
class Multipliers(InputGradients):
    """A method whose gradients are DeepLIFT's multipliers.

    captum's fails where a module is used twice, and does not see functional activations; see `rules`.
    """

    # The steps of TorchScript can't be seen, nor its layers.
    needs: ClassVar[frozenset[Gives]] = frozenset({Gives.GRADIENTS, Gives.LAYERS})
    advice: ClassVar[str] = "the network has steps that DeepLIFT has no rule for"

    @property
    def adds_up(self) -> bool:
        """See `InputGradients`; with noise the map is about other images."""
        return self.noise_tunnel == Tunnel.NONE

    def inner(self, references: Tensor | None) -> int:
        """One for each baseline."""
        assert references is not None
        return references.shape[1]

    def point(self, image: Tensor, references: Tensor | None, inner: int, sample: int) -> Point:  # noqa: ARG002
        """See `InputGradients`."""
        assert references is not None
        baseline = references[inner]
        return Point(image, (image - baseline) / len(references), baseline)

    def answers(
        self, question: Question, images: Tensor, beside: Tensor | None, job: Job
    ) -> tuple[Answer, Answer | None]:
        """See `InputGradients`."""
        assert beside is not None
        with torch.no_grad(), Baseline() as baseline:
            before = forward(question.classifier, beside, job.part(0.0, 0.4))
        with Rescale(baseline):
            return forward(question.classifier, images, job.part(0.4, 1.0)), before

    def explained(self, target: AnyTarget, answer: Answer, before: Answer | None) -> Tensor:
        """The logits times the target's mean slopes on the line between both answers.

        For a logit these are its own. For a probability of one logit this is the rescale rule; of several it is
        the only extension of that rule which adds up and treats all alike (Aumann & Shapley 1974).
        """
        assert before is not None
        now, then = answer.logits.detach(), before.logits.detach()
        nodes, weights = (now.new_tensor(each)[:, None, None] for each in gauss_legendre(_NODES))
        line = (then + nodes * (now - then)).flatten(0, 1).requires_grad_()
        value = target.of(replace(answer, logits=line, scores=answer.head.scores(line)))
        (slopes,) = torch.autograd.grad(value.sum(), line)
        return (answer.logits * (slopes.unflatten(0, (_NODES, -1)) * weights).sum(0)).sum(1)


@register
@dataclass(frozen=True)
class DeepLIFT(WithBaseline, Multipliers):
    """DeepLIFT by its rescale rule: each function's change from the baseline, divided among what changed it.

    The map adds up to the difference between the answers at image and baseline where all steps have a rule:
    linear ones, functions of single numbers, largest values, and products.

    References
    ----------
    Shrikumar et al. 2017, Learning important features through propagating activation differences, ICML,
    arXiv:1704.02685.
    """

    name: ClassVar[str] = "deeplift"
    title: ClassVar[str] = "DeepLIFT"
    paper: ClassVar[str] = "Shrikumar et al. 2017, arXiv:1704.02685"

    def references(self, question: Question) -> Tensor:
        """The baseline."""
        return self.baselines(question)


@register
@dataclass(frozen=True)
class DeepLIFTSHAP(WithBackground, Multipliers):
    """DeepLIFT-SHAP: the mean of DeepLIFT's maps against several baselines.

    References
    ----------
    Lundberg & Lee 2017, A unified approach to interpreting model predictions, NeurIPS, arXiv:1705.07874.
    """

    name: ClassVar[str] = "deeplift_shap"
    title: ClassVar[str] = "DeepLIFT-SHAP"
    paper: ClassVar[str] = "Lundberg & Lee 2017, arXiv:1705.07874"

    def references(self, question: Question) -> Tensor:
        """The background."""
        return self.backgrounds(question)
