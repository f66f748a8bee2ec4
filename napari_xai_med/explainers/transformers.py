"""Transformers: what their tokens attend to, and Grad-CAM of tokens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from napari_xai_med.errors import InputError, ModelError
from napari_xai_med.explainers.base import Explainer, Question, RawMap, register
from napari_xai_med.explainers.cam import GradCAM
from napari_xai_med.explainers.layer_maps import rounds
from napari_xai_med.job import Job
from napari_xai_med.models.attention import Attentions
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.formats.base import Gives
from napari_xai_med.models.head import Answer
from napari_xai_med.models.layouts import Order
from napari_xai_med.models.receptive_field import Attention, Layer, Trace
from napari_xai_med.models.run import forward, gradient_sentence
from napari_xai_med.options import option

if TYPE_CHECKING:
    from napari_xai_med.models.target import AnyTarget

_NO_ATTENTION = "{} needs attention of all patches of the image to each other, and {} has none."
_OTHERS = (
    "{} needs attention of all patches of the image to each other, and in {} other tokens, such as those of a window, "
    "attend."
)
_NO_TOKENS = "{} needs layers whose outputs are tokens, and {} has none."


@dataclass(frozen=True)
class AttentionExplainer(Explainer):
    """A method that follows attention from token to token through all blocks of a transformer."""

    signed: ClassVar[bool] = False
    needs: ClassVar[frozenset[Gives]] = frozenset({Gives.GRADIENTS, Gives.LAYERS})
    with_gradients: ClassVar[bool]

    tokens: str = option(
        "auto",
        "Whose attention is shown: that of the class token, or the mean of all patches, as suits a network that pools "
        "them; auto is the class token where there is one.",
        choices=("auto", "class", "patches"),
    )

    @classmethod
    def reason(cls, classifier: Classifier) -> str:
        """See `Explainer`."""
        reasons = [_against(trace, cls.title, classifier.name) for trace in classifier.traces.values()]
        return next((reason for reason in reasons if reason), "")

    def flow(self, relevance: Tensor) -> Tensor:
        """The row of a relevance matrix, shape (..., T, T), that stands for the answer, shape (..., T)."""
        return relevance[..., 0, :] if self.tokens == "class" else relevance.mean(-2)

    def placed(self, values: Tensor, attention: Attention, count: int) -> RawMap:
        """Relevance of tokens, shape (T,), on the grid of the patches."""
        layout, field = attention.layout, attention.receptive_field
        assert layout is not None
        assert field is not None
        grid = layout.maps(values[None, :, None])[0, 0]
        facts = {
            "attentions": count,
            "heads": attention.heads,
            "tokens": attention.tokens,
            "tokens_before_patches": layout.lead,
            "patches": list(layout.shape),
            "cell_step": list(field.jump),
            "first_cell": list(field.start),
            "attention_of": self.tokens,
        }
        return RawMap(grid.detach().float().cpu().numpy(), field.to_input(), facts)

    def attribute(self, question: Question, job: Job) -> tuple[list[RawMap], Answer]:
        """One forward pass; see `Explainer`."""
        attentions = self._global(question)
        attention = attentions[0]
        explainer = self._resolved(attention)
        matrices, answer = matrices_at(question, explainer.with_gradients, job.part(0.0, 0.7))
        wanted = question.resolved(answer)
        if len(matrices) != len(attentions) and len(question.inputs) > 1:
            # A network from a file that takes one image after the other.
            rest, maps = job.part(0.7, 1.0), []
            for done, alone in enumerate(replace(question, targets=wanted).one_by_one()):
                maps += self.attribute(alone, rest.part(done / len(wanted), (done + 1) / len(wanted)))[0]
            return maps, answer
        wrong = {tuple(matrix.shape) for matrix in matrices if matrix.shape[2] != attention.tokens}
        if wrong:
            raise ModelError(
                f"{self.title} needs the same tokens in all blocks, and {question.classifier.name} changes their "
                "number; choose token Grad-CAM."
            )
        rows: dict[int, Tensor] = {}
        for chosen in rounds(wanted):
            job.step(0.7 + 0.3 * len(rows) / len(wanted), "Following attention")
            found = explainer.relevance(question, answer, matrices, [wanted[k] for k in chosen])
            rows |= {k: found[wanted[k][0]] for k in chosen}
        return [explainer.placed(rows[k], attention, len(matrices)) for k in range(len(wanted))], answer

    @abstractmethod
    def relevance(
        self, question: Question, answer: Answer, matrices: Sequence[Tensor], targets: Sequence[tuple[int, AnyTarget]]
    ) -> Tensor:
        """How much each token takes part in the answer.

        Parameters
        ----------
        question : Question
        answer : Answer
        matrices : sequence of Tensor, shape (N, heads, T, T)
            In the order of execution; row i says what token i takes from whom.
        targets : sequence of (int, Target)
            At most one for each row of the inputs.

        Returns
        -------
        Tensor, shape (N, T)
        """

    def _global(self, question: Question) -> tuple[Attention, ...]:
        trace = question.classifier.trace(tuple(question.inputs.shape[1:]))
        reason = _against(trace, self.title, question.classifier.name)
        if reason:
            raise ModelError(f"{reason} Choose another method, such as token Grad-CAM.")
        return trace.attentions

    def _resolved(self, attention: Attention) -> AttentionExplainer:
        """The same that names whose attention is shown."""
        assert attention.layout is not None
        if self.tokens == "class" and not attention.layout.lead:
            raise InputError("The network has no class token; choose the mean of all patches.")
        if self.tokens != "auto":
            return self
        return replace(self, tokens="class" if attention.layout.lead else "patches")


def _against(trace: Trace, title: str, name: str) -> str:
    """Why attention can't be followed through a network; empty if it can."""
    if not trace.attentions:
        return _NO_ATTENTION.format(title, name)
    return _OTHERS.format(title, name) if any(each.layout is None for each in trace.attentions) else ""


