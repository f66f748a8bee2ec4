"""What all methods share that make a map of a layer's feature maps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from napari_xai_med.errors import InputError, ModelError
from napari_xai_med.explainers.base import Explainer, Question, RawMap
from napari_xai_med.grid import resample_linear
from napari_xai_med.job import Job
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.formats.base import Gives
from napari_xai_med.models.head import Answer
from napari_xai_med.models.receptive_field import Layer, default_layer
from napari_xai_med.models.run import Hook, forward, gradient_sentence
from napari_xai_med.models.target import AnyTarget
from napari_xai_med.options import LAYERS, option

CENTRED = "The geometry of layer {} could not be followed; its map is centred on the image and may be off."


@dataclass(frozen=True)
class LayerExplainer(Explainer):
    """A method that makes a map of one layer's feature maps, or of several layers' their mean."""

    needs: ClassVar[frozenset[Gives]] = frozenset({Gives.GRADIENTS, Gives.LAYERS})

    layers: tuple[str, ...] = option(
        (), "Layers whose feature maps are used; the last convolution with spatial extent if none.", choices=LAYERS
    )
    separate: bool = option(
        False, "With several layers: one map for each, instead of the mean of all after dividing each by its maximum."
    )

    def each(self) -> tuple[Explainer, ...]:
        """One explainer for each layer, if that is asked for."""
        if not self.separate or len(self.layers) < 2:
            return (self,)
        return tuple(replace(self, layers=(name,), separate=False) for name in self.layers)

    def find_layers(self, classifier: Classifier, input_shape: tuple[int, ...]) -> list[Layer]:
        """The chosen layers, or the one that is used by default, for an input of shape (C, *spatial).

        Raises
        ------
        InputError
            If there is no such layer.
        """
        layers = classifier.layers(input_shape)
        if not self.layers:
            return [self.default(layers)]
        known = {layer.name: layer for layer in layers}
        for name in self.layers:
            if name not in known:
                names = ", ".join(layer.name for layer in layers if layer.is_convolution)
                raise InputError(
                    f"{classifier.name} has no feature maps at layer {name!r}; its convolutions are {names}."
                )
        return [known[name] for name in self.layers]

    def default(self, layers: tuple[Layer, ...]) -> Layer:
        """The layer that is used if none is chosen."""
        return default_layer(layers)


@dataclass(frozen=True)
class GradientCAM(LayerExplainer):
    """A method that weighs the feature maps of a layer by the gradient of what is explained."""

    def attribute(self, question: Question, job: Job) -> tuple[list[RawMap], Answer]:
        """One forward pass, and a backward pass from the answer to the layer; see `Explainer`."""
        layers = self.find_layers(question.classifier, tuple(question.inputs.shape[1:]))
        activations, answer = activations_at(question, [layer.name for layer in layers], job.part(0.0, 0.7))
        wanted = question.resolved(answer)
        maps: dict[int, list[Tensor]] = {}
        for chosen in rounds(wanted):
            job.step(0.7 + 0.3 * len(maps) / len(wanted), "Going back to the layer")
            gradients = gradients_at(question, answer, [wanted[k] for k in chosen], activations)
            weighed = [
                self.weigh(activations[layer.name].detach(), gradients[layer.name], answer.logits) for layer in layers
            ]
            maps |= {k: [values[wanted[k][0]] for values in weighed] for k in chosen}
        shape = tuple(question.inputs.shape[2:])
        return [fused(maps[k], layers, shape) for k in range(len(wanted))], answer

    @abstractmethod
    def weigh(self, activations: Tensor, gradients: Tensor, logits: Tensor) -> Tensor:
        """The map of one layer.

        Parameters
        ----------
        activations, gradients : Tensor, shape (N, K, *layer)
            The layer's K feature maps, and the gradient with respect to them.
        logits : Tensor, shape (N, number of logits)

        Returns
        -------
        Tensor, shape (N, *layer)
        """


def rounds(targets: Sequence[tuple[int, AnyTarget]]) -> Iterator[list[int]]:
    """Which targets share a backward pass: at most one for each row, so that none disturbs another."""
    waiting = list(range(len(targets)))
    while waiting:
        first = {targets[k][0]: k for k in reversed(waiting)}
        yield list(first.values())
        waiting = [k for k in waiting if k not in first.values()]


def activations_at(question: Question, names: Sequence[str], job: Job) -> tuple[dict[str, Tensor], Answer]:
    """Feature maps of layers at their last use, in the graph that ends in the answer and begins at the first of them.

    They have the shape (N, K, *layer), in whatever order of axes the layer gives them.
    """
    caught: dict[str, Tensor] = {}
    layouts = {layer.name: layer.layout for layer in question.classifier.layers(tuple(question.inputs.shape[1:]))}

    def catching(name: str) -> Hook:
        def catch(output: Tensor) -> Tensor:
            # A layer behind another one stays in the graph that leads back to that one.
            maps = layouts[name].maps(output)
            caught[name] = maps if maps.requires_grad else maps.detach().requires_grad_()
            # A copy goes on, since the next layer may change it in place.
            return layouts[name].output(caught[name].clone(), output)

        return catch

    with torch.enable_grad():
        answer = forward(question.classifier, question.inputs, job, {name: catching(name) for name in names})
    return caught, answer


def gradients_at(
    question: Question, answer: Answer, targets: Sequence[tuple[int, AnyTarget]], activations: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Gradient of the targets' sum with respect to each layer's output.

    Raises
    ------
    ModelError
        If the answer does not depend on a layer, or a gradient is not finite.
    """
    chosen = torch.stack([target.of(answer)[row] for row, target in targets]).sum()
    if not chosen.requires_grad:
        raise ModelError(f"No gradient leads from the answer to layer {', '.join(activations)}; choose another layer.")
    gradients = torch.autograd.grad(chosen, list(activations.values()), retain_graph=True, allow_unused=True)
    found: dict[str, Tensor] = {}
    for name, gradient in zip(activations, gradients, strict=True):
        if gradient is None:
            raise ModelError(f"The answer does not depend on layer {name}; choose another layer.")
        if not bool(gradient.isfinite().all()):
            raise ModelError(gradient_sentence(question.classifier, question.inputs, targets))
        found[name] = gradient
    return found


