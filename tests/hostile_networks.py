"""Networks in formats of their own that are hostile or broken; see hostile_files.py."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from hostile_files import MODELS, SHAPE, broken, good, untrusted, with_file
from safetensors.torch import save_file
from torch import Tensor, nn

from napari_xai_med.models.small_cnn import SmallCNN

__all__ = ["MODELS"]


# TorchScript


class Script(nn.Module):
    """A network that can be scripted, whose code is then changed."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x.mean() * self.weight)[None]


def _script(folder: Path, old: str, new: str) -> Path:
    """A TorchScript file, with another code in the place of some of its own."""
    bundle = good(folder, weights="model.ts")
    whole, path = folder / "script.ts", bundle / "models" / "model.ts"
    torch.jit.script(Script()).save(str(whole))
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename.endswith(".py"):
                assert old.encode() in content
                content = content.replace(old.encode(), new.encode())
            target.writestr(entry.filename, content)
    return bundle


_CALL = "torch.relu("


@untrusted("'torch.save'")
def script_that_writes(folder: Path) -> Path:
    return _script(folder, "    return", f'    torch.save(x, "{folder / "canary"}")\n    return')


@untrusted("'save'")
def script_that_writes_as_a_method(folder: Path) -> Path:
    return _script(folder, "    return", f'    (x).save("{folder / "canary"}")\n    return')


@untrusted("'save'")
def script_that_writes_by_getattr(folder: Path) -> Path:
    return _script(folder, "    return", f'    getattr(x, "save")("{folder / "canary"}")\n    return')


@untrusted("'torch.save'")
def script_that_writes_under_another_name(folder: Path) -> Path:
    return _script(folder, "    return", f'    f = torch.save\n    f(x, "{folder / "canary"}")\n    return')


@untrusted("'torch.save'")
def script_that_writes_while_it_is_loaded(folder: Path) -> Path:
    return _script(folder, "x: Tensor)", f'x: Tensor, y: NoneType=torch.save(1, "{folder / "canary"}"))')


@untrusted("'torch.from_file'")
def script_that_reads(folder: Path) -> Path:
    return _script(folder, _CALL, 'torch.relu(torch.from_file("/etc/hostname", False, 1) * ')


@untrusted("'ops.rpc.run'")
def script_with_a_foreign_operator(folder: Path) -> Path:
    return _script(folder, _CALL, "ops.rpc.run(")


@untrusted("'while'")
def script_that_never_ends(folder: Path) -> Path:
    return _script(folder, "    return", "    while True:\n      pass\n    return")


@untrusted("'range(1000000000000000)'")
def script_that_hardly_ends(folder: Path) -> Path:
    return _script(folder, "    return", f"    for i in range({10**15}):\n      pass\n    return")


@untrusted("'range(10000)'")
def script_of_loops_in_loops(folder: Path) -> Path:
    loops = "    for i in range(10000):\n      for j in range(10000):\n        pass\n"
    return _script(folder, "    return", f"{loops}    return")


@untrusted("'__torch__.torch.classes.profiling._ScriptProfile'")
def script_with_a_class_of_c(folder: Path) -> Path:
    return _script(folder, "    return", "    __torch__.torch.classes.profiling._ScriptProfile().enable()\n    return")


@broken("PyTorch did not write")
def script_that_python_reads_otherwise(folder: Path) -> Path:
    return _script(folder, "    return", "    # comment\r    return")


@broken("numbers at once")
def script_of_sixteen_gigabytes(folder: Path) -> Path:
    return _script(folder, _CALL, "torch.relu(torch.sum(torch.arange(2000000000)) * ")


@broken("is not a TorchScript file")
def truncated_script(folder: Path) -> Path:
    path = _script(folder, _CALL, _CALL) / "models" / "model.ts"
    path.write_bytes(path.read_bytes()[:-200])
    return path.parent.parent


@broken("is not a TorchScript file")
def text_named_ts(folder: Path) -> Path:
    return with_file(folder, "model.ts", b"def forward(x): return x")


