"""What all methods share that make a map of a layer's feature maps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

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
from napari_xai_med.models.layouts import Layout
from napari_xai_med.models.passes import Hook
from napari_xai_med.models.receptive_field import Layer, default_layer
from napari_xai_med.models.run import forward, gradient_sentence
from napari_xai_med.models.target import AnyTarget
from napari_xai_med.options import LAYERS, option

CENTRED = "The geometry of layer {} could not be followed; its map is centred on the image and may be off."


@dataclass(frozen=True)
class LayerMap:
    """What a method makes of one layer for one target.

    Parameters
    ----------
    values : Tensor, shape (*layer)
    facts : mapping
        What belongs in the record beside the layer itself.
    notices : tuple of str
        Sentences that the user should read.
    """

    values: Tensor
    facts: Mapping[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class WithLayers(Explainer):
    """A method that is asked about layers."""

    needs: ClassVar[frozenset[Gives]] = frozenset({Gives.LAYERS})

    layers: tuple[str, ...] = option(
        (),
        "Layers whose feature maps are used; if none the last convolution with spatial extent, or for CAM, Grad-CAM++ "
        "and XGrad-CAM the last layer with it.",
        choices=LAYERS,
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
class LayerExplainer(WithLayers):
    """A method that makes a map of one layer's feature maps, or of several layers' their mean."""

    def attribute(self, question: Question, job: Job) -> tuple[list[RawMap], Answer]:
        """A map of each layer for each target, and the mean of several layers' maps; see `Explainer`."""
        layers = self.find_layers(question.classifier, tuple(question.inputs.shape[1:]))
        maps, answer = self.layer_maps(question, layers, job)
        return [fused(each, layers, tuple(question.inputs.shape[2:])) for each in maps], answer

    @abstractmethod
    def layer_maps(self, question: Question, layers: Sequence[Layer], job: Job) -> tuple[list[list[LayerMap]], Answer]:
        """The maps of some layers.

        Parameters
        ----------
        question : Question
        layers : sequence of Layer
        job : Job

        Returns
        -------
        (list of list of LayerMap, Answer)
            For each target a map of each layer, and what the classifier says about all rows.
        """


