"""A network of Keras as one of PyTorch, layer by layer under the same names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, nn

from napari_xai_med.models.keras_files import modules, operations
from napari_xai_med.models.keras_files.config import CONVERTED
from napari_xai_med.models.keras_files.spec import Layer, Model

Shapes = list[tuple[int | None, ...]]
Maker = Callable[[Any, Layer, Shapes, bool], nn.Module]

_MERGED: dict[str, Callable[[Sequence[Tensor]], Tensor]] = {
    "Add": lambda tensors: reduce(torch.add, tensors),
    "Subtract": lambda tensors: tensors[0] - tensors[1],
    "Multiply": lambda tensors: reduce(torch.mul, tensors),
    "Average": lambda tensors: reduce(torch.add, tensors) / len(tensors),
    "Maximum": lambda tensors: reduce(torch.maximum, tensors),
    "Minimum": lambda tensors: reduce(torch.minimum, tensors),
}


_SMALLEST_SPREAD = 1e-7
"""Keras' own lower limit of a standard deviation."""


class NotConvertible(Exception):  # noqa: N818  # not an error: Keras runs the network then
    """A layer has no counterpart here."""


def channels_are_last(model: Model) -> bool:
    """Whether a network has its channels last.

    Raises
    ------
    NotConvertible
        If its layers disagree.
    """
    found = _formats(model)
    if len(found) > 1:
        raise NotConvertible("its layers have their channels in different places")
    return found != {"channels_first"}


def _formats(model: Model) -> set[Any]:
    # What flattens takes any order, and is not told in older files.
    own = {layer.config.get("data_format") for layer in model.layers if layer.kind != "Flatten"} - {None}
    return own.union(*(_formats(layer.model) for layer in model.layers if layer.model is not None))


def converted(layer: Any, spec: Layer, shapes: Shapes, last: bool) -> nn.Module:
    """The module of PyTorch for a layer of Keras.

    Parameters
    ----------
    layer : keras.layers.Layer
        With its weights.
    spec : Layer
    shapes : list of tuple
        Of what it takes, in Keras' order of axes.
    last : bool
        Whether the channels are last.

    Raises
    ------
    NotConvertible
        If there is none.
    """
    if spec.kind.startswith(operations.PREFIX):
        return _operation(spec, shapes, last)
    if spec.kind not in CONVERTED or spec.kind not in _MAKERS:
        raise NotConvertible(f"{spec.kind} has no counterpart")
    return _MAKERS[spec.kind](layer, spec, shapes, last)


def _values(weight: Any) -> Tensor:
    # A variable of Keras holds a tensor; some layers give the tensor itself.
    value: Tensor = getattr(weight, "value", weight)
    return value.detach().cpu().clone()


def _rank(shapes: Shapes) -> int:
    ranks = {len(shape) for shape in shapes}
    if len(ranks) != 1:
        raise NotConvertible("tensors with different numbers of axes are combined")
    return ranks.pop()


def _axis(axis: Any, rank: int, last: bool) -> int:
    """An axis of Keras' tensors, or a list of one, among those of ours, where channels are first."""
    axes = list(axis) if isinstance(axis, list | tuple) else [axis]
    if len(axes) != 1:
        raise NotConvertible("several axes at once")
    found = int(axes[0]) % rank
    if not last or found == 0:
        return found
    return 1 if found == rank - 1 else found + 1


def _channel_axis(rank: int, last: bool) -> int:
    return rank - 1 if last else 1


def _activation(name: str, rank: int, last: bool) -> nn.Module:
    if "softmax" in name and rank > 2 and not last:
        # Keras has it over the last axis, here one of space.
        return nn.Softmax(-1) if name == "softmax" else nn.LogSoftmax(-1)
    return modules.ACTIVATIONS[name]()


def _of_layer(layer: Any, spec: Layer, rank: int, last: bool) -> nn.Module:
    del layer
    return _activation(str(spec.config.get("activation", "linear")), rank, last)


