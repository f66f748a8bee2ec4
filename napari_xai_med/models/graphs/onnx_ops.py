"""What ONNX's operators compute, in PyTorch: those that classifiers of images are made of.

https://onnx.ai/onnx/operators. A converted network is compared with onnxruntime before it is used, so that a
case which is missed here costs explanations, but never gives a wrong one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from napari_xai_med.models.graphs.onnx_layers import (
    Attributes,
    Inputs,
    Unsupported,
    at,
    average_pool,
    batch_norm,
    convolution,
    depth_to_space,
    global_pool,
    group_norm,
    instance_norm,
    ints,
    layer_norm,
    max_pool,
    transposed_convolution,
)
from napari_xai_med.models.graphs.onnx_resize import resize, upsample

Operator = Callable[[Inputs, Attributes], Any]


def _gemm(inputs: Inputs, attributes: Attributes) -> Tensor:
    a, b, c = inputs[0], inputs[1], at(inputs, 2)
    a = a.t() if attributes.get("transA", 0) else a
    b = b.t() if attributes.get("transB", 0) else b
    product = attributes.get("alpha", 1.0) * (a @ b)
    return product if c is None else product + attributes.get("beta", 1.0) * c


def _flatten(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, axis = inputs[0], int(attributes.get("axis", 1))
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _reshape(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, shape = inputs[0], ints(inputs[1])
    if not attributes.get("allowzero", 0):
        shape = [x.shape[k] if n == 0 else n for k, n in enumerate(shape)]
    return x.reshape(shape)


def _axes(inputs: Inputs, attributes: Attributes, position: int = 1) -> list[int] | None:
    """Axes, which older versions keep among the attributes and newer ones among the inputs."""
    given = attributes.get("axes", at(inputs, position))
    return None if given is None else ints(given)


def _squeeze(inputs: Inputs, attributes: Attributes) -> Tensor:
    axes = _axes(inputs, attributes)
    return inputs[0].squeeze() if axes is None else inputs[0].squeeze(tuple(axes))


def _unsqueeze(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, axes = inputs[0], _axes(inputs, attributes) or []
    rank = x.ndim + len(axes)
    for axis in sorted(a % rank for a in axes):
        x = x.unsqueeze(axis)
    return x


def _reduced(inputs: Inputs, attributes: Attributes, *, function: Callable[..., Tensor]) -> Tensor:
    x, axes = inputs[0], _axes(inputs, attributes)
    if not axes:
        if attributes.get("noop_with_empty_axes", 0):
            return x
        axes = list(range(x.ndim))
    return function(x, axes, keepdim=bool(attributes.get("keepdims", 1)))


def _split(inputs: Inputs, attributes: Attributes) -> Sequence[Tensor]:
    x, axis = inputs[0], int(attributes.get("axis", 0))
    sizes = attributes.get("split", at(inputs, 1))
    if sizes is None:
        each = math.ceil(x.shape[axis] / int(attributes["outputs"]))
        return x.split(each, axis)
    return x.split(ints(sizes), axis)


def _slice(inputs: Inputs, attributes: Attributes) -> Tensor:
    x = inputs[0]
    starts, ends = (ints(attributes.get(key, at(inputs, k))) for k, key in ((1, "starts"), (2, "ends")))
    axes = _axes(inputs, attributes, 3) or list(range(len(starts)))
    steps = ints(inputs[4]) if at(inputs, 4) is not None else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step == -1 and start in (-1, x.shape[axis] - 1) and end < -x.shape[axis]:
            x = x.flip(axis)
        elif step < 1:
            raise Unsupported("Slice with a negative step")
        else:
            x = x[tuple([slice(None)] * (axis % x.ndim) + [slice(start, end, step)])]
    return x


def _pad(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, pads = inputs[0], ints(attributes.get("pads", at(inputs, 1)))
    given = at(inputs, 2)
    value = float(attributes.get("value", 0.0) if given is None else given)
    axes = ints(inputs[3]) if at(inputs, 3) is not None else list(range(x.ndim))
    before, after = [0] * x.ndim, [0] * x.ndim
    for k, axis in enumerate(axes):
        before[axis], after[axis] = pads[k], pads[k + len(axes)]
    sides = [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair]
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}[attributes.get("mode", "constant")]
    if mode == "constant":
        return functional.pad(x, sides, value=value)
    # The other modes take the padding of spatial axes only.
    return functional.pad(x, sides[: 2 * (x.ndim - 2)], mode=mode)


def _gather(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, index, axis = inputs[0], inputs[1], int(attributes.get("axis", 0))
    axis = axis % x.ndim
    if index.ndim == 0:
        return x.select(axis, int(index))
    index = index.to(x.device)
    flat = torch.where(index < 0, index + x.shape[axis], index).flatten()
    return x.index_select(axis, flat).reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def _softmax(inputs: Inputs, attributes: Attributes, *, logarithm: bool = False) -> Tensor:
    x = inputs[0]
    old = int(attributes["opset"]) < 13
    axis = int(attributes.get("axis", 1 if old else -1))
    function = functional.log_softmax if logarithm else functional.softmax
    if not old:
        return function(x, axis)
    # Before opset 13 all axes from this one on were one.
    return function(x.reshape(*x.shape[:axis], -1), -1).reshape(x.shape)


def _clip(inputs: Inputs, attributes: Attributes) -> Tensor:
    low = attributes.get("min", at(inputs, 1))
    high = attributes.get("max", at(inputs, 2))
    return inputs[0].clamp(None if low is None else float(low), None if high is None else float(high))


def _divided(inputs: Inputs, _: Attributes) -> Tensor:
    a, b = inputs
    if a.is_floating_point():
        return a / b
    return torch.div(a, b, rounding_mode="trunc")


def _cast(inputs: Inputs, attributes: Attributes) -> Tensor:
    # Half and double precision are computed with single precision: half has not all operators on processors.
    types = {6: torch.int32, 7: torch.int64, 9: torch.bool} | dict.fromkeys((1, 10, 11), torch.float32)
    if attributes["to"] not in types:
        raise Unsupported("Cast to a rare type")
    return inputs[0].to(types[attributes["to"]])


def _filled(inputs: Inputs, attributes: Attributes) -> Tensor:
    value = attributes.get("value", torch.zeros(1))
    return value.reshape(()).expand(ints(inputs[0])).clone()


def _expand(inputs: Inputs, _: Attributes) -> Tensor:
    return inputs[0].expand(torch.broadcast_shapes(inputs[0].shape, ints(inputs[1])))


def _folded(inputs: Inputs, _: Attributes, *, function: Callable[..., Tensor]) -> Tensor:
    result = inputs[0]
    for other in inputs[1:]:
        result = function(result, other)
    return result


def _shape(inputs: Inputs, attributes: Attributes) -> Tensor:
    shape = list(inputs[0].shape)
    return torch.tensor(shape[int(attributes.get("start", 0)) : attributes.get("end")])


def _constant(_: Inputs, attributes: Attributes) -> Tensor:
    value = next((attributes[k] for k in attributes if k.startswith("value")), None)
    if value is None:
        raise Unsupported("Constant of a rare kind")
    return value if isinstance(value, Tensor) else torch.tensor(value)


def _one(function: Callable[..., Any]) -> Operator:
    """An operator on its inputs alone."""
    return lambda inputs, _: function(*inputs)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Log": torch.log,
    "Sqrt": torch.sqrt,
    "Abs": torch.abs,
    "Neg": torch.neg,
    "Reciprocal": torch.reciprocal,
    "Floor": torch.floor,
    "Ceil": torch.ceil,
    "Round": torch.round,
    "Sign": torch.sign,
    "Selu": functional.selu,
    "HardSwish": functional.hardswish,
    "Softplus": functional.softplus,
    "Softsign": functional.softsign,
    "Mish": functional.mish,
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "And": torch.logical_and,
    "Or": torch.logical_or,
    "Not": torch.logical_not,
}

OPERATORS: dict[str, Operator] = {
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": global_pool,
    "GlobalMaxPool": partial(global_pool, largest=True),
    "BatchNormalization": batch_norm,
    "LayerNormalization": layer_norm,
    "GroupNormalization": group_norm,
    "InstanceNormalization": instance_norm,
    "Gemm": _gemm,
    "MatMul": _one(torch.matmul),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": lambda i, a: i[0].permute(a.get("perm", list(range(i[0].ndim))[::-1])),
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": lambda i, a: torch.cat(list(i), int(a["axis"])),
    "Split": _split,
    "Slice": _slice,
    "Pad": _pad,
    "Gather": _gather,
    "Shape": _shape,
    "Size": lambda i, _: torch.tensor(i[0].numel()),
    "Constant": _constant,
    "ConstantOfShape": _filled,
    "Expand": _expand,
    "Tile": lambda i, _: i[0].repeat(ints(i[1])),
    "Range": lambda i, _: torch.arange(i[0].item(), i[1].item(), i[2].item()),
    "Cast": _cast,
    "CastLike": lambda i, _: i[0].to(i[1].dtype),
    "Identity": lambda i, _: i[0],
    "Dropout": lambda i, _: i[0],
    "Resize": resize,
    "Upsample": upsample,
    "DepthToSpace": depth_to_space,
    "Einsum": lambda i, a: torch.einsum(a["equation"], *i),
    "ReduceMean": partial(_reduced, function=torch.mean),
    "ReduceSum": partial(_reduced, function=torch.sum),
    "ReduceMax": partial(_reduced, function=torch.amax),
    "ReduceMin": partial(_reduced, function=torch.amin),
    "ReduceL2": partial(_reduced, function=torch.linalg.vector_norm),
    "ReduceLogSumExp": partial(_reduced, function=torch.logsumexp),
    "Softmax": _softmax,
    "LogSoftmax": partial(_softmax, logarithm=True),
    "Clip": _clip,
    "Div": _divided,
    "Pow": lambda i, _: i[0].pow(i[1]),
    "Min": partial(_folded, function=torch.minimum),
    "Max": partial(_folded, function=torch.maximum),
    "Sum": partial(_folded, function=torch.add),
    "Gelu": lambda i, a: functional.gelu(i[0], approximate=a.get("approximate", "none")),
    "LeakyRelu": lambda i, a: functional.leaky_relu(i[0], a.get("alpha", 0.01)),
    "Elu": lambda i, a: functional.elu(i[0], a.get("alpha", 1.0)),
    "Celu": lambda i, a: functional.celu(i[0], a.get("alpha", 1.0)),
    "HardSigmoid": lambda i, a: (a.get("alpha", 0.2) * i[0] + a.get("beta", 0.5)).clamp(0, 1),
    "PRelu": lambda i, _: torch.where(i[0] < 0, i[0] * i[1], i[0]),
    "Where": lambda i, _: torch.where(i[0], i[1], i[2]),
    **{name: _one(function) for name, function in _FUNCTIONS.items()},
}
"""Operators of ONNX by name."""

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
"""Those of them that are convolutions."""
