"""Read the graph of a torch.export program into steps.

The graph is JSON: operators by name with their arguments. Names are looked up in a list of operators that
compute and do nothing else; nothing in the file is evaluated, imported or unpickled.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from napari_xai_med.errors import ModelError, UntrustedError
from napari_xai_med.models.graphs.program import LARGEST_TENSOR, Step


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


_OPERATORS = words(
    """
    _adaptive_avg_pool2d _adaptive_avg_pool3d _log_softmax _native_batch_norm_legit_no_training _softmax _to_copy
    _unsafe_view abs adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d
    adaptive_max_pool2d adaptive_max_pool3d add addmm alias alpha_dropout amax amin any all arange argmax argmin
    avg_pool1d avg_pool2d avg_pool3d baddbmm batch_norm bitwise_and bitwise_not bitwise_or bmm broadcast_tensors cat
    ceil celu channel_shuffle chunk clamp clamp_max clamp_min clone concat concatenate constant_pad_nd contiguous
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution copy cos cumsum detach
    detach_ div dropout einsum elu empty_like eq erf exp expand expand_as expm1 feature_alpha_dropout feature_dropout
    fill flatten flip floor floor_divide full full_like gather ge gelu glu group_norm gt hardshrink hardsigmoid
    hardswish hardtanh index index_select instance_norm layer_norm le leaky_relu lift_fresh_copy linalg_vector_norm
    linear linspace log log1p log2 log_sigmoid log_softmax logical_and logical_not logical_or logsumexp lt
    masked_fill matmul max max_pool1d max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d
    max_pool3d_with_indices maximum mean min minimum mish mm movedim mul narrow native_dropout native_group_norm
    native_layer_norm ne neg new_ones new_zeros nonzero norm ones ones_like pad permute pixel_shuffle pixel_unshuffle
    pow prelu prod reciprocal reflection_pad1d reflection_pad2d reflection_pad3d relu relu6 remainder repeat
    repeat_interleave replication_pad1d replication_pad2d replication_pad3d reshape rms_norm roll round rrelu rsqrt
    rsub scalar_tensor scaled_dot_product_attention select selu sigmoid sign silu sin slice softmax softplus
    softshrink softsign split split_with_sizes sqrt square squeeze stack std sub sum swapaxes t tan tanh tensor_split
    threshold tile to topk transpose tril triu type_as unbind unflatten unfold unsqueeze upsample_bicubic2d
    upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d
    upsample_trilinear3d _upsample_nearest_exact2d _upsample_nearest_exact3d _upsample_bilinear2d_aa
    _upsample_bicubic2d_aa var var_mean view view_as where zeros zeros_like im2col col2im sym_size sym_numel
    """
)
"""Operators of PyTorch that stay within the tensors they are given; also with "_" behind, in place."""

_CHECKS = re.compile(r"torch\.ops\.aten\.(_assert_\w+|sym_constrain_range\w*|_check\w*)\.\w+|torch\._check\w*")
"""Statements about sizes, which the operators check themselves."""

_NUMBERS: dict[str, Callable[..., Any]] = {
    **{
        f"_operator.{name}": getattr(operator, name)
        for name in words("add sub mul floordiv truediv mod neg eq ne lt le gt ge and_ or_")
    },
    **{f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "trunc")},
    "torch.sym_max": max,
    "torch.sym_min": min,
    "torch.sym_not": operator.not_,
    "torch.sym_float": float,
    "torch.sym_int": int,
    "torch.sym_sum": lambda values: sum(values),
}
"""Functions of the sizes of tensors."""

DTYPES: dict[int, torch.dtype] = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
"""Types of numbers by their code in the file."""

_MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}

_CONVOLUTIONS = words("conv1d conv2d conv3d convolution conv_transpose1d conv_transpose2d conv_transpose3d")

_FACTORIES = words("arange full linspace ones scalar_tensor zeros")
"""Operators that take no tensor. Of others, what takes none works on Python's numbers, lists and words."""

_KINDS = {
    "ScalarType": "as_scalar_type",
    "MemoryFormat": "as_memory_format",
    "Layout": "as_layout",
    "Device": "as_device",
}
"""Types of arguments that PyTorch takes as a number as well, without looking whether there is such a thing."""

_WINDOWS = words("kernel_size stride padding output_padding dilation")
_LARGEST_WINDOW = 2**20
"""Voxels; with far more, some of PyTorch's loops do not end, or leave the tensors."""


