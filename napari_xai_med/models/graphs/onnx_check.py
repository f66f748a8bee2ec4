"""Read an ONNX file so that it can neither run code, nor reach other files, nor fill the memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

import onnx

from napari_xai_med.errors import ModelError, UntrustedError
from napari_xai_med.models.graphs.onnx_prepare import graphs_of
from napari_xai_med.models.graphs.program import LARGEST_TENSOR

LARGEST_FILE = 2**31 - 1
"""Bytes that protobuf, in which ONNX files are written, can hold."""

_LOOPS = frozenset({"Loop", "Scan", "SequenceMap"})

_OWN_DOMAINS = ("", "ai.onnx")


def read_onnx(path: Path) -> Any:
    """The content of an ONNX file, with weights that lie in other files of its folder.

    Raises
    ------
    ModelError
        If the file is damaged, or made for a newer ONNX.
    UntrustedError
        If it asks for foreign operators or for files outside its folder.
    """
    damaged = f"{path} is not an ONNX file, or is damaged; export it again."
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ModelError(f"{path} is larger than ONNX files can be; export it with its weights in a file beside.")
        model = onnx.load_model_from_string(path.read_bytes())
    except ModelError:
        raise
    except Exception as error:  # protobuf's errors have changed their classes over time
        raise ModelError(damaged) from error
    if not model.ir_version or not model.opset_import or not model.graph.node:
        raise ModelError(damaged)
    _check_versions(model, path)
    _check_operators(model, path)
    _take_in(model, path)
    _check_sizes(model, path)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise ModelError(damaged) from error
    # Some of them are settings of onnxruntime, which are none of the file's business.
    del model.metadata_props[:]
    return model


def weight_files(path: Path) -> list[Path]:
    """Files that hold weights of a checked ONNX file."""
    model = onnx.load_model_from_string(path.read_bytes())
    outside = (item for item in _tensors(model) if item.data_location == onnx.TensorProto.EXTERNAL)
    names = {entry.value for item in outside for entry in item.external_data if entry.key == "location"}
    return [path.parent / name for name in sorted(names)]


def _check_versions(model: Any, path: Path) -> None:
    known = onnx.defs.onnx_opset_version()
    newest = max((item.version for item in model.opset_import if item.domain in _OWN_DOMAINS), default=0)
    if newest > known or model.ir_version > onnx.IR_VERSION:
        raise ModelError(
            f"{path} was written for a newer ONNX (opset {newest}) than this one knows (opset {known}); "
            "update onnx and onnxruntime, or export it with an older opset."
        )


def _check_operators(model: Any, path: Path) -> None:
    if model.functions:
        raise UntrustedError(f"{path} was refused because it defines functions; inline them with onnx.inliner.")
    for graph in graphs_of(model.graph):
        for node in graph.node:
            if node.domain not in _OWN_DOMAINS:
                raise UntrustedError(
                    f"{path} was refused because its operator {node.op_type[:80]!r} is of {node.domain[:80]!r}; "
                    "only ONNX's own operators are allowed."
                )
            if node.op_type in _LOOPS:
                raise UntrustedError(f"{path} was refused because it has a loop, which may never end; unroll it.")


def _tensors(model: Any) -> Iterator[Any]:
    for graph in graphs_of(model.graph):
        yield from graph.initializer
        sparse = list(graph.sparse_initializer)
        for node in graph.node:
            for attribute in node.attribute:
                yield from (item for item in (attribute.t, *attribute.tensors) if item.data_type)
                sparse += [attribute.sparse_tensor, *attribute.sparse_tensors]
        for item in sparse:
            if item.dims:
                raise ModelError("Sparse tensors in ONNX files are not supported; export the network without.")


def _take_in(model: Any, path: Path) -> None:
    """Put weights from files beside the network's file into it."""
    folder = path.parent.resolve()
    total = 0
    sizes: dict[Path, int] = {}
    for tensor in _tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        stated = {entry.key: entry.value for entry in tensor.external_data}
        location = stated.get("location", "")
        file = folder / location
        lost = not location or PureWindowsPath(location).is_absolute() or "\\" in location or ":" in location
        if lost or file.is_symlink() or not file.resolve().is_relative_to(folder):
            raise UntrustedError(f"{path} was refused because its weights {location[:80]!r} lie outside its folder.")
        if not file.is_file():
            raise ModelError(f"{path} needs the file {location[:80]!r} beside it, which is not there; copy it there.")
        sizes[file] = file.stat().st_size
        start, length = _range(stated, sizes[file], path)
        total += length
        # A file that is asked for again and again would fill the memory.
        if total > min(sum(sizes.values()), LARGEST_FILE):
            raise ModelError(
                f"The weights of {path} are larger than ONNX files can be here; store them as safetensors."
            )
        with file.open("rb") as stream:
            stream.seek(start)
            tensor.raw_data = stream.read(length)
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _range(stated: dict[str, str], size: int, path: Path) -> tuple[int, int]:
    try:
        start = int(stated.get("offset", 0))
        length = int(stated.get("length", size - start))
    except ValueError:
        start, length = -1, -1
    if start < 0 or length < 0 or start + length > size:
        raise ModelError(f"{path} asks for weights that its file does not hold; export it again.")
    return start, length


def _check_sizes(model: Any, path: Path) -> None:
    """Tensors must be as large as their numbers, and those on the way not larger than any network needs."""
    for tensor in _tensors(model):
        # Outside raw data, every number takes a byte at least.
        if tensor.data_type not in onnx.TensorProto.DataType.values():
            raise ModelError(f"{path} has a weight of a type that this ONNX does not know; export it again.")
        bits = _bits(tensor.data_type) if tensor.raw_data else 8
        stored = len(tensor.raw_data) or tensor.ByteSize()
        if any(n < 0 for n in tensor.dims) or math.prod(tensor.dims) * bits > 8 * stored:
            raise ModelError(f"{path} claims a weight that is larger than what is stored of it; export it again.")
    try:
        shaped = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path} is not an ONNX file whose shapes fit together; export it again.") from error
    for value in (*shaped.graph.input, *shaped.graph.value_info, *shaped.graph.output):
        if math.prod(max(n.dim_value, 1) for n in value.type.tensor_type.shape.dim) > LARGEST_TENSOR:
            raise ModelError(f"{path} asks for a tensor that is too large for any image; export it again.")


def _bits(kind: int) -> int:
    """Bits that a number of a type takes."""
    # What is smaller than a byte is packed, so that the type in numpy says too much.
    name = onnx.TensorProto.DataType.Name(kind)
    small = next((n for n in (2, 4) if name.endswith(("INT" + str(n), f"FLOAT{n}E2M1"))), None)
    return small or int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize) * 8
