from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import write_bundle

from napari_xai_med import Image, load_model, predict
from napari_xai_med.errors import InputError, ModelError, UntrustedError
from napari_xai_med.models.head import Head

NETWORK = {
    "_target_": "napari_xai_med.models.small_cnn.SmallCNN",
    "spatial_dims": 3,
    "in_channels": 1,
    "num_classes": 2,
}
SCALE = {"_target_": "ScaleIntensityd", "keys": "image"}


def make(
    folder: Path,
    network: dict[str, Any] = NETWORK,
    names: tuple[str, ...] = ("a", "b"),
    steps: Any = (SCALE,),
    **own: Any,
) -> Path:
    inference = {"network_def": network, "preprocessing": {"_target_": "Compose", "transforms": list(steps)}}
    bundle = write_bundle(folder, inference, names, **own)
    from monai.bundle import ConfigParser

    torch.manual_seed(0)
    built = ConfigParser({"n": network}).get_parsed_content("n")
    torch.save(built.state_dict(), bundle / "models" / "model.pt")
    return bundle


IMAGE = Image.from_array(np.random.default_rng(0).normal(size=(16, 16, 16)))


def test_a_bundle_loads_and_predicts(tmp_path: Path) -> None:
    classifier = load_model(make(tmp_path / "b"))
    assert classifier.class_names == ("a", "b")
    assert classifier.head is Head.SOFTMAX
    prediction = predict(IMAGE, classifier)
    assert prediction.probabilities.sum() == pytest.approx(1)
    expected = np.exp(prediction.logits) / np.exp(prediction.logits).sum()
    np.testing.assert_allclose(prediction.probabilities, expected)
    assert prediction.ranked[0][0] == classifier.class_names[prediction.top]


def test_classes_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="b has two classes called 'a'; give each class a name of its own"):
        load_model(make(tmp_path / "b", names=("a", "a")))


def test_the_zoo_s_layout_with_references_and_expressions_elsewhere_loads(tmp_path: Path) -> None:
    bundle = make(tmp_path / "b")
    path = bundle / "configs" / "inference.json"
    config = json.loads(path.read_text())
    config |= {
        "imports": ["$import os"],
        "device": "$torch.device('cpu')",
        "key": "image",
        "network": "$@network_def.to(@device)",
    }
    config["preprocessing"]["transforms"] = [
        {"_target_": "LoadImaged", "keys": "@key"},
        {"_target_": "EnsureChannelFirstd", "keys": "@key"},
        {"_target_": "ScaleIntensityd", "keys": "@key"},
    ]
    path.write_text(json.dumps(config))
    assert predict(IMAGE, load_model(bundle)).logits.shape == (2,)


@pytest.mark.parametrize(
    ("names", "own", "head", "expected"),
    [
        (("malignant",), {}, Head.ONE_LOGIT, ("not malignant", "malignant")),
        (("benign", "bösartig"), {"head": "one_logit"}, Head.ONE_LOGIT, ("benign", "bösartig")),
        (("肺炎", "正常"), {"head": "multi_label"}, Head.MULTI_LABEL, ("肺炎", "正常")),
    ],
)
def test_heads_and_names(
    tmp_path: Path, names: tuple[str, ...], own: dict[str, Any], head: Head, expected: tuple[str, ...]
) -> None:
    outputs = 1 if head is Head.ONE_LOGIT else 2
    classifier = load_model(make(tmp_path / "b", NETWORK | {"num_classes": outputs}, names, **own))
    assert classifier.head is head
    assert classifier.class_names == expected
    prediction = predict(IMAGE, classifier)
    assert prediction.probabilities.shape == (2,)
    if head is Head.ONE_LOGIT:
        assert prediction.probabilities[1] == pytest.approx(1 / (1 + np.exp(-prediction.logits[0])))
        assert prediction.probabilities.sum() == pytest.approx(1)


def test_a_head_that_does_not_fit_is_one_sentence(tmp_path: Path) -> None:
    classifier = load_model(make(tmp_path / "b", names=("a", "b", "c")))
    with pytest.raises(ModelError, match="gives 2 numbers, but its bundle names 3 classes"):
        predict(IMAGE, classifier)
    with pytest.raises(ModelError, match="no head 'hat'"):
        load_model(make(tmp_path / "c", head="hat"))


