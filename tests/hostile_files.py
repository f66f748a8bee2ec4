"""Classifiers that want to run code, fill the memory, lead elsewhere or are damaged, each made by one function.

Here are state dicts, configurations and archives; networks of other formats are in hostile_networks.py, images and
records in hostile_inputs.py.

A file that runs its code makes the file "canary" in the folder that it was made in. The registries say which
word the one sentence about each has to hold, and which exit code the command line ends with.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import write_bundle

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

Make = Callable[[Path], Path]


def listed_in(registry: dict[str, Hostile], says: str, code: int) -> Callable[[Make], Make]:
    def register(make: Make) -> Make:
        registry[make.__name__] = Hostile(make, says, code)
        return make

    return register


def broken(says: str) -> Callable[[Make], Make]:
    """A classifier that can't be used."""
    return listed_in(MODELS, says, 3)


def untrusted(says: str) -> Callable[[Make], Make]:
    """A classifier that is refused because it could run code."""
    return listed_in(MODELS, says, 4)


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


def reading(folder: Path) -> dict[str, Any]:
    """A step that starts a program in place of a reader."""
    return {
        "_target_": "LoadImaged",
        "keys": "image",
        "reader": "subprocess.check_call",
        "args": ["touch", str(folder / "canary")],
    }


@untrusted("'subprocess.check_call'")
def reader_that_is_a_program(folder: Path) -> Path:
    return good(folder, steps=[reading(folder), SCALE])


@untrusted("'subprocess.check_call'")
def reader_in_a_compose(folder: Path) -> Path:
    inner = {"_target_": "Compose", "transforms": [reading(folder)]}
    return good(folder, steps=[{"_target_": "Compose", "transforms": [inner]}])


@untrusted("'@other'")
def reader_by_reference(folder: Path) -> Path:
    return good(folder, steps=[reading(folder) | {"reader": "@other"}], other="subprocess.check_call")


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


# What is no classifier at all


@broken("is not a MONAI bundle folder")
def empty_folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


@broken("has to be packed first")
def weights_without_a_bundle(folder: Path) -> Path:
    torch.save(SmallCNN(3, 1, 2).state_dict(), folder / "weights.pt")
    return folder / "weights.pt"