def _convolution(layer: Any, spec: Layer, shapes: Shapes, last: bool) -> nn.Module:
    rank = len(layer.kernel_size)
    kernel = _values(layer.kernel).permute(rank + 1, rank, *range(rank))
    return _conv(layer, kernel, layer.bias, layer.groups, _of_layer(layer, spec, _rank(shapes), last))


def _conv(layer: Any, kernel: Tensor, bias: Any, groups: int, activation: nn.Module, *, pointwise: bool = False) -> Any:
    """A convolution from a kernel in PyTorch's order; `pointwise` leaves the layer's strides to another."""
    rank = kernel.ndim - 2
    kind: Any = modules.Conv2D if rank == 2 else modules.Conv3D
    if layer.padding not in ("same", "valid"):
        raise NotConvertible(f"padding {layer.padding}")
    kind = modules.SeparableConv2D if pointwise else kind
    conv = kind(
        kernel.shape[1] * groups,
        kernel.shape[0],
        tuple(kernel.shape[2:]),
        stride=1 if pointwise else tuple(layer.strides),
        dilation=1 if pointwise else tuple(layer.dilation_rate),
        groups=groups,
        bias=bias is not None,
    )
    conv.same, conv.activation = layer.padding == "same", activation
    conv.weight = nn.Parameter(kernel.contiguous())
    if bias is not None:
        conv.bias = nn.Parameter(_values(bias))
    return conv


def _depthwise_kernel(weight: Any) -> tuple[Tensor, int]:
    kernel = _values(weight)
    height, width, channels, multiplier = kernel.shape
    return kernel.permute(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width), channels


def _depthwise(layer: Any, spec: Layer, shapes: Shapes, last: bool) -> nn.Module:
    kernel, groups = _depthwise_kernel(layer.kernel)
    return _conv(layer, kernel, layer.bias, groups, _of_layer(layer, spec, _rank(shapes), last))


def _separable(layer: Any, spec: Layer, shapes: Shapes, last: bool) -> nn.Module:
    kernel, groups = _depthwise_kernel(layer.depthwise_kernel)
    first = _conv(layer, kernel, None, groups, nn.Identity())
    across = _values(layer.pointwise_kernel).permute(3, 2, 0, 1)
    activation = _of_layer(layer, spec, _rank(shapes), last)
    second = _conv(layer, across, layer.bias, 1, activation, pointwise=True)
    second.depthwise = first
    return second


def _dense(layer: Any, spec: Layer, shapes: Shapes, last: bool) -> nn.Module:
    rank = _rank(shapes)
    if rank > 2 and not last:
        raise NotConvertible("a Dense layer over an axis of space")
    kernel = _values(layer.kernel)
    dense = modules.Dense(kernel.shape[0], kernel.shape[1], bias=layer.bias is not None)
    dense.activation = _of_layer(layer, spec, rank, last)
    dense.weight = nn.Parameter(kernel.T.contiguous())
    if layer.bias is not None:
        dense.bias = nn.Parameter(_values(layer.bias))
    return dense


def _normalization(layer: Any, _: Layer, shapes: Shapes, last: bool) -> nn.Module:
    rank = _rank(shapes)
    if rank > 5 or layer.axis % rank != _channel_axis(rank, last):
        raise NotConvertible("a BatchNormalization along an axis of space")
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[rank]
    mean, variance = _values(layer.moving_mean), _values(layer.moving_variance)
    norm = kind(len(mean), eps=layer.epsilon, momentum=1 - layer.momentum)
    ones, zeros = torch.ones(len(mean)), torch.zeros(len(mean))
    norm.weight = nn.Parameter(ones if layer.gamma is None else _values(layer.gamma))
    norm.bias = nn.Parameter(zeros if layer.beta is None else _values(layer.beta))
    norm.running_mean, norm.running_var = mean, variance
    return norm


def _pool(layer: Any, spec: Layer, _: Shapes, __: bool) -> nn.Module:
    average = spec.kind.startswith("Average")
    return modules.Pool(tuple(layer.pool_size), tuple(layer.strides), layer.padding == "same", average)


def _global(layer: Any, spec: Layer, _: Shapes, __: bool) -> nn.Module:
    return modules.GlobalPool("Average" in spec.kind, bool(layer.keepdims))