@broken("larger than what is stored")
def script_with_a_weight_that_is_not_there(folder: Path) -> Path:
    """PyTorch would read the memory behind it, or none that there is."""
    bundle = _script(folder, _CALL, _CALL)
    path, whole = bundle / "models" / "model.ts", folder / "script.ts"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename.endswith("/data.pkl"):
                # The weight's length 2, behind the offset 0, becomes 2**30.
                assert content.count(b"K\x00(K\x02") == 1
                content = content.replace(b"K\x00(K\x02", b"K\x00(J\x00\x00\x00\x40")
            target.writestr(entry.filename, content)
    return bundle


# safetensors


@broken("is not a safetensors file")
def safetensors_with_a_huge_header(folder: Path) -> Path:
    return with_file(folder, "model.safetensors", struct.pack("<Q", 2**31) + b"{}")


@broken("is not a safetensors file")
def safetensors_with_a_huge_tensor(folder: Path) -> Path:
    header = json.dumps({"x": {"dtype": "F32", "shape": [1 << 29], "data_offsets": [0, 1 << 31]}}).encode()
    return with_file(folder, "model.safetensors", struct.pack("<Q", len(header)) + header)


@broken("is not a safetensors file")
def truncated_safetensors(folder: Path) -> Path:
    path = good(folder, weights="model.safetensors") / "models" / "model.safetensors"
    save_file(SmallCNN(3, 1, 2).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-1000])
    return path.parent.parent


@broken("is not a safetensors file")
def empty_safetensors(folder: Path) -> Path:
    return with_file(folder, "model.safetensors", b"")


# Programs and graphs


class Range(nn.Module):
    """Asks for a tensor of sixteen gigabytes on the way."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x.mean(), torch.arange(2_000_000_000).sum() * x.mean()])[None]


@broken("numbers at once")
def program_of_sixteen_gigabytes(folder: Path) -> Path:
    bundle = good(folder, weights="model.pt2")
    torch.export.save(torch.export.export(Range(), (torch.rand(1, 1, *SHAPE),)), bundle / "models" / "model.pt2")
    return bundle


@broken("is not a program of torch.export")
def text_named_pt2(folder: Path) -> Path:
    return with_file(folder, "model.pt2", b"program")


@broken("numbers at once")
def graph_whose_sizes_are_computed(folder: Path) -> Path:
    """2 to the power of 32 zeros: inferring shapes does not find out how many."""
    onnx = pytest.importorskip("onnx", reason="ONNX files are made with it")
    make, kinds = onnx.helper, onnx.TensorProto
    image = make.make_tensor_value_info("x", kinds.FLOAT, [1, 1, *SHAPE])
    answer = make.make_tensor_value_info("y", kinds.FLOAT, [1, 1, *SHAPE])
    nodes = [
        make.make_node("Pow", ["two", "n"], ["p"]),
        make.make_node("Cast", ["p"], ["size"], to=kinds.INT64),
        make.make_node("ConstantOfShape", ["size"], ["zeros"]),
        make.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
        make.make_node("Add", ["x", "sum"], ["y"]),
    ]
    numbers = [make.make_tensor(name, kinds.FLOAT, [1], [value]) for name, value in (("two", 2.0), ("n", 32.0))]
    graph = make.make_graph(nodes, "g", [image], [answer], numbers)
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    return with_file(folder, "model.onnx", model.SerializeToString())


@broken("is not an ONNX file")
def text_named_onnx(folder: Path) -> Path:
    pytest.importorskip("onnx", reason="ONNX files are read with it")
    return with_file(folder, "model.onnx", b"graph")


# Keras


def _keras(folder: Path, name: str) -> Path:
    # It skips the test where Keras is not installed.
    from keras_networks import saved, small

    return saved(small(), good(folder, weights=name) / "models" / name)


@broken("is a Lambda, which holds code")
def keras_with_a_lambda(folder: Path) -> Path:
    path = _keras(folder, "model.keras")
    from keras_networks import config_of

    with config_of(path) as config:
        layer = {"class_name": "Lambda", "module": "keras.layers", "config": {"name": "evil", "function": "x"}}
        config["config"]["layers"].insert(2, layer)
    return path.parent.parent


@broken("is not a Keras file")
def truncated_h5(folder: Path) -> Path:
    path = _keras(folder, "model.h5")
    path.write_bytes(path.read_bytes()[:3000])
    return path.parent.parent


@broken("is not a Keras file")
def text_named_keras(folder: Path) -> Path:
    return with_file(folder, "model.keras", b"{}")
