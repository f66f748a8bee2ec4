from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers import write_bundle
from safetensors.torch import save_file

from napari_xai_med import Image, explain, load_model, predict
from napari_xai_med.cli import main
from napari_xai_med.errors import ModelError, UntrustedError
from napari_xai_med.models import archives, bundle_files
from napari_xai_med.models.formats.base import Gives, formats
from napari_xai_med.models.small_cnn import SmallCNN

IMAGE = Image.from_array(np.random.default_rng(0).normal(size=(16, 16, 16)))
NETWORK = {
    "_target_": "napari_xai_med.models.small_cnn.SmallCNN",
    "spatial_dims": 3,
    "in_channels": 1,
    "num_classes": 2,
}
CONFIG = {
    "network_def": NETWORK,
    "preprocessing": {"_target_": "Compose", "transforms": [{"_target_": "ScaleIntensityd", "keys": "image"}]},
}


def network() -> SmallCNN:
    torch.manual_seed(0)
    return SmallCNN(3, 1, 2).eval()


def save(suffix: str, path: Path) -> None:
    if suffix == ".ts":
        torch.jit.trace(network(), torch.rand(1, 1, 16, 16, 16)).save(path)
    elif suffix == ".pt2":
        torch.export.save(torch.export.export(network(), (torch.rand(1, 1, 16, 16, 16),)), path)
    elif suffix == ".onnx":
        for package in ("onnx", "onnxruntime", "onnxscript"):
            pytest.importorskip(package, reason="ONNX files are made and read with it")
        torch.onnx.export(network(), (torch.rand(1, 1, 16, 16, 16),), path, verbose=False)
    elif suffix == ".safetensors":
        save_file(network().state_dict(), path)
    else:
        torch.save(network().state_dict(), path)


def make(folder: Path, suffix: str = ".pt", **changes: Any) -> Path:
    bundle = write_bundle(folder, CONFIG | changes, ("a", "b"))
    save(suffix, bundle / "models" / f"model{suffix}")
    return bundle


SUFFIXES = [suffix for kind in formats().values() for suffix in kind.suffixes]
# Networks of Keras are not made of PyTorch's; test_keras.py has theirs.
OF_PYTORCH = [suffix for name, kind in formats().items() if name != "Keras" for suffix in kind.suffixes]


