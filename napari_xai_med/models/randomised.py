"""Copies of a classifier whose network has forgotten what it learnt, in some or all of its layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from napari_xai_med.errors import ModelError, told_as
from napari_xai_med.models.devices import copy_on

if TYPE_CHECKING:
    from napari_xai_med.models.classifier import Classifier

_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class WeightLayer:
    """Weights that are made random together.

    Parameters
    ----------
    name : str
        Of the module, or of the weight where it belongs to the network itself.
    module : str
        Of whom they are, as in ``network.named_modules()``.
    weights : tuple of str
        Their names in that module.
    """

    name: str
    module: str
    weights: tuple[str, ...]


def weight_layers(network: nn.Module) -> tuple[WeightLayer, ...]:
    """All that has weights of its own, in the order of definition, which nearly always is that from input to output."""
    found = []
    for name, module in network.named_modules():
        weights = tuple(key for key, value in module.named_parameters(recurse=False) if value.is_floating_point())
        if name and weights:
            found.append(WeightLayer(name, name, weights))
        elif weights:
            found += [WeightLayer(weight, "", (weight,)) for weight in weights]
    return tuple(found)


def with_random_weights(classifier: Classifier, layers: Iterable[WeightLayer], seed: int) -> Classifier:
    """A copy of a classifier with layers as they could have been before the training.

    PyTorch's own ``reset_parameters`` makes them where a module has it; that of a normalisation also forgets the
    statistics of its images (mean 0, variance 1). Weights without it, such as those of networks from ONNX and
    torch.export files or of class tokens, keep their scale: matrices and kernels are drawn from a normal distribution
    around 0 with the same mean square, vectors and statistics are permuted.

    Parameters
    ----------
    classifier : Classifier
        Its own network is not touched.
    layers : iterable of WeightLayer
    seed : int
        A layer gets the same weights whichever others are made random with it.

    Raises
    ------
    ModelError
        If the network has no weights that can be reached, or can't be copied.
    """
    order = weight_layers(classifier.network)
    if not order:
        raise ModelError(
            f"The weights of {classifier.name} are out of reach and can't be made random; load it from another format, "
            "such as a state dict with its architecture."
        )
    with told_as(ModelError, f"{classifier.name} can't be copied, and its own weights are left as they are: {{}}"):
        # On the processor, so that the same numbers are drawn on all devices.
        network = copy_on(classifier.network, "cpu")
    if not _storages(network).isdisjoint(_storages(classifier.network)):
        raise ModelError(f"A copy of {classifier.name} shares its weights, which have to be left as they are.")
    chosen = set(layers)
    modules = dict(network.named_modules())
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for k, layer in enumerate(order):
            if layer in chosen:
                state = np.random.SeedSequence((seed, k)).generate_state(1, np.uint64)[0]
                torch.default_generator.manual_seed(int(state))
                with told_as(ModelError, f"Layer {layer.name} of {classifier.name} can't be made random: {{}}"):
                    _forget(modules[layer.module], layer.weights)
    if classifier.device.type != "cpu":
        network = copy_on(network, classifier.device)
    copy = replace(classifier, network=network)
    # They don't depend on the weights.
    vars(copy).update(traces=classifier.traces, batch_sizes=classifier.batch_sizes)
    return copy


def _storages(network: nn.Module) -> set[int]:
    return {value.data_ptr() for value in chain(network.parameters(), network.buffers()) if value.numel()}


def _forget(module: nn.Module, weights: Sequence[str]) -> None:
    """Let a module forget its weights and statistics."""
    own = {key: value for key, value in module.named_parameters(recurse=False) if key in weights}
    before = {key: value.clone() for key, value in own.items()}
    reset = getattr(module, "reset_parameters", None)
    if reset is not None:
        reset()
    else:
        for key, value in module.named_buffers(recurse=False):
            if key in _STATISTICS:
                value.copy_(_drawn_like(value))
    for key, value in own.items():
        # Some modules compute the weights that they reset from others.
        if reset is None or (torch.equal(value, before[key]) and _varies(value)):
            value.copy_(_drawn_like(before[key]))


def _varies(value: Tensor) -> bool:
    return bool((value != value.flatten()[:1]).any())


def _drawn_like(value: Tensor) -> Tensor:
    """Random numbers on a weight's scale: permuted those of a vector, else normally distributed."""
    if sum(n > 1 for n in value.shape) < 2:
        return value.flatten()[torch.randperm(value.numel())].reshape(value.shape)
    scale = value.double().square().mean().sqrt().to(value.dtype)
    return torch.randn(value.shape, dtype=value.dtype) * scale
