"""Bring an ONNX graph into the form that networks have here: eval mode, channels first, logits at the end.

Both onnxruntime and the conversion to PyTorch get what comes out of this, so that they can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import onnx

from napari_xai_med.errors import ModelError
from napari_xai_med.models.formats.facts import Output
from napari_xai_med.models.graphs.cut import Maker, Shape, find_cut

_ENDINGS = {"Softmax": "softmax", "LogSoftmax": "softmax", "Sigmoid": "sigmoid"}
_SHAPING = frozenset({"Identity", "Dropout", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Transpose"})
_FLOATS = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16})

_MOST_CHANNELS = 4
"""Of an image whose axes say by their lengths which of them is that of the channels."""

_CHANNELS_FIRST = frozenset({"Conv", "BatchNormalization", "MaxPool", "AveragePool", "InstanceNormalization"})
"""Operators that always have channels first."""


def prepare(model: Any, path: Path) -> list[Output]:
    """Bring a graph with one image into form, in place.

    Returns
    -------
    list of Output
        Under the names in the file; the graph itself now ends before their endings.

    Raises
    ------
    ModelError
        If it was exported in training mode and depends on that.
    """
    set_eval_mode(model, path)
    names = [value.name for value in model.graph.output]
    if channels_are_last(model):
        _move_channels_first(model)
    numbers = [_lengths_or_none(value) for value in model.graph.output]
    endings = cut_endings(model)
    pairs = zip(names, numbers, endings, strict=True)
    return [Output(name, n[1] if n and len(n) > 1 else None, ending) for name, n, ending in pairs]


def images_of(model: Any) -> list[Any]:
    """Inputs that are no weights: older files list both."""
    weights = {item.name for item in model.graph.initializer}
    return [item for item in model.graph.input if item.name not in weights]


def opset_of(model: Any) -> int:
    """Version of ONNX's own operators."""
    return max((int(item.version) for item in model.opset_import if item.domain in ("", "ai.onnx")), default=1)


def in_half_precision(model: Any) -> bool:
    """Whether a graph computes with half precision, all the way or but for its ends."""
    types = {value.type.tensor_type.elem_type for value in model.graph.input}
    return onnx.TensorProto.FLOAT16 in types | {item.data_type for item in model.graph.initializer}


def lengths(value: Any) -> list[int | None]:
    """The lengths of a value's axes; None for those that the file leaves open."""
    dims = value.type.tensor_type.shape.dim
    return [n.dim_value if n.HasField("dim_value") and n.dim_value > 0 else None for n in dims]


def _lengths_or_none(value: Any) -> list[int | None] | None:
    return lengths(value) if value.type.tensor_type.HasField("shape") else None