def matrices_at(question: Question, gradients: bool, job: Job) -> tuple[list[Tensor], Answer]:
    """The attention matrices of a pass; if asked for, in the graph that leads from the first of them to the answer."""
    matrices: list[Tensor] = []

    def see(matrix: Tensor) -> Tensor:
        if not gradients:
            matrices.append(matrix.detach())
            return matrix
        matrices.append(matrix if matrix.requires_grad else matrix.detach().requires_grad_())
        # A copy goes on, since dropout may change it in place.
        return matrices[-1].clone()

    with torch.set_grad_enabled(gradients), Attentions(see, len(question.inputs)):
        answer = forward(question.classifier, question.inputs, job)
    return matrices, answer


@register
@dataclass(frozen=True)
class AttentionRollout(AttentionExplainer):
    """Attention rollout: the product of all blocks' attention, each the mean of the heads and half the residual.

    ``R = prod_l (W_l + I) / 2``, with ``W_l`` the attention of block l, the mean over its heads.

    References
    ----------
    Abnar and Zuidema 2020, Quantifying attention flow in transformers, ACL, doi:10.18653/v1/2020.acl-main.385.
    """

    name: ClassVar[str] = "attention_rollout"
    title: ClassVar[str] = "Attention rollout"
    paper: ClassVar[str] = "Abnar and Zuidema 2020, doi:10.18653/v1/2020.acl-main.385"
    caution: ClassVar[str] = "Attention rollout is the same for all classes: it shows where the network looks, not why."
    with_gradients: ClassVar[bool] = False

    def relevance(
        self,
        question: Question,  # noqa: ARG002  # others need it
        answer: Answer,  # noqa: ARG002
        matrices: Sequence[Tensor],
        targets: Sequence[tuple[int, AnyTarget]],  # noqa: ARG002
    ) -> Tensor:
        """See `AttentionExplainer`."""
        one = torch.eye(matrices[0].shape[-1]).to(matrices[0])
        rolled = one
        for matrix in matrices:
            rolled = (matrix.mean(1) + one) / 2 @ rolled
        return self.flow(rolled)