def _normalised(
    x: Tensor, weight: Any, bias: Any, mean: Tensor, variance: Tensor, momentum: float, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """What the operator of this name computes, which itself does not look at the lengths it is given."""
    empty = x.new_empty(0)
    return functional.batch_norm(x, mean, variance, weight, bias, False, momentum, epsilon), empty, empty


_INSTEAD: dict[str, Callable[..., Any]] = {"_native_batch_norm_legit_no_training": _normalised}
"""What is run in place of operators that bring the program down when their arguments do not fit."""

_Argument = Callable[[Mapping[str, Any]], Any]

_DEVICE = " device"
"""Name of the value that says where the image is; no name in a file begins with a space."""


def steps_of_graph(nodes: Sequence[Mapping[str, Any]], input_name: str) -> list[Step]:
    """The steps of a graph.

    Raises
    ------
    UntrustedError
        If an operator is not known to be harmless.
    """
    steps = [Step(lambda values: (values[input_name].device,), (input_name,), (_DEVICE,))]
    inside: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    for node in nodes:
        if _CHECKS.fullmatch(str(node["target"])):
            continue
        stack = str(node["metadata"].get("nn_module_stack", ""))
        # Operators on sizes belong to no module; they do not end the module that they stand in.
        if stack.startswith("L__self__"):
            inside, kinds = _calls(stack)
        steps.append(_step(node, inside, kinds))
    return steps


def _calls(stack: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Calls of modules, and their classes, in a text of entries ``key,path,class``."""
    inside, kinds = [], []
    for entry in stack.split(";"):
        key, path, *kind = entry.split(",")
        call = key.rpartition("@")[2] if "@" in key else ""
        path = path.partition("@")[0]
        if path and re.fullmatch(r"[\w.]+", path) and ".." not in f".{path}.":
            inside.append(f"{path}@{call}" if call else path)
            kinds.append(kind[0].rpartition(".")[2] if kind else "Module")
    return tuple(inside), tuple(kinds)


def _step(node: Mapping[str, Any], inside: tuple[str, ...], kinds: tuple[str, ...]) -> Step:
    target = str(node["target"])
    writes, many = _written(node["outputs"])
    reads: list[str] = [_DEVICE]
    named = {item["name"]: _argument(item["arg"], reads) for item in node["inputs"]}
    plain = [_argument(item["arg"], []) for item in node["inputs"]]
    if target in _NUMBERS:
        function = _NUMBERS[target]
        return Step(lambda values: (_small(function(*(a(values) for a in plain))),), tuple(reads), writes)
    found = _found(target)
    name = found._schema.name.rpartition("::")[2]
    _check_kinds(found, node["inputs"])
    named |= {key: _within(named[key]) for key in _WINDOWS & named.keys()}
    run = _INSTEAD.get(name, found)
    _in_eval_mode(name.rstrip("_"), node["inputs"], named)
    arguments = _in_order(found, named)
    positional = [a for a, keyword in arguments if not keyword]
    keywords = {keyword: a for a, keyword in arguments if keyword}

    def compute(values: Mapping[str, Any]) -> Sequence[Any]:
        inputs = [a(values) for a in positional]
        result = run(*inputs, **{keyword: a(values) for keyword, a in keywords.items()})
        return tuple(result) if many else (result,)

    changes = reads[1] if name.endswith("_") and len(reads) > 1 else ""
    return Step(compute, tuple(reads), writes, inside, kinds, name in _CONVOLUTIONS, changes)


def _small(value: Any) -> Any:
    if abs(value) > 2**62:
        raise ValueError("a size in it is too large")
    return value


def is_harmless(name: str) -> bool:
    """Whether an operator of PyTorch computes and does nothing else."""
    return name in _OPERATORS or name.removesuffix("_") in _OPERATORS


def _found(target: str) -> Any:
    """The operator of a name such as ``torch.ops.aten.relu.default``."""
    match = re.fullmatch(r"torch\.ops\.aten\.(\w+)\.(\w+)", target)
    if match is None or not is_harmless(match[1]):
        raise UntrustedError(
            f"The network uses the operator {target[:80]!r}, which is not known to be harmless; "
            "store its weights as a state dict instead."
        )
    packet = getattr(torch.ops.aten, match[1], None)
    if packet is None or match[2] not in packet.overloads():
        raise ModelError(f"The network uses {target[:80]!r}, which this version of PyTorch has not; update PyTorch.")
    found = getattr(packet, match[2])
    takes_tensors = any("Tensor" in str(item.real_type) for item in found._schema.arguments)
    if match[2].startswith("prim") or not (takes_tensors or match[1] in _FACTORIES):
        raise UntrustedError(
            f"The network uses {target[:80]!r}, which does not work on tensors; "
            "store its weights as a state dict instead."
        )
    return found


def _check_kinds(found: Any, inputs: Sequence[Mapping[str, Any]]) -> None:
    types = {item.name: str(item.real_type) for item in found._schema.arguments}
    for item in inputs:
        wanted = next((kind for name, kind in _KINDS.items() if name in types.get(item["name"], "")), None)
        if wanted is not None and set(item["arg"]) - {wanted, "as_none"}:
            raise ModelError(f"The network gives {found} a wrong {item['name']}; export it again.")


def _within(argument: _Argument) -> _Argument:
    """The same argument, but never of a size that no window of an image has."""

    def checked(values: Mapping[str, Any]) -> Any:
        value = argument(values)
        for n in value if isinstance(value, list) else [value]:
            if isinstance(n, int) and abs(n) > _LARGEST_WINDOW:
                raise ValueError(f"a window of {n} voxels is too large")
        return value

    return checked


def _in_eval_mode(name: str, inputs: Sequence[Mapping[str, Any]], named: dict[str, _Argument]) -> None:
    """Networks exported in training mode answer as in eval mode here, as all others do."""
    flag = {"batch_norm": "training", "native_dropout": "train", "rrelu": "training"}.get(name)
    flag = "train" if "dropout" in name else flag
    if any(item["name"] == "running_mean" and "as_none" in item["arg"] for item in inputs):
        # Without statistics it always uses those of the image.
        flag = None
    if flag in named:
        named[flag] = _always(False)


def _in_order(found: Any, named: Mapping[str, _Argument]) -> list[tuple[_Argument, str]]:
    """Arguments in the operator's order, each with its keyword or nothing; defaults fill the gaps."""
    if unknown := set(named) - {item.name for item in found._schema.arguments}:
        raise ModelError(f"{found} takes no {sorted(unknown)[0]}; export the network again with this PyTorch.")
    given = [k for k, item in enumerate(found._schema.arguments) if item.name in named]
    arguments: list[tuple[_Argument, str]] = []
    for item in found._schema.arguments[: max(given, default=-1) + 1]:
        if item.name in named:
            arguments.append((named[item.name], item.name if item.kwarg_only else ""))
        elif not item.kwarg_only:
            arguments.append((_always(item.default_value), ""))
    return arguments


def _written(outputs: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], bool]:
    """Names of an operator's results, and whether they come as a sequence."""
    names: list[str] = []
    listed = len(outputs) > 1
    for output in outputs:
        ((kind, value),) = output.items()
        if kind == "as_tensors":
            listed = True
            names.extend(item["name"] for item in value)
        elif kind == "as_tensor":
            names.append(value["name"])
        elif kind in ("as_sym_int", "as_sym_bool", "as_sym_float"):
            names.append(value["as_name"])
        elif kind == "as_none":
            names.append(f" none {len(names)}")
        else:
            raise ModelError(f"The network has a result of the kind {kind}, which is not supported.")
    return tuple(names), listed


def _argument(argument: Mapping[str, Any], reads: list[str]) -> _Argument:
    """What gives an argument from all values; the names it needs are added to `reads`."""
    ((kind, value),) = argument.items()
    if kind in ("as_tensor", "as_optional_tensor", "as_sym_int", "as_sym_bool", "as_sym_float"):
        return _value(value, reads)
    if kind in ("as_tensors", "as_optional_tensors", "as_sym_ints", "as_sym_bools", "as_sym_floats"):
        parts = [_value(item, reads) for item in value]
        return lambda values: [part(values) for part in parts]
    if kind == "as_device":
        return lambda values: values[_DEVICE]
    return _always(_constant(kind, value))


def _always(value: Any) -> _Argument:
    return lambda _: value


def _value(item: Mapping[str, Any], reads: list[str]) -> _Argument:
    """A value by name, a number, or nothing."""
    if set(item) == {"as_tensor"}:
        item = item["as_tensor"]
    name = item.get("name", item.get("as_name"))
    if name is None:
        number = next((item[key] for key in ("as_int", "as_bool", "as_float") if key in item), None)
        return _always(number)
    reads.append(str(name))
    return lambda values: values[name]


def _constant(kind: str, value: Any) -> Any:
    if kind == "as_none":
        return None
    if kind in ("as_int", "as_bool", "as_string", "as_ints", "as_bools"):
        if kind == "as_ints" and math.prod(n for n in value if n > 0) > LARGEST_TENSOR:
            raise ModelError("The network asks for a tensor that is too large for any image; export it again.")
        return value
    if kind in ("as_float", "as_floats"):
        # Infinity is written as a word.
        return [float(item) for item in value] if kind == "as_floats" else float(value)
    if kind == "as_scalar_type" and value in DTYPES:
        return DTYPES[value]
    if kind == "as_memory_format" and value in _MEMORY_FORMATS:
        return _MEMORY_FORMATS[value]
    if kind == "as_layout" and value == 7:
        return torch.strided
    raise UntrustedError(
        f"The network has an argument of the kind {kind!r}, which is not known to be harmless; "
        "store its weights as a state dict instead."
    )
