"""Files that want to run code, fill the memory, lead elsewhere or are damaged, each made by one function.

A file that runs its code makes the file "canary" in the folder that it was made in. The registries say which
word the one sentence about each has to hold, and which exit code the command line ends with.
"""

from __future__ import annotations

import gzip
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from helpers import write_bundle
from safetensors.torch import save_file
from torch import Tensor, nn

from napari_xai_med.models.small_cnn import SmallCNN

SHAPE = (16, 16, 16)
NETWORK = {
    "_target_": "napari_xai_med.models.small_cnn.SmallCNN",
    "spatial_dims": 3,
    "in_channels": 1,
    "num_classes": 2,
}
SCALE = {"_target_": "ScaleIntensityd", "keys": "image"}


@dataclass(frozen=True)
class Hostile:
    """A maker, and what has to be said of its file."""

    make: Callable[[Path], Path]
    says: str
    code: int


MODELS: dict[str, Hostile] = {}
IMAGES: dict[str, Hostile] = {}
RECORDS: dict[str, Hostile] = {}

Make = Callable[[Path], Path]


def _in(registry: dict[str, Hostile], says: str, code: int) -> Callable[[Make], Make]:
    def register(make: Make) -> Make:
        registry[make.__name__] = Hostile(make, says, code)
        return make

    return register


def broken(says: str) -> Callable[[Make], Make]:
    """A classifier that can't be used."""
    return _in(MODELS, says, 3)


def untrusted(says: str) -> Callable[[Make], Make]:
    """A classifier that is refused because it could run code."""
    return _in(MODELS, says, 4)


def image(says: str) -> Callable[[Make], Make]:
    return _in(IMAGES, says, 2)


def record(says: str, code: int = 2) -> Callable[[Make], Make]:
    return _in(RECORDS, says, code)


def good(folder: Path, steps: Any = (SCALE,), weights: str = "model.pt", **changes: Any) -> Path:
    """A bundle that works, or would without its changes."""
    config = {"network_def": NETWORK, "preprocessing": {"_target_": "Compose", "transforms": list(steps)}, **changes}
    bundle = write_bundle(folder / "bundle", config, ["a", "b"], spatial_shape=list(SHAPE))
    if weights == "model.pt":
        torch.manual_seed(0)
        torch.save(SmallCNN(3, 1, 2).state_dict(), bundle / "models" / weights)
    return bundle


def touch(folder: Path) -> str:
    """An expression that makes the canary."""
    return f"__import__('pathlib').Path({str(folder / 'canary')!r}).touch()"


def with_file(folder: Path, name: str, content: bytes) -> Path:
    """A bundle whose network's file is this."""
    bundle = good(folder, weights=name)
    (bundle / "models" / name).write_bytes(content)
    return bundle