def _flatten(layer: Any, _: Layer, shapes: Shapes, last: bool) -> nn.Module:
    # Keras brings channels last first if it is told that they come first.
    told_first = layer.data_format == "channels_first"
    if told_first and last and _rank(shapes) > 2:
        raise NotConvertible("a Flatten that takes channels where there are none")
    return modules.Shape((-1,), last or told_first, False)


def _reshape(layer: Any, _: Layer, __: Shapes, last: bool) -> nn.Module:
    return modules.Shape(tuple(layer.target_shape), last, last)


def _pad(layer: Any, spec: Layer, _: Shapes, __: bool) -> nn.Module:
    if spec.kind.startswith("Cropping"):
        return modules.Pad([(-before, -after) for before, after in layer.cropping])
    return modules.Pad([(before, after) for before, after in layer.padding])


def _enlarge(layer: Any, _: Layer, __: Shapes, ___: bool) -> nn.Module:
    mode = getattr(layer, "interpolation", "nearest")
    if mode not in ("nearest", "bilinear"):
        raise NotConvertible(f"{mode} interpolation")
    return modules.Enlarge(tuple(layer.size), mode)


def _identity(*_: Any) -> nn.Module:
    return nn.Identity()


def _function(layer: Any, spec: Layer, shapes: Shapes, last: bool) -> nn.Module:
    return _of_layer(layer, spec, _rank(shapes), last)


def _softmax(layer: Any, _: Layer, shapes: Shapes, last: bool) -> nn.Module:
    return nn.Softmax(_axis(layer.axis, _rank(shapes), last))


def _relu(layer: Any, _: Layer, __: Shapes, ___: bool) -> nn.Module:
    largest, slope, threshold = layer.max_value, layer.negative_slope, layer.threshold
    if largest is None and not slope and not threshold:
        return nn.ReLU()
    return modules.ReLU(largest, float(slope), float(threshold))


def _leaky(layer: Any, _: Layer, __: Shapes, ___: bool) -> nn.Module:
    return nn.LeakyReLU(float(layer.negative_slope))


def _elu(layer: Any, _: Layer, __: Shapes, ___: bool) -> nn.Module:
    return nn.ELU(float(layer.alpha))


def _prelu(layer: Any, _: Layer, __: Shapes, last: bool) -> nn.Module:
    slope = _values(layer.alpha)
    return modules.PReLU(slope.movedim(-1, 0).contiguous() if last else slope)


def _rescale(layer: Any, _: Layer, shapes: Shapes, last: bool) -> nn.Module:
    rank = _rank(shapes)

    def along_channels(value: Any) -> Tensor:
        numbers = torch.as_tensor(value, dtype=torch.float32)
        if numbers.ndim == 0:
            return numbers
        if numbers.ndim != 1 or not last:
            raise NotConvertible("a Rescaling along an axis of space")
        return numbers.reshape(-1, *(1,) * (rank - 2))

    return modules.Scale(along_channels(layer.scale), along_channels(layer.offset))


def _merge(_: Any, spec: Layer, shapes: Shapes, __: bool) -> nn.Module:
    _rank(shapes)
    return modules.Merge(_MERGED[spec.kind])


def _join(layer: Any, _: Layer, shapes: Shapes, last: bool) -> nn.Module:
    return modules.Join(_axis(layer.axis, _rank(shapes), last))


def _weighted(norm: Any, layer: Any) -> nn.Module:
    """A normalisation with a layer's scale and offset, where it has them."""
    for name, weight in (("weight", layer.gamma), ("bias", layer.beta)):
        if weight is not None:
            setattr(norm, name, nn.Parameter(_values(weight)))
    return norm


def _group_norm(layer: Any, _: Layer, shapes: Shapes, last: bool) -> nn.Module:
    channels = shapes[0][_channel_axis(_rank(shapes), last)]
    if _axis(layer.axis, _rank(shapes), last) != 1:
        raise NotConvertible("a GroupNormalization along an axis of space")
    return _weighted(nn.GroupNorm(layer.groups, int(channels or 0), eps=layer.epsilon), layer)