@pytest.mark.parametrize(
    "bad",
    [
        {"_target_": "os.system", "command": "touch {marker}"},
        {"_target_": "torch.nn.modules.module.torch.hub.load", "repo_or_dir": "x"},
        {"_target_": "monai.networks.nets.densenet.torch.load", "f": "x"},
        {"_target_": "torch.nn.Identity", "_mode_": "debug"},
        {"_target_": "torch.nn.Identity", "argument": "$__import__('pathlib').Path('{marker}').touch()"},
        {"_target_": "torch.nn.Identity", "argument": "@other"},
        {"_target_": "torch.nn.Identity", "argument": "@##other"},
        {"_target_": "torch.nn.Identity", "argument": ["@other"]},
        {"_target_": "torch.nn.Identity", "_requires_": ["@other"]},
        {"_target_": "torch.nn.Identity", "_disabled_": "$__import__('pathlib').Path('{marker}').touch()"},
        {"_target_": "torch.nn.Identity", "argument": "%{marker}::x"},
        {"_target_": "napari_xai_med.cli.main"},
        "$__import__('pathlib').Path('{marker}').touch()",
    ],
)
def test_a_bundle_can_t_run_code(tmp_path: Path, bad: Any) -> None:
    marker = tmp_path / "marker"
    bundle = make(tmp_path / "b")
    path = bundle / "configs" / "inference.json"
    config = json.loads(path.read_text())
    config["network_def"] = json.loads(json.dumps(bad).replace("{marker}", str(marker)))
    config["other"] = f"$__import__('pathlib').Path('{marker}').touch()"
    path.write_text(json.dumps(config))
    with pytest.raises(UntrustedError, match="was refused because"):
        load_model(bundle)
    assert not marker.exists()


@pytest.mark.parametrize(
    "step", ["SaveImaged", "SaveClassificationd", "Lambdad", "RandLambda", "monai.transforms.SaveImage", "TorchVisiond"]
)
def test_transforms_that_write_or_run_are_refused(tmp_path: Path, step: str) -> None:
    bundle = make(tmp_path / "b")
    path = bundle / "configs" / "inference.json"
    config = json.loads(path.read_text())
    config["preprocessing"]["transforms"].append({"_target_": step})
    path.write_text(json.dumps(config))
    with pytest.raises(UntrustedError, match="can write files or run code"):
        load_model(bundle)


def test_what_is_not_checked_does_not_reach_the_parser(tmp_path: Path) -> None:
    """A key at the top can have the very name of a part below another one."""
    bundle, marker = make(tmp_path / "b"), tmp_path / "marker"
    path = bundle / "configs" / "inference.json"
    config = json.loads(path.read_text())
    evil = f"$__import__('pathlib').Path('{marker}').touch() or 2"
    for key in ("network_def::num_classes", "network_def#num_classes", "imports"):
        path.write_text(json.dumps({key: [evil] if key == "imports" else evil} | config))
        assert load_model(bundle).class_names == ("a", "b")
        path.write_text(json.dumps(config | {key: evil}))
        assert load_model(bundle).class_names == ("a", "b")
    assert not marker.exists()


def test_trust_allows_expressions(tmp_path: Path) -> None:
    bundle = make(tmp_path / "b")
    path = bundle / "configs" / "inference.json"
    config = json.loads(path.read_text())
    config["network_def"]["num_classes"] = "$1 + 1"
    path.write_text(json.dumps(config))
    with pytest.raises(UntrustedError, match="trust=True"):
        load_model(bundle)
    assert load_model(bundle, trust=True).class_names == ("a", "b")


def test_bad_bundles_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no bundle folder"):
        load_model(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"not a MONAI bundle folder: configs/inference.json is missing"):
        load_model(tmp_path / "empty")
    bundle = make(tmp_path / "b")
    torch.save({"other": torch.zeros(3)}, bundle / "models" / "model.pt")
    with pytest.raises(ModelError, match="do not fit the network"):
        load_model(bundle)
    (bundle / "models" / "model.pt").unlink()
    with pytest.raises(ModelError, match="has no weights"):
        load_model(bundle)
    (bundle / "configs" / "metadata.json").write_text("{")
    with pytest.raises(ModelError, match="not valid JSON"):
        load_model(bundle)


def test_weights_inside_a_checkpoint_are_found(tmp_path: Path) -> None:
    bundle = make(tmp_path / "b")
    path = bundle / "models" / "model.pt"
    torch.save({"state_dict": torch.load(path, weights_only=True), "epoch": 3}, path)
    assert load_model(bundle).class_names == ("a", "b")


def test_the_hash_covers_weights_and_configuration(tmp_path: Path) -> None:
    one, two = load_model(make(tmp_path / "b")), load_model(make(tmp_path / "c", steps=()))
    assert one.sha256 != two.sha256
    assert one.sha256 == load_model(tmp_path / "b").sha256


def test_images_that_do_not_fit_are_one_sentence(tmp_path: Path) -> None:
    classifier = load_model(make(tmp_path / "b"))
    with pytest.raises(InputError, match="takes 3D images and image is 2D; choose a volume"):
        predict(np.zeros((8, 8)), classifier)
    colours = Image.from_array(np.zeros((8, 8, 8, 3)), channel_axis=3)
    with pytest.raises(InputError, match=r"takes images with 1 channel\(s\) and image has 3"):
        predict(colours, classifier)
    with pytest.raises(ModelError, match="can't take an input of shape"):
        predict(np.zeros((0 + 1, 1, 1)) + 1, load_model(make(tmp_path / "n", NETWORK | {"in_channels": 2})))