class Pickled:
    """Makes the canary when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.canary = folder / "canary"

    def __reduce__(self) -> Any:
        return (Path.touch, (self.canary,))


# State dicts


@broken("is not a plain state dict")
def pickle_with_code(folder: Path) -> Path:
    bundle = good(folder)
    torch.save({"head.weight": Pickled(folder)}, bundle / "models" / "model.pt")
    return bundle


@broken("is not a plain state dict")
def old_pickle_with_code(folder: Path) -> Path:
    bundle = good(folder)
    torch.save({"w": Pickled(folder)}, bundle / "models" / "model.pt", _use_new_zipfile_serialization=False)
    return bundle


@broken("is not a plain state dict")
def text_named_pt(folder: Path) -> Path:
    return with_file(folder, "model.pt", b"weights: none\n")


@broken("is not a plain state dict")
def empty_weights(folder: Path) -> Path:
    return with_file(folder, "model.pth", b"")


@broken("has no weights")
def folder_named_pt(folder: Path) -> Path:
    bundle = good(folder, weights="")
    (bundle / "models" / "model.pt").mkdir()
    return bundle


@broken("is not a plain state dict")
def truncated_weights(folder: Path) -> Path:
    path = good(folder) / "models" / "model.pt"
    path.write_bytes(path.read_bytes()[:-3000])
    return path.parent.parent


@broken("do not fit the network")
def wrong_shapes(folder: Path) -> Path:
    bundle = good(folder)
    torch.save(SmallCNN(2, 3, 5).state_dict(), bundle / "models" / "model.pt")
    return bundle


@broken("not finite")
def nan_weights(folder: Path) -> Path:
    bundle = good(folder)
    state = {key: value.float() * torch.nan for key, value in SmallCNN(3, 1, 2).state_dict().items()}
    torch.save(state, bundle / "models" / "model.pt")
    return bundle


@broken("do not fit the network")
def weights_of_one_number_that_claim_two_gigabytes(folder: Path) -> Path:
    bundle = good(folder)
    state = SmallCNN(3, 1, 2).state_dict()
    torch.save({**state, "head.weight": torch.zeros(1).expand(2, 1 << 28)}, bundle / "models" / "model.pt")
    return bundle


@broken("claims to hold more than its size")
def weights_that_swell(folder: Path) -> Path:
    path = good(folder) / "models" / "model.pt"
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data/99", bytes(50_000_000))
    return path.parent.parent


@broken("is not a plain state dict")
def weights_that_are_a_list(folder: Path) -> Path:
    bundle = good(folder)
    torch.save([torch.zeros(2)], bundle / "models" / "model.pt")
    return bundle


# Configurations


@untrusted("expression")
def expression(folder: Path) -> Path:
    return good(folder, network_def=NETWORK | {"num_classes": f"${touch(folder)} or 2"})


@untrusted("os.system")
def system_call(folder: Path) -> Path:
    return good(folder, network_def={"_target_": "os.system", "command": f"touch {folder / 'canary'}"})


def _reading(folder: Path) -> dict[str, Any]:
    """A step that starts a program in place of a reader."""
    return {
        "_target_": "LoadImaged",
        "keys": "image",
        "reader": "subprocess.check_call",
        "args": ["touch", str(folder / "canary")],
    }


@untrusted("'subprocess.check_call'")
def reader_that_is_a_program(folder: Path) -> Path:
    return good(folder, steps=[_reading(folder), SCALE])


@untrusted("'subprocess.check_call'")
def reader_in_a_compose(folder: Path) -> Path:
    inner = {"_target_": "Compose", "transforms": [_reading(folder)]}
    return good(folder, steps=[{"_target_": "Compose", "transforms": [inner]}])


@untrusted("'@other'")
def reader_by_reference(folder: Path) -> Path:
    return good(folder, steps=[_reading(folder) | {"reader": "@other"}], other="subprocess.check_call")


@untrusted("_debug_")
def debugger(folder: Path) -> Path:
    return good(folder, network_def=NETWORK | {"_debug_": True})


@untrusted("would download weights")
def download(folder: Path) -> Path:
    network = {"_target_": "DenseNet121", "spatial_dims": 2, "in_channels": 3, "out_channels": 2, "pretrained": True}
    return good(folder, network_def=network)


@untrusted("would download weights")
def download_by_default(folder: Path) -> Path:
    return good(folder, network_def={"_target_": "EfficientNetBN", "model_name": "efficientnet-b0"})


@broken("numbers at once")
def network_larger_than_any_memory(folder: Path) -> Path:
    return good(folder, network_def={"_target_": "torch.nn.Linear", "in_features": 10**6, "out_features": 10**6})


@broken("numbers at once")
def network_much_larger_than_its_weights(folder: Path) -> Path:
    return good(folder, network_def=NETWORK | {"num_classes": 10**6})


@broken("numbers at once")
def preprocessing_to_a_huge_image(folder: Path) -> Path:
    return good(folder, steps=[{"_target_": "Resized", "keys": "image", "spatial_size": [2000, 2000, 2000]}])


def _config(folder: Path, name: str, content: bytes) -> Path:
    bundle = good(folder)
    (bundle / "configs" / "inference.json").unlink()
    (bundle / "configs" / name).write_bytes(content)
    return bundle


@broken("alias")
def yaml_that_multiplies(folder: Path) -> Path:
    """Nine lists, each ten times the one before: a billion words."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 9)]
    return _config(folder, "inference.yaml", "\n".join([*lines, "network_def: *a8"]).encode())


@broken("nested too deep")
def references_that_multiply(folder: Path) -> Path:
    lists: dict[str, Any] = {f"a{k}": [f"@a{k - 1}"] * 10 for k in range(1, 9)}
    return good(folder, steps=[SCALE | {"channel_wise": "@a8"}], a0=["image"] * 10, **lists)


@broken("is not valid JSON")
def nested_without_end(folder: Path) -> Path:
    return _config(folder, "inference.json", b'{"network_def":' + b"[" * 200_000)


