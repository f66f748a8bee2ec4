"""Layers of ONNX in PyTorch: convolutions, poolings, and normalisations; see `onnx_ops`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Attributes = dict[str, Any]
Inputs = Sequence[Any]


class Unsupported(ValueError):  # noqa: N818  # seldom an error: the network is then only asked for predictions
    """An operator, or a use of one, that has no counterpart here; some show only with an image of another shape."""


def at(inputs: Inputs, position: int) -> Any:
    """An input that may be left out."""
    return inputs[position] if len(inputs) > position else None


def ints(value: Any) -> list[int]:
    """Whole numbers from a list or from a tensor that does not depend on the image's values."""
    return [int(n) for n in (value.tolist() if isinstance(value, Tensor) else value)]


def _pads(attributes: Attributes, x: Tensor, kernel: Sequence[int]) -> tuple[list[int], list[int]]:
    """Padding before and after each spatial axis."""
    rank, kind = len(kernel), attributes.get("auto_pad", "NOTSET")
    if kind in ("NOTSET", "VALID"):
        pads = attributes.get("pads", [0] * 2 * rank) if kind == "NOTSET" else [0] * 2 * rank
        return list(pads[:rank]), list(pads[rank:])
    strides, dilations = attributes.get("strides", [1] * rank), attributes.get("dilations", [1] * rank)
    before, after = [], []
    for n, k, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        total = max((math.ceil(n / stride) - 1) * stride + dilation * (k - 1) + 1 - n, 0)
        small = total // 2
        before.append(small if kind == "SAME_UPPER" else total - small)
        after.append(total - before[-1])
    return before, after


def _padded(x: Tensor, before: list[int], after: list[int], value: float) -> tuple[Tensor, list[int]]:
    """Pad by hand what PyTorch's layers, which pad both sides alike, can't; the padding that is left."""
    if before == after:
        return x, before
    sides = [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair]
    return functional.pad(x, sides, value=value), [0] * len(before)


def convolution(inputs: Inputs, attributes: Attributes) -> Tensor:
    """Conv."""
    x, weight, bias = inputs[0], inputs[1], at(inputs, 2)
    rank = weight.ndim - 2
    x, pads = _padded(x, *_pads(attributes, x, weight.shape[2:]), 0.0)
    strides, dilations = attributes.get("strides", [1] * rank), attributes.get("dilations", [1] * rank)
    return torch.convolution(
        x, weight, bias, strides, pads, dilations, False, [0] * rank, int(attributes.get("group", 1))
    )


def transposed_convolution(inputs: Inputs, attributes: Attributes) -> Tensor:
    """ConvTranspose."""
    x, weight, bias = inputs[0], inputs[1], at(inputs, 2)
    rank = weight.ndim - 2
    pads = attributes.get("pads", [0] * 2 * rank)
    if pads[:rank] != pads[rank:] or "output_shape" in attributes or attributes.get("auto_pad", "NOTSET") != "NOTSET":
        raise Unsupported("ConvTranspose with uneven padding")
    return torch.convolution(
        x,
        weight,
        bias,
        attributes.get("strides", [1] * rank),
        pads[:rank],
        attributes.get("dilations", [1] * rank),
        True,
        attributes.get("output_padding", [0] * rank),
        int(attributes.get("group", 1)),
    )


def max_pool(inputs: Inputs, attributes: Attributes) -> Tensor:
    """MaxPool."""
    x, kernel = inputs[0], attributes["kernel_shape"]
    rank = len(kernel)
    x, pads = _padded(x, *_pads(attributes, x, kernel), -math.inf)
    pool = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}[rank]
    return pool(
        x,
        kernel,
        attributes.get("strides", [1] * rank),
        pads,
        attributes.get("dilations", [1] * rank),
        ceil_mode=bool(attributes.get("ceil_mode", 0)),
    )


def average_pool(inputs: Inputs, attributes: Attributes) -> Tensor:
    """AveragePool."""
    x, kernel = inputs[0], attributes["kernel_shape"]
    rank = len(kernel)
    before, after = _pads(attributes, x, kernel)
    counted = bool(attributes.get("count_include_pad", 0))
    if before != after and not counted:
        raise Unsupported("AveragePool with uneven padding")
    x, pads = _padded(x, before, after, 0.0)
    pool = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}[rank]
    return pool(x, kernel, attributes.get("strides", [1] * rank), pads, bool(attributes.get("ceil_mode", 0)), counted)


def global_pool(inputs: Inputs, _: Attributes, *, largest: bool = False) -> Tensor:
    """GlobalAveragePool and GlobalMaxPool."""
    x = inputs[0]
    axes = list(range(2, x.ndim))
    return x.amax(axes, keepdim=True) if largest else x.mean(axes, keepdim=True)


def batch_norm(inputs: Inputs, attributes: Attributes) -> Tensor:
    """BatchNormalization, as in eval mode."""
    x, scale, bias, mean, var = inputs[:5]
    return functional.batch_norm(x, mean, var, scale, bias, False, 0.0, attributes.get("epsilon", 1e-5))


def layer_norm(inputs: Inputs, attributes: Attributes) -> Tensor:
    """LayerNormalization."""
    x = inputs[0]
    shape = x.shape[attributes.get("axis", -1) :]
    return functional.layer_norm(x, shape, inputs[1], at(inputs, 2), attributes.get("epsilon", 1e-5))


def group_norm(inputs: Inputs, attributes: Attributes) -> Tensor:
    """GroupNormalization, as opset 21 has it."""
    return functional.group_norm(
        inputs[0], int(attributes["num_groups"]), inputs[1], inputs[2], attributes.get("epsilon", 1e-5)
    )


def instance_norm(inputs: Inputs, attributes: Attributes) -> Tensor:
    """InstanceNormalization."""
    return functional.instance_norm(inputs[0], weight=inputs[1], bias=inputs[2], eps=attributes.get("epsilon", 1e-5))


def depth_to_space(inputs: Inputs, attributes: Attributes) -> Tensor:
    """DepthToSpace."""
    if attributes.get("mode", "DCR") != "CRD":
        raise Unsupported("DepthToSpace of the kind DCR")
    return functional.pixel_shuffle(inputs[0], int(attributes["blocksize"]))
