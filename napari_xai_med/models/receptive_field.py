"""Where the cells of a network's feature maps lie on its input.

Strides, kernels, paddings, dilations and poolings shift and spread what a cell sees. The centre of what it
sees is where its value belongs; Araujo et al. 2019, Computing receptive fields of convolutional neural
networks, Distill, doi:10.23915/distill.00021. Padding is taken as if the input went on, so that the centre
is a linear function of the cell's index. Global branches (squeeze and excitation) move nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from napari_xai_med.errors import ModelError, one_line
from napari_xai_med.models.geometry import Follower, Geometry, steps_of
from napari_xai_med.models.geometry_ops import RULES, same_shape
from napari_xai_med.models.graphs.program import Part
from napari_xai_med.models.untouched import untouched

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
    """

    name: str
    kind: str
    channels: int
    shape: tuple[int, ...]
    receptive_field: ReceptiveField
    is_convolution: bool


def trace_layers(network: nn.Module, input_shape: tuple[int, ...]) -> tuple[Layer, ...]:
    """All layers of a network that make feature maps, in the order of their last use.

    The network runs on tensors without data where its operators allow that, else on zeros and copies of
    its weights. It is left as it came: weights, buffers, modes, hooks and what its modules store.

    Parameters
    ----------
    network : nn.Module
    input_shape : tuple of int
        (C, *spatial).

    Returns
    -------
    tuple of Layer
        Those whose output is one tensor (N, C, *spatial); maps that are known to have another order of
        axes, such as channels last or tokens, are left out.

    Raises
    ------
    ModelError
        If the network does not take an input of that shape.
    """
    with untouched(network, (1, *input_shape)), torch.no_grad():
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


def _trace(network: nn.Module, input_shape: tuple[int, ...], *, with_data: bool) -> tuple[Layer, ...]:
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
    layers: dict[str, Layer] = {}
    follower = Follower(RULES, same_shape)
    with _restoring(network), follower, _collecting(network, follower, input_shape[1:], layers):
        follower.mark(inputs)
        functional_call(network, state, (inputs,))
    return tuple(layers.values())


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
def _collecting(
    network: nn.Module, follower: Follower, spatial: tuple[int, ...], layers: dict[str, Layer]
) -> Iterator[None]:
    """Note every feature map that a module returns; the last use of a module counts."""

    def collect(name: str, module: nn.Module, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == len(spatial) + 2:
            layer = _layer(name, module, output, follower, spatial)
            layers.pop(name, None)
            if layer is not None:
                layers[name] = layer

    handles = [
        module.register_forward_hook(lambda m, _inputs, output, name=name: collect(name, m, output))
        for name, module in network.named_modules()
        if name
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _layer(name: str, module: nn.Module, output: Tensor, follower: Follower, spatial: tuple[int, ...]) -> Layer | None:
    geometry = follower.geometry(output)
    if not _in_order(geometry, output):
        return None
    shape = tuple(output.shape[2:])
    known = [steps for axis in geometry[2:] if (steps := steps_of(axis)) is not None]
    if len(known) == len(shape):
        field = ReceptiveField(
            tuple(s.jump for s in known),
            tuple((s.low + s.high) / 2 for s in known),
            tuple(s.high - s.low + 1 for s in known),
        )
    else:
        jump = tuple(n / m for n, m in zip(spatial, shape, strict=True))
        field = ReceptiveField(jump, tuple((j - 1) / 2 for j in jump), jump, followed=False)
    if isinstance(module, Part):
        return Layer(name, module.kind, output.shape[1], shape, field, module.is_convolution)
    kind = type(module).__name__
    return Layer(name, kind, output.shape[1], shape, field, isinstance(module, _CONVOLUTIONS))


def _in_order(geometry: Geometry, output: Tensor) -> bool:
    """Whether nothing speaks against (N, C, *spatial): other maps would be read along the wrong axes.

    Windows are stacked as batch; channels last, transposed maps and tokens have other axes' positions.
    """
    found = [{factor.steps.axis for factor in axis if factor.steps is not None} for axis in geometry]
    orderly = all(axes <= {k} for k, axes in enumerate(found, start=-2))
    return orderly and output.shape[0] == 1


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