@dataclass(frozen=True)
class GradientCAM(LayerExplainer):
    """A method that weighs the feature maps of a layer by the gradient of what is explained."""

    needs: ClassVar[frozenset[Gives]] = frozenset({Gives.GRADIENTS, Gives.LAYERS})

    def layer_maps(self, question: Question, layers: Sequence[Layer], job: Job) -> tuple[list[list[LayerMap]], Answer]:
        """One forward pass, and a backward pass from the answer to the layers; see `LayerExplainer`."""
        activations, answer = activations_at(question, [layer.name for layer in layers], job.part(0.0, 0.6))
        wanted = question.resolved(answer)
        if any(len(each) != len(question.inputs) for each in activations.values()):
            # A network from a file that takes one image after the other.
            return self._one_by_one(replace(question, targets=wanted), layers, job.part(0.6, 1.0)), answer
        told = self.examine(question, activations, answer, job.part(0.6, 0.7))
        maps: dict[int, list[LayerMap]] = {}
        for chosen in rounds(wanted):
            job.step(0.7 + 0.3 * len(maps) / len(wanted), "Going back to the layer")
            gradients = gradients_at(question, answer, [wanted[k] for k in chosen], activations)
            weighed = {
                # Sums of half precision would lose what they add.
                name: self.weigh(activations[name].detach().float(), gradients[name].float())
                for name in activations
            }
            maps |= {
                k: [LayerMap(weighed[layer.name][wanted[k][0]], notices=told.get(layer.name, ())) for layer in layers]
                for k in chosen
            }
        return [maps[k] for k in range(len(wanted))], answer

    def _one_by_one(self, question: Question, layers: Sequence[Layer], job: Job) -> list[list[LayerMap]]:
        maps: list[list[LayerMap]] = []
        for done, alone in enumerate(question.one_by_one()):
            part = job.part(done / len(question.targets), (done + 1) / len(question.targets))
            maps += self.layer_maps(alone, layers, part)[0]
        return maps

    def examine(
        self,
        question: Question,  # noqa: ARG002  # others need these
        activations: Mapping[str, Tensor],  # noqa: ARG002
        answer: Answer,  # noqa: ARG002
        job: Job,  # noqa: ARG002
    ) -> Mapping[str, tuple[str, ...]]:
        """What the user should know of each layer before it is explained; nothing by default.

        Parameters
        ----------
        question : Question
        activations : mapping of str to Tensor, shape (N, K, *layer)
            By layer, in the graph that `answer` ends.
        answer : Answer
        job : Job

        Raises
        ------
        ModelError
            If the method can't be used at a layer.
        """
        return {}

    @abstractmethod
    def weigh(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """The map of one layer.

        Parameters
        ----------
        activations, gradients : Tensor, shape (N, K, *layer)
            The layer's K feature maps, and the gradient with respect to them.

        Returns
        -------
        Tensor, shape (N, *layer)
        """


def last_with_cells(layers: tuple[Layer, ...]) -> Layer:
    """The last layer whose output has more than one cell, be it a convolution or not: what is pooled, in most networks.

    Raises
    ------
    ModelError
        If there is none.
    """
    for layer in reversed(layers):
        if max(layer.shape) > 1:
            return layer
    raise ModelError("The network has no layer whose output has spatial extent; choose a method without layers.")


def rounds(targets: Sequence[tuple[int, AnyTarget]]) -> Iterator[list[int]]:
    """Which targets share a backward pass: at most one for each row, so that none disturbs another."""
    waiting = list(range(len(targets)))
    while waiting:
        first = {targets[k][0]: k for k in reversed(waiting)}
        yield list(first.values())
        waiting = [k for k in waiting if k not in first.values()]


def activations_at(
    question: Question, names: Sequence[str], job: Job, instead: Hook | None = None
) -> tuple[dict[str, Tensor], Answer]:
    """Feature maps of layers at their last use, in the graph that ends in the answer and begins at the first of them.

    They have the shape (N, K, *layer), in whatever order of axes the layer gives them.

    Parameters
    ----------
    question : Question
    names : sequence of str
    job : Job
    instead : callable, optional
        What to put in the place of these feature maps.
    """
    caught: dict[str, Tensor] = {}
    layouts = _layouts(question)

    def catching(name: str) -> Hook:
        def catch(output: Tensor) -> Tensor:
            maps = layouts[name].maps(output)
            maps = maps if instead is None else instead(maps)
            # A layer behind another one stays in the graph that leads back to that one.
            caught[name] = maps if maps.requires_grad else maps.detach().requires_grad_()
            # A copy goes on, since the next layer may change it in place.
            return layouts[name].output(caught[name].clone(), output)

        return catch

    with torch.enable_grad():
        answer = forward(question.classifier, question.inputs, job, {name: catching(name) for name in names})
    return caught, answer


def outputs_at(question: Question, names: Sequence[str], job: Job) -> tuple[dict[str, list[Tensor]], Answer]:
    """Feature maps of layers at each of their uses, for all rows, and the answer, without gradients."""
    caught: dict[str, list[Tensor]] = {name: [] for name in names}
    layouts = _layouts(question)

    def catching(name: str) -> Hook:
        def catch(output: Tensor) -> Tensor:
            caught[name].append(layouts[name].maps(output))
            return output.clone()

        return catch

    with torch.no_grad():
        answer = forward(question.classifier, question.inputs, job, {name: catching(name) for name in names})
    return {name: _by_use(outputs, len(question.inputs)) for name, outputs in caught.items()}, answer


def _layouts(question: Question) -> dict[str, Layout]:
    return {layer.name: layer.layout for layer in question.classifier.layers(tuple(question.inputs.shape[1:]))}


def _by_use(outputs: list[Tensor], rows: int) -> list[Tensor]:
    """What a network from a file gave that takes one image after the other, put together for each use of a layer."""
    uses = len(outputs) * len(outputs[0]) // rows
    return [torch.cat(outputs[use::uses]) for use in range(uses)] if uses < len(outputs) else outputs


def weighted_sum(weights: Tensor, activations: Tensor) -> Tensor:
    """Feature maps, shape (N, K, *layer), by weights, shape (N, K), summed over channels, shape (N, *layer)."""
    return torch.einsum("nk,nk...->n...", weights, activations)


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


def fused(maps: Sequence[LayerMap], layers: Sequence[Layer], input_shape: tuple[int, ...]) -> RawMap:
    """The raw map of one layer, or on the input's grid the mean of several after dividing each by its maximum.

    Parameters
    ----------
    maps : sequence of LayerMap
        One for each layer.
    layers : sequence of Layer
    input_shape : tuple of int
        Spatial shape of the network's input.
    """
    arrays = [each.values.detach().float().cpu().numpy() for each in maps]
    centred = [CENTRED.format(layer.name) for layer in layers if not layer.receptive_field.followed]
    notices = tuple(dict.fromkeys((*centred, *(sentence for each in maps for sentence in each.notices))))
    facts = [{**_facts(layer), **each.facts} for layer, each in zip(layers, maps, strict=True)]
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
