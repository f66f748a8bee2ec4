from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matrix import Case, cases
from safetensors.torch import save_file
from torch import nn

from napari_xai_med import explain, load_model, predict
from napari_xai_med.cli import main
from napari_xai_med.errors import InputError, ModelError
from napari_xai_med.models.architectures import build
from napari_xai_med.models.pack import Packing, pack
from napari_xai_med.preprocessing.presets import preset
from napari_xai_med.preprocessing.steps import ZScore
from napari_xai_med.samples import sample_files

SLICE = sample_files("slice_nodule")[0]


@pytest.mark.parametrize("case", cases())
def test_every_architecture_packs_loads_and_answers_as_before(case: Case, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = case.network()
    before = predict(case.image, case.around(network), preprocessing=case.steps)
    for file, save in {"model.pt": torch.save, "model.safetensors": save_file}.items():
        save(network.state_dict(), tmp_path / file)
        packing = Packing(
            weights=tmp_path / file,
            class_names=case.classes,
            architecture=case.name,
            options=case.options,
            preprocessing=case.steps,
        )
        classifier = pack(packing, tmp_path / file.replace(".", "_"))
        after = predict(case.image, classifier)
        np.testing.assert_allclose(after.logits, before.logits, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(after.probabilities, before.probabilities, atol=1e-5)
        (tmp_path / file).unlink()
    attribution = explain(case.image, classifier)
    assert attribution.values.shape == attribution.grid.shape
    assert np.isfinite(attribution.values).all()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "resnet.pt"
    torch.save(build("resnet10", spatial_dims=2, num_classes=3).state_dict(), path)
    return path


def packing_of(weights: Path, **changes: Any) -> Packing:
    values: dict[str, Any] = {
        "weights": weights,
        "class_names": ("a", "b", "c"),
        "architecture": "resnet10",
        "options": {"spatial_dims": 2},
        "preprocessing": (ZScore(),),
    }
    return Packing(**values | changes)


def test_a_packed_classifier_is_a_bundle_of_monai(weights: Path, tmp_path: Path) -> None:
    from monai.bundle import ConfigParser

    folder = tmp_path / "made" / "here"
    classifier = pack(packing_of(weights, name="日本 classifier", modality="MR"), folder)
    assert (classifier.name, classifier.class_names) == ("日本 classifier", ("a", "b", "c"))
    assert classifier.steps == (ZScore(),)
    assert sorted(path.name for path in tmp_path.joinpath("made").iterdir()) == ["here"]
    parser = ConfigParser()
    parser.read_config(folder / "configs" / "inference.json")
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True))
    transform = parser.get_parsed_content("preprocessing")
    assert [type(step).__name__ for step in transform.transforms] == [
        "LoadImaged",
        "EnsureChannelFirstd",
        "NormalizeIntensityd",
    ]
    metadata = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert metadata["network_data_format"]["inputs"]["image"]["modality"] == "MR"
    assert "Research use only" in metadata["intended_use"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": ""}, "resnet.pt holds weights only; name the architecture that they belong to."),
        ({"architecture": "resnet11"}, "There is no architecture 'resnet11'; choose one of densenet121"),
        ({"options": {"spatial_dims": 3}}, "The weights in .*model.pt do not fit the network"),
        ({"options": {"depth": 3}}, "ResNet-10 has no option 'depth'"),
        ({"class_names": ()}, "Give the class names"),
        ({"class_names": ("a", " ", "c")}, "Give the class names"),
        ({"class_names": ("a", "b")}, "do not fit the network"),
        ({"head": "softmaxx"}, "There is no head 'softmaxx'; choose one of auto, softmax"),
        ({"output": "logits"}, "has a single output; take 'logits' out of the bundle"),
        ({"weights": Path("nothing.pt")}, "There is no file nothing.pt"),
        ({"weights": Path(__file__)}, "test_pack.py is of no format that can be loaded"),
    ],
)
def test_what_does_not_fit_is_told_and_leaves_nothing(
    weights: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((InputError, ModelError), match=message):
        pack(replace(packing_of(weights), **changes), tmp_path / "new")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_in_use_is_left_alone(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    pack(packing_of(weights), tmp_path / "new")
    with pytest.raises(InputError, match=r"exists already; give a new folder"):
        pack(packing_of(weights), tmp_path / "new")


@pytest.mark.parametrize(
    ("end", "outputs", "head"), [("Sigmoid", 3, "multi_label"), ("Sigmoid", 1, "one_logit"), ("Softmax", 3, "softmax")]
)
def test_torchscript_tells_its_head(end: str, outputs: int, head: str, tmp_path: Path) -> None:
    last = nn.Softmax(1) if end == "Softmax" else nn.Sigmoid()
    network = nn.Sequential(nn.Conv2d(1, outputs, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last).eval()
    torch.jit.trace(network, torch.rand(2, 1, 16, 16)).save(tmp_path / "net.ts")
    names = tuple("abc"[:outputs])
    packing = Packing(weights=tmp_path / "net.ts", class_names=names, input_shape=(1, 16, 16))
    classifier = pack(packing, tmp_path / "bundle")
    assert classifier.head == head
    with pytest.raises(InputError, match=r"Give the shape of the input that net\.ts takes, channels first\."):
        pack(replace(packing, input_shape=()), tmp_path / "other")
    if head != "softmax":
        with pytest.raises(ModelError, match="The network ends in sigmoid, which the head softmax does not fit"):
            pack(replace(packing, head="softmax", class_names=("a", "b", "c")[: max(outputs, 1)]), tmp_path / "other")


def test_the_command_line_packs(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["pack", str(weights), "--out", str(tmp_path / "bundle"), "--classes", "a", "b", "c"]
    assert main([*words, "--architecture", "resnet10", "--option", "spatial_dims=2", "--preprocessing", "ct_lung"]) == 0
    assert "resnet is packed in" in capsys.readouterr().out
    classifier = load_model(tmp_path / "bundle")
    assert classifier.steps == preset("ct_lung", 2)
    assert main(["explain", str(SLICE), "--model", str(tmp_path / "bundle"), "--out", str(tmp_path / "out")]) == 0
    assert main([*words, "--architecture", "resnet10", "--option", "spatial_dims=two"]) == 2
    assert "invalid literal for int() with base 10: 'two'" in capsys.readouterr().err
