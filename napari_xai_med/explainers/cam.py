"""Class activation maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from napari_xai_med.errors import InputError, ModelError
from napari_xai_med.explainers.base import Explainer, RawMap, register
from napari_xai_med.models.formats.base import Gives
from napari_xai_med.models.run import forward
from napari_xai_med.options import LAYERS, option

if TYPE_CHECKING:
    from torch import Tensor

    from napari_xai_med.job import Job
    from napari_xai_med.models.classifier import Classifier
    from napari_xai_med.models.head import Answer
    from napari_xai_med.models.receptive_field import Layer

_CENTRED = "The geometry of layer {} could not be followed; its map is centred on the image and may be off."


@register
@dataclass(frozen=True)
class GradCAM(Explainer):
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
    needs: ClassVar[frozenset[Gives]] = frozenset({Gives.GRADIENTS, Gives.LAYERS})

    layer: str = option(
        "", "Layer whose feature maps are used; the last convolution with spatial extent if empty.", choices=LAYERS
    )

    def attribute(
        self, classifier: Classifier, inputs: Tensor, targets: Sequence[tuple[int, int | None]], job: Job
    ) -> tuple[list[RawMap], Answer]:
        """One forward pass, and a backward pass from the logit to the layer; see `Explainer`."""
        layer = self._find_layer(classifier, tuple(inputs.shape[1:]))
        activations, answer = _activations(classifier, inputs, layer.name, job.part(0.0, 0.7))
        wanted = [(row, int(answer.top[row]) if index is None else index) for row, index in targets]
        maps: dict[int, Tensor] = {}
        for chosen in _rounds(wanted):
            job.step(0.7 + 0.3 * len(maps) / len(wanted), "Going back to the layer")
            gradients = _gradients(answer.scores, [wanted[k] for k in chosen], activations, layer.name)
            weights = gradients.flatten(2).mean(2)
            summed = torch.einsum("nc,nc...->n...", weights, activations.detach()).relu()
            maps |= {k: summed[wanted[k][0]] for k in chosen}
        return [_raw_map(maps[k], layer) for k in range(len(wanted))], answer

    def _find_layer(self, classifier: Classifier, input_shape: tuple[int, ...]) -> Layer:
        from napari_xai_med.models.receptive_field import default_layer

        layers = classifier.layers(input_shape)
        if not self.layer:
            return default_layer(layers)
        for layer in layers:
            if layer.name == self.layer:
                return layer
        names = ", ".join(layer.name for layer in layers if layer.is_convolution)
        raise InputError(
            f"{classifier.name} has no feature maps at layer {self.layer!r}; its convolutions are {names}."
        )


def _rounds(targets: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
    """Which targets share a backward pass: at most one for each row, so that none disturbs another."""
    waiting = list(range(len(targets)))
    while waiting:
        first = {targets[k][0]: k for k in reversed(waiting)}
        yield list(first.values())
        waiting = [k for k in waiting if k not in first.values()]


def _activations(classifier: Classifier, inputs: Tensor, layer: str, job: Job) -> tuple[Tensor, Answer]:
    """Output of the layer at its last use, as the leaf of the graph that ends in the scores."""
    leaf: list[Tensor] = []

    def cut(output: Tensor) -> Tensor:
        leaf[:] = [output.detach().requires_grad_()]
        # A copy goes on, since the next layer may change it in place.
        return leaf[0].clone()

    with torch.enable_grad():
        answer = forward(classifier, inputs, job, {layer: cut})
    return leaf[0], answer


def _gradients(scores: Tensor, targets: list[tuple[int, int]], activations: Tensor, layer: str) -> Tensor:
    rows, classes = zip(*targets, strict=True)
    if not scores.requires_grad:
        raise ModelError(f"No gradient leads from the answer to layer {layer}; choose another layer.")
    chosen = scores[list(rows), list(classes)].sum()
    (gradients,) = torch.autograd.grad(chosen, activations, retain_graph=True, allow_unused=True)
    if gradients is None:
        raise ModelError(f"The answer does not depend on layer {layer}; choose another layer.")
    if not bool(gradients.isfinite().all()):
        raise ModelError(f"The gradient at layer {layer} is not finite; choose another layer.")
    return gradients


def _raw_map(values: Tensor, layer: Layer) -> RawMap:
    field = layer.receptive_field
    facts = {
        "layer": layer.name,
        "layer_shape": list(layer.shape),
        "cell_step": list(field.jump),
        "first_cell": list(field.start),
        "geometry_followed": field.followed,
    }
    notices = () if field.followed else (_CENTRED.format(layer.name),)
    return RawMap(values.float().cpu().numpy(), field.to_input(), facts, notices)
