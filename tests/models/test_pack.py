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

from napari_xai_med import Image, explain, load_model, predict
from napari_xai_med.cli import main
from napari_xai_med.errors import InputError, ModelError
from napari_xai_med.models.architectures import build
from napari_xai_med.models.pack import Packing, pack
from napari_xai_med.preprocessing.presets import preset
from napari_xai_med.preprocessing.steps import ZScore
from napari_xai_med.samples import sample_files

SLICE = sample_files("slice_nodule")[0]


@pytest.mark.parametrize("case", cases(2))
def test_architectures_pack_load_and_answer_as_before(case: Case, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = case.network()
    before = predict(case.image, case.around(network), preprocessing=case.steps)
    # One kind of file in 2D, the other in 3D.
    file, save = {2: ("model.pt", torch.save), 3: ("model.safetensors", save_file)}[case.dims]
    save(network.state_dict(), tmp_path / file)
    packing = Packing(
        weights=tmp_path / file,
        class_names=case.classes,
        architecture=case.name,
        options=case.options,
        preprocessing=case.steps,
    )
    classifier = pack(packing, tmp_path / "bundle")
    after = predict(case.image, classifier)
    np.testing.assert_allclose(after.logits, before.logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(after.probabilities, before.probabilities, atol=1e-5)
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
        ({"options": {"spatial_dims": 3}}, r"The weights in [^.]*resnet\.pt do not fit the network"),
        ({"options": {"depth": 3}}, "ResNet-10 has no option 'depth'"),
        ({"class_names": ()}, "Give the class names"),
        ({"class_names": ("a", " ", "c")}, "Give the class names"),
        ({"class_names": ("a", "b")}, "do not fit the network"),
        ({"class_names": ("a", "b", "a")}, "resnet has two classes called 'a'; give each class a name of its own"),
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
    with pytest.raises((InputError, ModelError), match=message) as caught:
        pack(replace(packing_of(weights), **changes), tmp_path / "new")
    assert ".packing-" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_in_use_is_left_alone(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    pack(packing_of(weights), tmp_path / "new")
    with pytest.raises(InputError, match=r"exists already; give a new folder"):
        pack(packing_of(weights), tmp_path / "new")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_shape": (1, -3, 4)}, r"can't take inputs of shape \(1, -3, 4\); give the number of channels"),
        ({"input_shape": (64, 64)}, r"can't take inputs of shape \(64, 64\)"),
        ({"value_range": (1.0, 0.0)}, r"\(1\.0, 0\.0\) is no range of values"),
        ({"value_range": (1.0,)}, "is no range of values"),
        ({"spacing": (0.0, 1.0)}, "is no range of millimetres between voxels; give the smallest and the largest"),
        ({"spacing": (1.0, 0.5)}, "is no range of millimetres"),
        ({"spacing": (1.0, float("nan"))}, "is no range of millimetres"),
        ({"spacing": (0.7, 0.7, 5.0)}, "is no range of millimetres"),
    ],
)
def test_what_can_t_be_is_told_before_anything_is_read(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        packing_of(Path("nothing.pt"), **changes)


def test_what_the_network_is_meant_for_is_asked_of_its_images(weights: Path, tmp_path: Path) -> None:
    packing = packing_of(weights, modality="ct", value_range=(-8.0, 8.0), spacing=(0.7, 5.0))
    metadata = pack(packing, tmp_path / "new").facts
    image = metadata["network_data_format"]["inputs"]["image"]
    assert (image["value_range"], image["format"]) == ([-8, 8], "hounsfield")
    assert metadata["napari_xai_med"]["spacing"] == [0.7, 5]
    told = pack(replace(packing, value_range=(-1.0, 1.0)), tmp_path / "other")
    values = np.zeros((32, 32), np.float32)
    values[10:20, 10:20] = 1
    assert "is meant for -1 to 1" in " ".join(predict(values, told).notices)


@pytest.mark.parametrize("names", [("ill",), ("well", "ill"), ("a", "b", "c")])
def test_the_network_s_own_outputs_tell_the_head(names: tuple[str, ...], tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    torch.jit.trace(network, torch.rand(2, 1, 16, 16)).save(tmp_path / "net.ts")
    packing = Packing(weights=tmp_path / "net.ts", class_names=names, input_shape=(1, 16, 16))
    if len(names) < 3:
        classifier = pack(packing, tmp_path / "bundle")
        assert (classifier.head, classifier.class_names) == (
            "one_logit",
            ("not ill", "ill") if len(names) == 1 else names,
        )
    else:
        with pytest.raises(ModelError, match="gives 1 numbers, but its bundle names 3 classes"):
            pack(packing, tmp_path / "bundle")


@pytest.mark.parametrize("end", ["Sigmoid", "Softmax"])
def test_a_regression_packs_with_its_own_ending(end: str, tmp_path: Path) -> None:
    last = nn.Sigmoid() if end == "Sigmoid" else nn.Softmax(1)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last).eval()
    example = torch.rand(1, 1, 16, 16)
    torch.jit.trace(network, example).save(tmp_path / "net.ts")
    torch.export.save(torch.export.export(network, (example,)), tmp_path / "net.pt2")
    for suffix in ("ts", "pt2"):
        packing = Packing(
            weights=tmp_path / f"net.{suffix}", class_names=("x", "y"), head="regression", input_shape=(1, 16, 16)
        )
        found = predict(example[0, 0].numpy(), pack(packing, tmp_path / suffix))
        np.testing.assert_allclose(found.probabilities, network(example)[0].detach(), rtol=1e-5)


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
    with pytest.raises(InputError, match=r"Give the shape of the input that net\.ts takes, channels first \(--input"):
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
    words = [*words, "--architecture", "resnet10", "--option", "spatial_dims=2"]
    assert main([*words, "--input-shape", "1,-3,4"]) == 2
    assert "can't take inputs of shape (1, -3, 4)" in capsys.readouterr().err
    words[3] = str(tmp_path / "other")
    assert main([*words, "--value-range", "0", "1", "--spacing", "0.7", "5"]) == 0
    own = load_model(tmp_path / "other").facts
    assert own["network_data_format"]["inputs"]["image"]["value_range"] == [0, 1]
    assert own["napari_xai_med"]["spacing"] == [0.7, 5]


class Pooled(nn.Module):
    """Gives nearly the same for all noise of one strength: what its bias is."""

    def __init__(self, kind: str, outputs: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.linear, self.kind = nn.Conv2d(1, 4, 3), nn.Linear(4, outputs), kind
        with torch.no_grad():
            self.linear.bias.fill_(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.linear(self.conv(x).relu().mean((2, 3)))
        if self.kind == "sigmoid":
            return 1 / (1 + torch.exp(-z))
        return z.exp() / z.exp().sum(1, keepdim=True) if self.kind == "softmax" else z


@pytest.mark.parametrize(
    ("kind", "outputs", "head", "told"),
    [
        ("sigmoid", 1, "one_logit", "lie between 0 and 1, as if it ended in a sigmoid"),
        ("sigmoid", 3, "multi_label", "lie between 0 and 1, as if it ended in a sigmoid"),
        ("sigmoid", 3, "softmax", "lie between 0 and 1, as if it ended in a sigmoid"),
        ("softmax", 3, "softmax", "sum to 1, as if it ended in a softmax"),
        ("sigmoid", 1, "regression", ""),
        ("linear", 1, "one_logit", ""),
        ("linear", 3, "softmax", ""),
    ],
)
def test_an_ending_that_was_not_recognised_is_told_at_once(
    kind: str, outputs: int, head: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, names = tmp_path / "m.ts", "abc"[: 2 if head == "one_logit" else outputs]
    torch.jit.trace(Pooled(kind, outputs).eval(), torch.zeros(1, 1, 16, 16)).save(file)
    packing = Packing(weights=file, class_names=tuple(names), head=head, input_shape=(1, 16, 16))
    notices = predict(Image.from_array(np.eye(16)), pack(packing, tmp_path / "a")).notices
    assert len(notices) == bool(told)
    assert told in " ".join(notices)
    command = ["pack", str(file), "--out", str(tmp_path / "b"), "--classes", *names, "--head", head]
    assert main([*command, "--input-shape", "1,16,16"]) == 0
    printed = capsys.readouterr().out
    assert told in printed
    assert ("recognised" in printed) == bool(told)