@register
@dataclass(frozen=True)
class GradientRollout(AttentionExplainer):
    """Gradient rollout: attention that raises the class's logit, followed through all blocks.

    ``R = R + A R`` from block to block, starting with the identity, with ``A`` the mean over heads of
    ``relu(gradient * attention)``; shown without the identity, which says of each token that it is itself.

    References
    ----------
    Chefer et al. 2021, Generic attention-model explainability for interpreting bi-modal and encoder-decoder
    transformers, ICCV, doi:10.1109/ICCV48922.2021.00045; of its rules that of self-attention.
    """

    name: ClassVar[str] = "gradient_rollout"
    title: ClassVar[str] = "Gradient rollout"
    paper: ClassVar[str] = "Chefer et al. 2021, doi:10.1109/ICCV48922.2021.00045"
    with_gradients: ClassVar[bool] = True

    def relevance(
        self, question: Question, answer: Answer, matrices: Sequence[Tensor], targets: Sequence[tuple[int, AnyTarget]]
    ) -> Tensor:
        """See `AttentionExplainer`."""
        chosen = torch.stack([target.of(answer)[row] for row, target in targets]).sum()
        if not chosen.requires_grad:
            raise ModelError(f"No gradient leads from the answer to attention; {self.title} can't follow it.")
        gradients = torch.autograd.grad(chosen, list(matrices), retain_graph=True, allow_unused=True)
        one = torch.eye(matrices[0].shape[-1]).to(matrices[0])
        rolled = one
        for matrix, gradient in zip(matrices, gradients, strict=True):
            # An attention that the answer does not depend on, such as one for another output, takes no part.
            if gradient is None:
                continue
            if not bool(gradient.isfinite().all()):
                raise ModelError(gradient_sentence(question.classifier, question.inputs, targets))
            rolled = rolled + (gradient * matrix.detach()).relu().mean(1) @ rolled
        return self.flow(rolled - one)


@register
@dataclass(frozen=True)
class TokenGradCAM(GradCAM):
    """Grad-CAM of a transformer: the tokens of a layer are its feature maps, those that are no patches left out.

    The layer is, if none is chosen, the last normalisation before the last attention, as is usual: behind that
    attention, a network that answers from its class token looks at the patches no more. Where the maps have
    channels last, as in Swin transformers, it is the same.

    References
    ----------
    Selvaraju et al. 2017, Grad-CAM: visual explanations from deep networks via gradient-based
    localization, ICCV, doi:10.1109/ICCV.2017.74.
    """

    name: ClassVar[str] = "token_gradcam"
    title: ClassVar[str] = "Token Grad-CAM"

    @classmethod
    def reason(cls, classifier: Classifier) -> str:
        """See `Explainer`."""
        lacking = any(not _with_tokens(trace.layers) for trace in classifier.traces.values())
        return _NO_TOKENS.format(cls.title, classifier.name) if lacking else ""

    def find_layers(self, classifier: Classifier, input_shape: tuple[int, ...]) -> list[Layer]:
        """See `LayerExplainer`; only layers with tokens are taken."""
        tokens = _with_tokens(classifier.layers(input_shape))
        if not tokens:
            raise ModelError(f"{_NO_TOKENS.format(self.title, classifier.name)} Choose Grad-CAM.")
        layers = super().find_layers(classifier, input_shape)
        for layer in layers:
            if layer not in tokens:
                names = ", ".join(each.name for each in tokens if each.before_attention)
                raise InputError(f"Layer {layer.name} gives no tokens; choose another one, such as {names}.")
        return layers

    def default(self, layers: tuple[Layer, ...]) -> Layer:
        """See `LayerExplainer`."""
        tokens = _with_tokens(layers)
        return next((layer for layer in reversed(tokens) if layer.before_attention), tokens[-1])


def _with_tokens(layers: Sequence[Layer]) -> list[Layer]:
    return [layer for layer in layers if layer.layout.order is not Order.MAPS and max(layer.shape) > 1]