def fused(maps: Sequence[Tensor], layers: Sequence[Layer], input_shape: tuple[int, ...]) -> RawMap:
    """The raw map of one layer, or on the input's grid the mean of several after dividing each by its maximum.

    Parameters
    ----------
    maps : sequence of Tensor, shape (*layer)
        One for each layer.
    layers : sequence of Layer
    input_shape : tuple of int
        Spatial shape of the network's input.
    """
    arrays = [values.detach().float().cpu().numpy() for values in maps]
    notices = tuple(CENTRED.format(layer.name) for layer in layers if not layer.receptive_field.followed)
    facts = [_facts(layer) for layer in layers]
    if len(layers) == 1:
        return RawMap(arrays[0], layers[0].receptive_field.to_input(), facts[0], notices)
    mean = np.zeros(input_shape, np.float32)
    for values, layer in zip(arrays, layers, strict=True):
        top = np.abs(values).max()
        on_input = resample_linear(values, np.linalg.inv(layer.receptive_field.to_input()), input_shape)
        mean += on_input / np.float32((top or 1) * len(layers))
    return RawMap(mean, np.eye(len(input_shape) + 1), {"layers": facts}, notices)


def _facts(layer: Layer) -> dict[str, object]:
    field = layer.receptive_field
    return {
        "layer": layer.name,
        "layer_shape": list(layer.shape),
        "cell_step": list(field.jump),
        "first_cell": list(field.start),
        "geometry_followed": field.followed,
    }
