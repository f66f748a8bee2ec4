"""An ONNX graph as a network of PyTorch, which has gradients and layers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from napari_xai_med.models.formats.facts import NetworkFacts, Output
from napari_xai_med.models.graphs.onnx_layers import Attributes, Unsupported
from napari_xai_med.models.graphs.onnx_ops import CONVOLUTIONS, OPERATORS
from napari_xai_med.models.graphs.program import Program, Step

_ENDINGS = {"Softmax": "softmax", "LogSoftmax": "softmax", "Sigmoid": "sigmoid"}

_WEIGHTS = {1: "weight", 2: "bias", 3: "mean", 4: "var"}


def cut_ending(model: Any) -> str:
    """Take a softmax or sigmoid off the end of a graph; "softmax", "sigmoid" or "linear" says what was there.

    Explanations are about logits: the gradient of a probability vanishes where the network is sure.
    """
    graph = model.graph
    if len(graph.output) != 1:
        return "linear"
    output = graph.output[0]
    makers = {name: node for node in graph.node for name in node.output}
    node = makers.get(output.name)
    while node is not None and node.op_type == "Identity":
        node = makers.get(node.input[0])
    if node is None or node.op_type not in _ENDINGS:
        return "linear"
    rank = len(output.type.tensor_type.shape.dim)
    axis = next((int(a.i) for a in node.attribute if a.name == "axis"), 1 if opset_of(model) < 13 else -1)
    # One along another axis than that of the classes is no ending.
    if node.op_type != "Sigmoid" and axis not in (1, 1 - rank):
        return "linear"
    output.name = node.input[0]
    return _ENDINGS[node.op_type]


def opset_of(model: Any) -> int:
    """Version of ONNX's own operators."""
    return max((int(item.version) for item in model.opset_import if item.domain in ("", "ai.onnx")), default=1)


def facts_of(model: Any, ending: str) -> tuple[NetworkFacts, int | None]:
    """What a graph says about its input and output, and the number of images it fixes."""
    (image,) = images_of(model)
    lengths = _lengths(image)
    outputs = []
    for value in model.graph.output:
        numbers = _lengths(value)
        outputs.append(Output(value.name, numbers[1] if len(numbers) > 1 else None, ending))
    batch, shape = (lengths[0] if lengths else None), tuple(lengths[1:])
    writer = f"{model.producer_name} {model.producer_version}".strip()
    return NetworkFacts(shape, tuple(outputs), writer), batch


def images_of(model: Any) -> list[Any]:
    """Inputs that are no weights: older files list both."""
    weights = {item.name for item in model.graph.initializer}
    return [item for item in model.graph.input if item.name not in weights]


def _lengths(value: Any) -> list[int | None]:
    """The lengths of a value's axes; None for those that the file leaves open."""
    dims = value.type.tensor_type.shape.dim
    return [n.dim_value if n.HasField("dim_value") and n.dim_value > 0 else None for n in dims]


def program_of(model: Any, facts: NetworkFacts, batch: int | None) -> Program:
    """The network that a graph describes.

    Raises
    ------
    Unsupported
        If it has an operator that is not known here.
    """
    (image,) = images_of(model)
    weights = {item.name: _tensor(item) for item in model.graph.initializer}
    state: dict[str, tuple[str, Tensor]] = {}
    steps: list[Step] = []
    for k, node in enumerate(model.graph.node):
        inside = _inside(node, k)
        steps.append(_step(node, inside, opset_of(model)))
        for position, name in enumerate(node.input):
            # Whole numbers are shapes and indices, which have to have values even where others have none.
            if name in weights and weights[name].is_floating_point() and weights[name].ndim and name not in state:
                path = ".".join(item.split("@")[0] for item in inside[-1:])
                weight = _WEIGHTS.get(position, f"input_{position}")
                state[name] = (f"{path}.{weight}" if path else weight, nn.Parameter(weights[name], requires_grad=False))
    constants = {name: value for name, value in weights.items() if name not in state} | {"": None}
    outputs = [item.name for item in model.graph.output]
    return Program(steps, image.name, outputs, state=state, constants=constants, batch=batch, facts=facts)


def _tensor(tensor: Any) -> Tensor:
    # Copied: numpy's array may share the file's memory, which can't be written.
    return torch.from_numpy(np.array(onnx.numpy_helper.to_array(tensor)))


def _step(node: Any, inside: tuple[str, ...], opset: int) -> Step:
    if node.op_type not in OPERATORS:
        raise Unsupported(node.op_type)
    compute = OPERATORS[node.op_type]
    attributes: Attributes = {item.name: _attribute(item) for item in node.attribute}
    attributes |= {"opset": opset, "outputs": len(node.output)}
    reads, writes = tuple(node.input), tuple(node.output)
    many = node.op_type == "Split"

    def run(values: Mapping[str, Any]) -> Sequence[Any]:
        result = compute([values[name] for name in reads], attributes)
        return tuple(result) if many else (result,)

    if len(writes) != 1 and not many:
        if any(writes[1:]) and node.op_type not in ("Dropout", "BatchNormalization"):
            raise Unsupported(f"several outputs of {node.op_type}")
        writes = writes[:1]
    kinds = tuple("Module" for _ in inside[:-1]) + (node.op_type,) * bool(inside)
    return Step(run, reads, writes, inside, kinds, node.op_type in CONVOLUTIONS)


def _attribute(attribute: Any) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return _tensor(value)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return list(value) if attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS) else value


def _inside(node: Any, number: int) -> tuple[str, ...]:
    """Modules that a node belongs to, from what exporters write beside it, else from its own name."""
    scopes = next((item.value for item in node.metadata_props if item.key == "pkg.torch.onnx.name_scopes"), "")
    if found := re.findall(r"'([^']*)'", scopes):
        # PyTorch: paths of modules, the outermost first, and at last the operator's own name.
        paths = [path for path in found[:-1] if path]
        return tuple(_called(path) for path in paths)
    names = _split(node.name)
    if len(names) > 1 and names[-1].startswith(node.op_type):
        # "/features/conv0/Conv": the last name is the operator.
        names.pop()
    elif not names or (len(names) == 1 and re.fullmatch(rf"{node.op_type}(_\d+)?", names[0])):
        names = [f"{node.op_type}_{number}"]
    return tuple(".".join(names[: k + 1]) for k in range(len(names)))


def _split(name: str) -> list[str]:
    """Names of modules in a node's name; "/layer1/layer1.0/Conv", as older exporters have it, says layer1 once."""
    raw = [item for item in name.split("/") if item]
    names: list[str] = []
    for before, item in zip(["", *raw], raw, strict=False):
        names.extend(item.removeprefix(f"{before}.").split("."))
    return [re.sub(r"\W", "_", item) for item in names if item]


def _called(path: str) -> str:
    return ".".join(re.sub(r"\W", "_", name) for name in path.split("@")[0].split(".") if name)