def _layer_norm(layer: Any, _: Layer, shapes: Shapes, last: bool) -> nn.Module:
    channels = shapes[0][_channel_axis(_rank(shapes), last)]
    if _axis(layer.axis, _rank(shapes), last) != 1 or getattr(layer, "rms_scaling", False):
        raise NotConvertible("a LayerNormalization along an axis of space")
    return _weighted(modules.ChannelNorm(int(channels or 0), eps=layer.epsilon), layer)


def _unit(layer: Any, _: Layer, shapes: Shapes, last: bool) -> nn.Module:
    return modules.Unit(_axis(layer.axis, _rank(shapes), last))


def _standardise(layer: Any, _: Layer, shapes: Shapes, last: bool) -> nn.Module:
    axis = _channel_axis(_rank(shapes), last)
    mean, spread = _values(layer.mean), _values(layer.variance).sqrt().clamp(min=_SMALLEST_SPREAD)
    if any(n != 1 for k, n in enumerate(mean.shape) if k != axis):
        raise NotConvertible("a Normalization along an axis of space")
    mean, spread = (numbers.movedim(axis, 1)[0] for numbers in (mean, spread))
    return modules.Scale(spread, mean) if layer.invert else modules.Scale(1 / spread, -mean / spread)


def _operation(spec: Layer, shapes: Shapes, last: bool) -> nn.Module:
    kind, rank = spec.kind.removeprefix(operations.PREFIX), _rank(shapes)
    function = operations.KNOWN[kind][1]
    if kind in operations.REDUCING:
        return _reduction(function, spec, rank, last)
    if kind == "Softmax":
        return nn.Softmax(_axis(spec.config.get("axis", -1), rank, last))
    if kind == "Concatenate":
        return modules.Join(_axis(spec.config.get("axis", 0), rank, last))
    arguments = list(spec.config["arguments"])
    for k, value in enumerate(arguments):
        if isinstance(value, list):
            if not last and rank > 2:
                raise NotConvertible("numbers along an axis of space")
            arguments[k] = torch.tensor(value).reshape(-1, *(1,) * (rank - 2))
    return operations.Operation(function, arguments)


def _reduction(function: Callable[..., Tensor], spec: Layer, rank: int, last: bool) -> nn.Module:
    given, kept = spec.config.get("axis"), bool(spec.config.get("keepdims", False))
    axes = [_axis(axis, rank, last) for axis in (given if isinstance(given, list) else [given]) if axis is not None]
    if not axes or 0 in axes or (1 in axes and not kept):
        raise NotConvertible("a reduction over images or channels")
    return operations.Operation(partial(function, dim=tuple(axes), keepdim=kept), [None])


_MAKERS: dict[str, Maker] = {
    **dict.fromkeys(("Conv2D", "Conv3D"), _convolution),
    "SeparableConv2D": _separable,
    "DepthwiseConv2D": _depthwise,
    "Dense": _dense,
    "BatchNormalization": _normalization,
    **{f"{kind}Pooling{dims}D": _pool for kind in ("Max", "Average") for dims in (2, 3)},
    **{f"Global{kind}Pooling{dims}D": _global for kind in ("Max", "Average") for dims in (2, 3)},
    "Flatten": _flatten,
    "Reshape": _reshape,
    **{f"{kind}{dims}D": _pad for kind in ("ZeroPadding", "Cropping") for dims in (2, 3)},
    **{f"UpSampling{dims}D": _enlarge for dims in (2, 3)},
    "Identity": _identity,
    "Activation": _function,
    "Softmax": _softmax,
    "ReLU": _relu,
    "LeakyReLU": _leaky,
    "ELU": _elu,
    "PReLU": _prelu,
    "Rescaling": _rescale,
    "Normalization": _standardise,
    "GroupNormalization": _group_norm,
    "LayerNormalization": _layer_norm,
    "UnitNormalization": _unit,
    **dict.fromkeys(_MERGED, _merge),
    "Concatenate": _join,
}