@broken("nested too deep")
def nested_deep(folder: Path) -> Path:
    return _config(folder, "inference.json", b'{"network_def":' + b"[" * 100 + b"]" * 100 + b"}")


@broken("is not valid YAML")
def yaml_nested_without_end(folder: Path) -> Path:
    return _config(folder, "inference.yaml", b"network_def: " + b"[" * 5_000)


@broken("is not valid JSON")
def configuration_of_bytes(folder: Path) -> Path:
    return _config(folder, "inference.json", b"\xff\xfe\x00{")


@broken("which no configuration needs")
def huge_configuration(folder: Path) -> Path:
    return _config(folder, "inference.json", b" " * 2_000_000 + b"{}")


@broken("does not hold an object")
def configuration_that_is_a_list(folder: Path) -> Path:
    return _config(folder, "inference.json", b"[]")


@broken("no plain file")
def pipe_in_a_bundle(folder: Path) -> Path:
    if not hasattr(os, "mkfifo"):
        pytest.skip("Windows has no named pipes in folders")
    bundle = good(folder)
    os.mkfifo(bundle / "models" / "pipe.py")
    return bundle


@untrusted("is a link to another folder")
def link_to_another_folder(folder: Path) -> Path:
    bundle = good(folder)
    (folder / "elsewhere").mkdir()
    (bundle / "scripts").symlink_to(folder / "elsewhere", target_is_directory=True)
    return bundle


# Archives


def zipped(bundle: Path, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    path = bundle.parent / "bundle.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in bundle.rglob("*"):
            if file.is_file():
                archive.write(file, file.relative_to(bundle))
    return path


@untrusted("leads out of it")
def zip_that_leads_out(folder: Path) -> Path:
    path = zipped(good(folder))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../canary", "")
    return path


@broken("can't be unpacked")
def truncated_zip(folder: Path) -> Path:
    path = zipped(good(folder))
    path.write_bytes(path.read_bytes()[:-100])
    return path


@broken("can't be unpacked")
def zip_with_a_wrong_bit(folder: Path) -> Path:
    path = zipped(good(folder))
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("configs/inference.json")
    # Behind its header and its name: the first block of what was compressed.
    content[entry.header_offset + 30 + len(entry.filename)] ^= 0x06
    path.write_bytes(content)
    return path


@broken("can't be unpacked")
def text_named_zip(folder: Path) -> Path:
    (folder / "text.zip").write_text("no archive")
    return folder / "text.zip"


@broken("can't be unpacked")
def empty_zip(folder: Path) -> Path:
    (folder / "empty.zip").write_bytes(b"")
    return folder / "empty.zip"


@broken("times its size")
def zip_bomb(folder: Path) -> Path:
    path = zipped(good(folder))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(300_000_000))
    return path


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


# What is no classifier at all


@broken("is not a MONAI bundle folder")
def empty_folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


@broken("There is no bundle folder or zip")
def weights_without_a_bundle(folder: Path) -> Path:
    torch.save(SmallCNN(3, 1, 2).state_dict(), folder / "weights.pt")
    return folder / "weights.pt"


# Images


def _nifti(folder: Path, name: str = "a.nii", **header: Any) -> Path:
    """A NIfTI file with something else in its header."""
    nibabel.Nifti1Image(np.ones(SHAPE, np.float32), np.eye(4)).to_filename(folder / "whole.nii")
    content = bytearray((folder / "whole.nii").read_bytes())
    dtype = nibabel.Nifti1Header().structarr.dtype.newbyteorder("<")
    fields = np.frombuffer(content, dtype, 1)
    for key, value in header.items():
        fields[key] = value
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return folder / name


_TWO_GIGABYTES = [3, 1024, 1024, 512, 1, 1, 1, 1]


@image("can't hold")
def nifti_that_claims_two_gigabytes(folder: Path) -> Path:
    return _nifti(folder, dim=_TWO_GIGABYTES)


@image("can't hold")
def packed_nifti_that_claims_two_gigabytes(folder: Path) -> Path:
    return _nifti(folder, "a.nii.gz", dim=_TWO_GIGABYTES)


@image("can't be read as NIfTI")
def nifti_with_negative_sizes(folder: Path) -> Path:
    return _nifti(folder, dim=[3, -16, 16, 16, 1, 1, 1, 1])


