"""Where the cells of a network's feature maps lie on its input.

Strides, kernels, paddings, dilations and poolings shift and spread what a cell sees. The centre of what it
sees is where its value belongs; Araujo et al. 2019, Computing receptive fields of convolutional neural
networks, Distill, doi:10.23915/distill.00021. Padding is taken as if the input went on, so that the centre
is a linear function of the cell's index. Global branches (squeeze and excitation, attention) move nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from napari_xai_med.errors import ModelError, one_line
from napari_xai_med.models.attention import Attentions
from napari_xai_med.models.geometry import Axis, Follower, steps_of
from napari_xai_med.models.geometry_ops import RULES, same_shape
from napari_xai_med.models.graphs.program import Part
from napari_xai_med.models.layouts import Layout, Order, layout_of, patches_in
from napari_xai_med.models.size_guard import guarded
from napari_xai_med.models.untouched import is_scripted, untouched

_CONVOLUTIONS = (nn.modules.conv._ConvNd,)

# What a network raises for an input that it can't take, or where it needs data.
_FAILURES = (RuntimeError, TypeError, ValueError, AssertionError, LookupError, AttributeError, ArithmeticError)


@dataclass(frozen=True)
class ReceptiveField:
    """Where the cells of a feature map lie on the network's input.

    Parameters
    ----------
    jump : tuple of float
        Input voxels from one cell to the next, for each spatial axis.
    start : tuple of float
        Centre of cell 0 as an input index; voxel centres are at whole numbers.
    size : tuple of float
        Input voxels that a cell sees.
    followed : bool
        False if the network does something that can't be followed: the cells are then taken to divide
        the input evenly.
    """

    jump: tuple[float, ...]
    start: tuple[float, ...]
    size: tuple[float, ...]
    followed: bool = True

    def to_input(self) -> NDArray[np.float64]:
        """Feature index to input index, shape (ndim + 1, ndim + 1)."""
        matrix = np.diag([*self.jump, 1.0])
        matrix[:-1, -1] = self.start
        return matrix


@dataclass(frozen=True)
class Layer:
    """A layer whose output is a feature map.

    Parameters
    ----------
    name : str
        As in ``network.named_modules()``.
    kind : str
        Name of its class.
    channels : int
        Number of feature maps.
    shape : tuple of int
        Their spatial size.
    receptive_field : ReceptiveField
    is_convolution : bool
    layout : Layout
        Where the maps are in the layer's output.
    before_attention : bool
        Whether it is the last normalisation before an attention of tokens.
    """

    name: str
    kind: str
    channels: int
    shape: tuple[int, ...]
    receptive_field: ReceptiveField
    is_convolution: bool
    layout: Layout
    before_attention: bool = False


@dataclass(frozen=True)
class Attention:
    """One attention of a network, in which tokens look at each other.

    Parameters
    ----------
    heads, tokens : int
        Its matrices have the shape (N, heads, tokens, tokens).
    layout : Layout, optional
        Where the image's patches are among the tokens; None if the tokens are not those of the whole image.
    receptive_field : ReceptiveField, optional
        Of the patches.
    """

    heads: int
    tokens: int
    layout: Layout | None
    receptive_field: ReceptiveField | None


@dataclass(frozen=True)
class Trace:
    """What was seen of a network while it ran.

    Parameters
    ----------
    layers : tuple of Layer
        In the order of their last use.
    attentions : tuple of Attention
        In the order of execution.
    """

    layers: tuple[Layer, ...]
    attentions: tuple[Attention, ...]


def trace_layers(network: nn.Module, input_shape: tuple[int, ...]) -> tuple[Layer, ...]:
    """All layers of a network that make feature maps; see `trace`."""
    return trace(network, input_shape).layers


def trace(network: nn.Module, input_shape: tuple[int, ...]) -> Trace:
    """All layers of a network that make feature maps, and its attentions.

    The network runs on tensors without data where its operators allow that, else on zeros and copies of
    its weights. It is left as it came: weights, buffers, modes, hooks and what its modules store.

    Parameters
    ----------
    network : nn.Module
    input_shape : tuple of int
        (C, *spatial).

    Returns
    -------
    Trace
        With the layers whose output is one tensor (N, C, *spatial), (N, *spatial, C) or (N, tokens, C); maps that
        are known to have another order of axes are left out.

    Raises
    ------
    ModelError
        If the network does not take an input of that shape.
    """
    shape = (1, *input_shape)
    with untouched(network) as modules, guarded(network, shape, always=is_scripted(modules)), torch.no_grad():
        try:
            return _trace(network, input_shape, with_data=False)
        except _FAILURES:
            # Some networks read values, or keep tensors that are no parameters: they need real data.
            pass
        try:
            return _trace(network, input_shape, with_data=True)
        except _FAILURES as error:
            raise ModelError(
                f"The network does not take an input of shape {input_shape}: {one_line(error)}."
            ) from error


def _trace(network: nn.Module, input_shape: tuple[int, ...], *, with_data: bool) -> Trace:
    named = (*network.named_parameters(), *network.named_buffers())
    if with_data:
        state = {name: value.clone() for name, value in named}
    else:
        state = {name: torch.empty_like(value, device="meta") for name, value in named}
    # Input of the first weight's type, and where that is: some networks live on a GPU.
    weight = next((value for value in state.values() if value.is_floating_point()), None)
    if weight is None:
        weight = torch.empty(0, device="cpu" if with_data else "meta")
    inputs = weight.new_zeros((1, *input_shape))
    follower = Follower(RULES, same_shape)
    seen = _Seen(follower, input_shape[1:])
    with _restoring(network), follower, _collecting(network, seen), Attentions(seen.attend, batch=1):
        follower.mark(inputs)
        functional_call(network, state, (inputs,))
    return seen.trace()


@dataclass
class _Seen:
    """What was seen so far, for an input of this spatial shape; the last use of a layer counts."""

    follower: Follower
    spatial: tuple[int, ...]
    layers: dict[str, Layer] = field(default_factory=dict)
    attentions: list[Attention] = field(default_factory=list)
    normalisation: str = ""
    before: set[str] = field(default_factory=set)

    def collect(self, name: str, module: nn.Module, output: Any) -> None:
        """Note a feature map that a module gives."""
        if isinstance(output, Tensor) and 3 <= output.ndim <= len(self.spatial) + 2:
            layer = _layer(name, module, output, self.follower, self.spatial)
            if layer is not None or output.ndim == len(self.spatial) + 2:
                self.layers.pop(name, None)
            if layer is not None:
                self.layers[name] = layer
                if "norm" in layer.kind.lower() and layer.layout.order is not Order.MAPS:
                    self.normalisation = name

    def attend(self, matrix: Tensor) -> Tensor:
        """Note an attention."""
        axis = self.follower.geometry(matrix)[-1]
        found = patches_in(axis, len(self.spatial)) if matrix.shape[0] == 1 else None
        layout, place = (found[0], _field(found[1], self.spatial, found[0].shape)) if found else (None, None)
        self.attentions.append(Attention(matrix.shape[1], matrix.shape[2], layout, place))
        self.before.add(self.normalisation)
        return matrix

    def trace(self) -> Trace:
        """All of it."""
        layers = (replace(layer, before_attention=name in self.before) for name, layer in self.layers.items())
        return Trace(tuple(layers), tuple(self.attentions))


@contextmanager
def _restoring(network: nn.Module) -> Iterator[None]:
    """Undo what modules store in themselves: a cache must not keep tensors without data."""
    before = [(module, dict(module.__dict__)) for module in network.modules()]
    containers = [value for _, values in before for value in values.values() if type(value) in (dict, list)]
    copies = [copy(value) for value in containers]
    try:
        yield
    finally:
        for module, values in before:
            module.__dict__.clear()
            module.__dict__.update(values)
        for container, content in zip(containers, copies, strict=True):
            container.clear()
            if isinstance(container, dict):
                container.update(content)
            else:
                container.extend(content)


@contextmanager
def _collecting(network: nn.Module, seen: _Seen) -> Iterator[None]:
    """Note every feature map that a module returns."""
    handles = [
        module.register_forward_hook(lambda m, _inputs, output, name=name: seen.collect(name, m, output))
        for name, module in network.named_modules()
        if name
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _layer(name: str, module: nn.Module, output: Tensor, follower: Follower, spatial: tuple[int, ...]) -> Layer | None:
    found = layout_of(follower.geometry(output), len(spatial))
    if found is None:
        return None
    layout, axes = found
    place = _field(axes, spatial, layout.shape)
    channels = output.shape[1 if layout.order is Order.MAPS else -1]
    if isinstance(module, Part):
        return Layer(name, module.kind, channels, layout.shape, place, module.is_convolution, layout)
    kind = type(module).__name__
    return Layer(name, kind, channels, layout.shape, place, isinstance(module, _CONVOLUTIONS), layout)


def _field(axes: Sequence[Axis], spatial: tuple[int, ...], shape: tuple[int, ...]) -> ReceptiveField:
    known = [steps for axis in axes if (steps := steps_of(axis)) is not None]
    if len(known) == len(shape):
        return ReceptiveField(
            tuple(s.jump for s in known),
            tuple((s.low + s.high) / 2 for s in known),
            tuple(s.high - s.low + 1 for s in known),
        )
    jump = tuple(n / m for n, m in zip(spatial, shape, strict=True))
    return ReceptiveField(jump, tuple((j - 1) / 2 for j in jump), jump, followed=False)


def default_layer(layers: tuple[Layer, ...]) -> Layer:
    """The last convolution whose output has more than one cell.

    Raises
    ------
    ModelError
        If there is none.
    """
    for layer in reversed(layers):
        if layer.is_convolution and max(layer.shape) > 1:
            return layer
    raise ModelError("The network has no convolution whose output has spatial extent; choose a layer by name.")