# torch 2.13 advises against TorchScript, which is what many trained networks are stored in.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("suffix", OF_PYTORCH)
def test_every_format_predicts_the_same(suffix: str, tmp_path: Path) -> None:
    classifier = load_model(make(tmp_path / "b", suffix))
    scaled = (IMAGE.data - IMAGE.data.min()) / (IMAGE.data.max() - IMAGE.data.min())
    expected = network()(torch.from_numpy(scaled)[None])[0].detach()
    np.testing.assert_allclose(predict(IMAGE, classifier).logits, expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_has_no_layers_and_says_so(tmp_path: Path) -> None:
    classifier = load_model(make(tmp_path / "b", ".ts"))
    assert classifier.gives == {Gives.GRADIENTS}
    assert classifier.layers((1, 16, 16, 16)) == ()
    with pytest.raises(ModelError, match="Grad-CAM needs layers, which the format of b does not give"):
        explain(IMAGE, classifier)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_of_several_files_the_one_that_gives_most_is_taken(tmp_path: Path) -> None:
    bundle = make(tmp_path / "b", ".ts")
    save(".pt2", bundle / "models" / "model.pt2")
    assert bundle_files.find_weights(bundle)[0].name == "model.pt2"
    save(".pt", bundle / "models" / "model.pt")
    assert bundle_files.find_weights(bundle)[0].name == "model.pt"


def zipped(bundle: Path, path: Path, top: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in bundle.rglob("*"):
            if file.is_file():
                archive.write(file, f"{top}{file.relative_to(bundle)}")
    return path


@pytest.mark.parametrize("top", ["", "my_bundle/"])
def test_a_zip_is_a_bundle(tmp_path: Path, top: str) -> None:
    bundle = make(tmp_path / "b")
    archive = zipped(bundle, tmp_path / "b.zip", top)
    one, two = load_model(bundle), load_model(archive)
    assert one.sha256 == two.sha256
    assert two.source == str(archive)
    np.testing.assert_array_equal(predict(IMAGE, one).logits, predict(IMAGE, two).logits)


def test_yaml_is_a_configuration(tmp_path: Path) -> None:
    bundle = make(tmp_path / "b")
    config = bundle / "configs" / "inference.json"
    config.with_suffix(".yaml").write_text(yaml.safe_dump(json.loads(config.read_text())))
    config.unlink()
    assert load_model(bundle).class_names == ("a", "b")
    config.with_suffix(".yaml").write_text("a: [")
    with pytest.raises(ModelError, match="is not valid YAML"):
        load_model(bundle)
    config.with_suffix(".yaml").write_text("a: !!python/object/apply:os.system ['true']")
    with pytest.raises(ModelError, match="is not valid YAML"):
        load_model(bundle)


@pytest.mark.parametrize("name", ["../out.txt", "/tmp/out.txt", "configs/../../out.txt", "C:\\out.txt", "..\\out.txt"])
def test_a_zip_can_t_write_outside(tmp_path: Path, name: str) -> None:
    archive = zipped(make(tmp_path / "b"), tmp_path / "b.zip")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(name, "x")
    with pytest.raises(UntrustedError, match="leads out of it"):
        load_model(archive)


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    archive = zipped(make(tmp_path / "b"), tmp_path / "b.zip")
    link = zipfile.ZipInfo("models/link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(UntrustedError, match="leads out of it"):
        load_model(archive)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zipped(make(tmp_path / "b"), tmp_path / "b.zip")
    monkeypatch.setattr(archives, "LARGEST_ARCHIVE", 1000)
    with pytest.raises(ModelError, match="unpacks to more than"):
        load_model(archive)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "content", [b"", b"no network", b"\x80\x04K\x01.", b"\xff" * 64], ids=["empty", "text", "pickle", "header"]
)
def test_broken_files_are_one_sentence(suffix: str, content: bytes, tmp_path: Path) -> None:
    if suffix == ".onnx":
        pytest.importorskip("onnx", reason="ONNX files are read with it")
    bundle = write_bundle(tmp_path / "b", CONFIG, ("a", "b"))
    (bundle / "models" / f"model{suffix}").write_bytes(content)
    with pytest.raises(ModelError, match=r"is not a|not fit"):
        load_model(bundle)


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{key}": value for key, value in network().state_dict().items()}


@pytest.mark.parametrize(
    "checkpoint",
    [
        *({key: prefixed(""), "epoch": 3} for key in ("state_dict", "model_state_dict", "model", "network", "state")),
        {"net": prefixed(""), "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}},
        *(prefixed(prefix) for prefix in ("module.", "_orig_mod.", "model.", "net.", "network.", "_orig_mod.module.")),
        {"state_dict": prefixed("model."), "hyper_parameters": {"lr": 0.1}},
        {"model": {"state_dict": prefixed("module.")}},
        # Of another network, such as that of a teacher.
        {"model": prefixed("module."), "net": {"weight": torch.zeros(3)}},
    ],
    ids=lambda checkpoint: ", ".join(list(checkpoint)[:2]),
)
def test_weights_are_found_in_the_checkpoints_of_training(checkpoint: Any, tmp_path: Path) -> None:
    bundle = make(tmp_path / "b")
    expected = predict(IMAGE, load_model(bundle)).logits
    torch.save(checkpoint, bundle / "models" / "model.pt")
    np.testing.assert_array_equal(predict(IMAGE, load_model(bundle)).logits, expected)


@pytest.mark.parametrize(
    ("checkpoint", "said"),
    [
        ({"model": prefixed(""), "state_dict": prefixed("module.")}, "2 sets of weights that fit the network"),
        ({"teacher": prefixed("")}, "do not fit the network"),
        (prefixed("module.") | {"loss.weight": torch.zeros(2)}, "do not fit the network"),
    ],
)
def test_weights_are_not_guessed(checkpoint: Any, said: str, tmp_path: Path) -> None:
    bundle = make(tmp_path / "b")
    torch.save(checkpoint, bundle / "models" / "model.pt")
    with pytest.raises(ModelError, match=said):
        load_model(bundle)


def whole(path: Path) -> None:
    torch.save(network(), path)


def script(path: Path) -> None:
    save(".ts", path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("write", "said"),
    [
        (
            whole,
            r"holds objects of Python \(napari_xai_med\.models\.small_cnn\.SmallCNN\).*save\(network\.state_dict",
        ),
        (script, r"is TorchScript and not a state dict: name it model\.ts"),
    ],
)
def test_networks_that_are_named_as_weights_say_what_they_are(
    write: Any, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make(tmp_path / "b")
    path = bundle / "models" / "model.pt"
    write(path)
    with pytest.raises(ModelError, match=said):
        load_model(bundle)
    for more in ([], ["--architecture", "resnet10"]):
        assert main(["pack", str(path), "--classes", "a", "b", "--out", str(tmp_path / "out"), *more]) == 3
        assert re.search(said, capsys.readouterr().err)


def test_weights_alone_ask_for_their_architecture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make(tmp_path / "b") / "models" / "model.pt"
    assert main(["pack", str(path), "--classes", "a", "b", "--out", str(tmp_path / "out")]) == 2
    assert "name the architecture that they belong to" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".onnx"])
def test_a_file_that_is_no_bundle_yet_has_to_be_packed(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"r18{suffix}"
    path.write_bytes(b"")
    with pytest.raises(ModelError, match=r"has to be packed first: napari-xai-med pack .*r18"):
        load_model(path)