@image("can't be read as NIfTI")
def nifti_of_unknown_numbers(folder: Path) -> Path:
    return _nifti(folder, datatype=9999)


@image("is not invertible")
def nifti_without_a_place(folder: Path) -> Path:
    return _nifti(folder, srow_x=np.nan)


@image("is not a volume")
def nifti_with_an_axis_of_no_length(folder: Path) -> Path:
    return _nifti(folder, dim=[3, 16, 0, 16, 1, 1, 1, 1])


@image("can't be read as NIfTI")
def text_named_nii(folder: Path) -> Path:
    (folder / "a.nii").write_text("scan")
    return folder / "a.nii"


@image("can't be read as NIfTI")
def empty_nii(folder: Path) -> Path:
    (folder / "a.nii.gz").write_bytes(b"")
    return folder / "a.nii.gz"


@image("can't be read as NIfTI")
def truncated_nii(folder: Path) -> Path:
    path = _nifti(folder, "a.nii.gz")
    path.write_bytes(path.read_bytes()[:-20])
    return path


@image("There is no file")
def folder_named_nii(folder: Path) -> Path:
    (folder / "a.nii").mkdir()
    return folder / "a.nii"


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@image("can't be read as a picture")
def png_bomb(folder: Path) -> Path:
    """40 000 x 40 000 grey points in a few hundred bytes."""
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    parts = _chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(bytes(100_000))), _chunk(b"IEND", b"")
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return folder / "a.png"


@image("can't be read as a picture")
def text_named_png(folder: Path) -> Path:
    (folder / "a.png").write_text("picture")
    return folder / "a.png"


@image("can't hold")
def tiff_that_claims_ten_gigabytes(folder: Path) -> Path:
    import tifffile

    path = folder / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8))
    with tifffile.TiffFile(path, mode="r+b") as file:
        for name in ("ImageWidth", "ImageLength"):
            file.pages[0].tags[name].overwrite(100_000)
    return path


@image("can't be read as a picture")
def truncated_tiff(folder: Path) -> Path:
    import tifffile

    path = folder / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8), compression="zlib")
    path.write_bytes(path.read_bytes()[:60])
    return path


# Records


def _record(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A record of an explanation, changed."""
    from napari_xai_med import explain, load_model
    from napari_xai_med.samples import sample_files

    made = explain(sample_files("chest_ct_lesion")[0], load_model("chest_ct_3d")).record
    content = json.loads(made.to_json())
    change(content)
    path = folder / "record.json"
    path.write_text(json.dumps(content))
    return path


@record("is not a record")
def record_nested_without_end(folder: Path) -> Path:
    (folder / "record.json").write_text('{"format": 1, "image":' + "[" * 100_000)
    return folder / "record.json"


@record("is not a record")
def record_that_is_a_list(folder: Path) -> Path:
    (folder / "record.json").write_text("[1]")
    return folder / "record.json"


@record("which no configuration needs")
def record_without_end(folder: Path) -> Path:
    (folder / "record.json").write_text(" " * 2_000_000)
    return folder / "record.json"


@record("'software' is missing")
def record_without_software(folder: Path) -> Path:
    return _record(folder, lambda content: content.pop("software"))


@record("threads of software have to be from 1 to 1024")
def record_with_a_billion_threads(folder: Path) -> Path:
    return _record(folder, lambda content: content["software"].update(threads=10**9))


@record("source of image is of the wrong kind")
def record_of_no_image(folder: Path) -> Path:
    return _record(folder, lambda content: content["image"].update(source=["/etc/passwd"]))


@record("A request has no 'trust'")
def record_that_wants_trust(folder: Path) -> Path:
    return _record(folder, lambda content: content["request"].update(trust=True))


@record("A request can't have options")
def record_with_options_that_are_none(folder: Path) -> Path:
    return _record(folder, lambda content: content["request"].update(options=[1]))


@record("after the image was read", 4)
def record_with_a_reader_that_is_a_program(folder: Path) -> Path:
    steps = [SCALE, {"_target_": "Compose", "transforms": [_reading(folder)]}]
    return _record(folder, lambda content: content["request"].update(preprocessing=steps))


@record("expression", 4)
def record_with_an_expression(folder: Path) -> Path:
    steps = [SCALE | {"minv": f"${touch(folder)}"}]
    return _record(folder, lambda content: content["request"].update(preprocessing=steps))