def graphs_of(graph: Any) -> Iterator[Any]:
    """A graph with all graphs in its operators' arguments."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.initializer:
                    yield from graphs_of(inner)


def set_eval_mode(model: Any, path: Path) -> None:
    """Make a graph that was exported in training mode answer as in eval mode, as all other networks do here."""
    graphs = list(graphs_of(model.graph))
    used = {name for graph in graphs for node in graph.node for name in node.input}
    used |= {value.name for graph in graphs for value in graph.output}
    for node in (node for graph in graphs for node in graph.node):
        if node.op_type == "Dropout":
            # The third input says whether to drop.
            del node.input[2:]
        if node.op_type != "BatchNormalization":
            continue
        if used.intersection(node.output[1:]):
            raise ModelError(
                f"{path} was exported in training mode and gives the statistics of {node.name or 'a normalisation'}; "
                "export the network again after network.eval()."
            )
        # In training mode there are several outputs, the statistics.
        del node.output[1:]
        kept = [item for item in node.attribute if item.name != "training_mode"]
        del node.attribute[:]
        node.attribute.extend(kept)


def channels_are_last(model: Any) -> bool:
    """Whether the image has its channels last, as TensorFlow has.

    What takes the image tells, or else the lengths of its axes: a last one of 1 to 4 behind longer ones.
    """
    (image,) = images_of(model)
    sizes = lengths(image)
    takers = [node for node in model.graph.node if image.name in node.input]
    if any(node.op_type in _CHANNELS_FIRST for node in takers):
        return False
    if takers and all(_order(node) == _to_first(len(sizes)) for node in takers):
        return True
    last = sizes[-1]
    return last is not None and last <= _MOST_CHANNELS and all(n is None or n > _MOST_CHANNELS for n in sizes[1:-1])


def _order(node: Any) -> list[int]:
    return next((list(a.ints) for a in node.attribute if node.op_type == "Transpose" and a.name == "perm"), [])


def _to_first(rank: int) -> list[int]:
    return [0, rank - 1, *range(1, rank - 1)]


def _move_channels_first(model: Any) -> None:
    graph = model.graph
    (image,) = images_of(model)
    rank = len(lengths(image))
    inside, image.name = image.name, f"{image.name} channels first"
    to_last = [0, *range(2, rank), 1]
    graph.node.insert(0, onnx.helper.make_node("Transpose", [image.name], [inside], perm=to_last))
    _permute(image, _to_first(rank))
    for output in graph.output:
        if len(lengths(output)) == rank:
            inside, output.name = output.name, f"{output.name} channels first"
            graph.node.append(onnx.helper.make_node("Transpose", [inside], [output.name], perm=_to_first(rank)))
            _permute(output, _to_first(rank))


def _permute(value: Any, order: list[int]) -> None:
    dims = value.type.tensor_type.shape.dim
    moved = [deepcopy(dims[k]) for k in order]
    del dims[:]
    dims.extend(moved)


def cut_endings(model: Any) -> list[str]:
    """Make every output end before its softmax or sigmoid, in place; what each ended in."""
    graph = model.graph
    shaped = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {value.name: _lengths_or_none(value) for value in (*shaped.input, *shaped.value_info, *shaped.output)}
    made_by = {name: k for k, node in enumerate(graph.node) for name in node.output[:1]}
    opset = opset_of(model)

    def maker(value: str) -> Maker | None:
        return _maker(graph.node[made_by[value]], made_by[value], shapes, opset) if value in made_by else None

    cuts = [find_cut(output.name, maker, shapes.get) for output in graph.output]
    for number, (output, cut) in enumerate(zip(graph.output, cuts, strict=True)):
        value = cut.before
        for k in cut.chain:
            node = deepcopy(graph.node[k])
            node.input[0] = value
            value = f"{node.output[0]} before the ending of {number}"
            # onnxruntime takes no two nodes of one name.
            node.name, node.output[:] = value, [value]
            graph.node.append(node)
        output.name = value
    return [cut.ending for cut in cuts]


def _maker(node: Any, number: int, shapes: dict[str, Any], opset: int) -> Maker | None:
    """What an operator is to the ending of a network; None for one that changes more than the shape."""
    source = node.input[0] if node.input else ""
    attributes = {item.name: item for item in node.attribute}
    if node.op_type == "Sigmoid":
        return Maker(number, source, "sigmoid")
    if node.op_type in _ENDINGS:
        old = opset < 13
        axis = int(attributes["axis"].i) if "axis" in attributes else (1 if old else -1)
        found = _only_axis(axis, shapes.get(source)) if old else axis
        return None if found is None else Maker(number, source, _ENDINGS[node.op_type], found)
    if node.op_type == "Cast" and attributes["to"].i in _FLOATS:
        return Maker(number, source)
    if node.op_type not in _SHAPING:
        return None
    order = _order(node)
    return None if node.op_type == "Transpose" and not order else Maker(number, source, order=tuple(order))


def _only_axis(axis: int, shape: Shape | None) -> int | None:
    """The axis of a softmax before opset 13, which was over all axes from one on; None if they are several."""
    if shape is None:
        return axis
    long = [k for k in range(axis % len(shape), len(shape)) if shape[k] != 1]
    return None if len(long) > 1 else (long or [axis])[0]
