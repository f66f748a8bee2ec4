"""Bundles as MONAI's model zoo has them, used without trusting their authors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import write_bundle
from monai.networks.nets import SEResNet50

from napari_xai_med import Image, load_model, predict
from napari_xai_med.errors import ModelError, UntrustedError
from napari_xai_med.models.small_cnn import SmallCNN
from napari_xai_med.preprocessing.steps import MinMax, ZScore

NETWORK = {
    "_target_": "napari_xai_med.models.small_cnn.SmallCNN",
    "spatial_dims": 2,
    "in_channels": 1,
    "num_classes": 2,
}
DEVICE = "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')"
SCALE = {"_target_": "ScaleIntensityd", "keys": "image"}
PICTURE = Image.from_array(np.random.default_rng(0).uniform(0, 255, (24, 24)))


def zoo(folder: Path, *steps: Any, image: Any = None, key: str = "image", **changes: Any) -> Path:
    """A bundle with these transforms behind the reading, and changes at the top of its configuration."""
    transforms = [{"_target_": "LoadImaged", "keys": key}, *steps]
    preprocessing = {"_target_": "Compose", "transforms": transforms}
    config = {"device": DEVICE, "network_def": NETWORK, "preprocessing": preprocessing} | changes
    bundle = write_bundle(folder, config, ["a", "b"], spatial_shape=[24, 24])
    path = bundle / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["network_data_format"]["inputs"]["image"].update(image or {})
    path.write_text(json.dumps(metadata))
    torch.manual_seed(0)
    torch.save(SmallCNN(2, 1, 2).state_dict(), bundle / "models" / "model.pt")
    return bundle


def test_the_endoscopic_classifier_answers_untrusted(tmp_path: Path) -> None:
    """With the steps and the stated range of endoscopic_inbody_classification."""
    steps = [
        {"_target_": "AsChannelFirstd", "keys": "image"},
        {"_target_": "Resized", "keys": "image", "spatial_size": [64, 64], "mode": "bilinear"},
        {"_target_": "CastToTyped", "keys": "image", "dtype": "$torch.float32"},
        {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True, "channel_wise": True},
        {"_target_": "EnsureTyped", "keys": "image", "device": "@device"},
    ]
    network = {"_target_": "SEResNet50", "spatial_dims": 2, "in_channels": 3, "num_classes": 2}
    bundle = zoo(tmp_path / "b", *steps, image={"num_channels": 3, "value_range": [0, 1]}, network_def=network)
    torch.save(SEResNet50(spatial_dims=2, in_channels=3, num_classes=2).state_dict(), bundle / "models" / "model.pt")
    classifier = load_model(bundle)
    assert not classifier.trusted
    assert classifier.steps is not None
    assert [step.title for step in classifier.steps][-3:] == ["CastToTyped", ZScore.title, "EnsureTyped"]
    colours = Image.from_array(np.random.default_rng(0).uniform(0, 255, (80, 90, 3)), channel_axis=2)
    prediction = predict(colours, classifier)
    assert prediction.notices == ()
    # The shown steps are the bundle's own.
    shown = predict(colours, classifier, preprocessing=classifier.steps)
    np.testing.assert_array_equal(shown.logits, prediction.logits)
    # Of a trusted bundle they can be seen as well.
    trusted = load_model(bundle, trust=True).steps or ()
    assert [step.title for step in trusted] == [step.title for step in classifier.steps]


@pytest.mark.parametrize("name", ["AsChannelFirstd", "AddChanneld", "monai.transforms.AddChannelDict"])
@pytest.mark.parametrize("trust", [False, True])
def test_steps_of_reading_that_monai_removed_are_skipped(name: str, trust: bool, tmp_path: Path) -> None:
    bundle = zoo(tmp_path / "b", {"_target_": name, "keys": "image", "channel_dim": -1}, SCALE)
    classifier = load_model(bundle, trust=trust)
    assert classifier.steps == load_model(zoo(tmp_path / "c", SCALE)).steps
    assert predict(PICTURE, classifier).logits.shape == (2,)


@pytest.mark.parametrize(
    ("dtype", "same"),
    [
        ("$torch.float32", torch.float32),
        ("$torch.float", torch.float32),
        ("$torch.float16", torch.float16),
        ("$torch.double", torch.float64),
        ("$np.uint8", torch.uint8),
        ("$torch.int", torch.int32),
        ("@kind", torch.int64),
    ],
)
def test_types_of_numbers_are_plain_values(dtype: str, same: torch.dtype, tmp_path: Path) -> None:
    bundle = zoo(tmp_path / "b", {"_target_": "CastToTyped", "keys": "image", "dtype": dtype}, kind="$torch.int64")
    image = torch.rand(1, 24, 24) * 9
    assert load_model(bundle).preprocessing(image).dtype == same


@pytest.mark.parametrize(
    "value",
    [
        "$torch.float32.__class__",
        "$torch.load",
        "$os.float32",
        "$torch.device('cpu').type",
        "$torch.device(f(g(1)))",
        "$torch.device('cpu') or torch.device('cpu')",
    ],
)
def test_no_other_expression_passes(value: str, tmp_path: Path) -> None:
    with pytest.raises(UntrustedError, match="holds the expression"):
        load_model(zoo(tmp_path / "b", {"_target_": "CastToTyped", "keys": "image", "dtype": value}))


@pytest.mark.parametrize(
    "changes",
    [
        {"network_def": NETWORK | {"_mode_": "default"}},
        {"network_def": NETWORK | {"_desc_": "% of the $ in @ run"}},
        {"network_def": NETWORK | {"_desc_": "@run"}},
        {"preprocessing": SCALE | {"_desc_": ["%x"]}},
        {"image": {"num_channels": "*"}},
        *({"image": {"value_range": odd}} for odd in ([0], "[0, 1]", [1, 0], ["a", "b"], {"0": 1})),
        {"image": {"format": ["magnitude"]}},
    ],
    ids=str,
)
def test_what_runs_nothing_and_limits_nothing_is_no_reason_to_refuse(changes: Any, tmp_path: Path) -> None:
    bundle = zoo(tmp_path / "b", SCALE, run="$@evaluator.run()", **changes)
    prediction = predict(PICTURE, load_model(bundle))
    assert prediction.notices == ()
    expected = predict(PICTURE, load_model(zoo(tmp_path / "c", SCALE)))
    np.testing.assert_array_equal(prediction.logits, expected.logits)


def test_a_text_with_an_at_sign_is_no_reference(tmp_path: Path) -> None:
    """It would be the reason to refuse what `run` holds."""
    step = SCALE | {"allow_missing_keys": "me @ home may run"}
    assert load_model(zoo(tmp_path / "b", step, run="$@evaluator.run()")).class_names == ("a", "b")


@pytest.mark.parametrize(
    ("value_range", "warns"), [([0, 1], False), ([-0.1, 0.1], True)], ids=["of the raw image", "of the input"]
)
def test_a_range_of_the_raw_image_is_not_that_of_a_z_scored_one(
    value_range: list[float], warns: bool, tmp_path: Path
) -> None:
    step = {"_target_": "NormalizeIntensityd", "keys": "image"}
    notices = predict(PICTURE, load_model(zoo(tmp_path / "b", step, image={"value_range": value_range}))).notices
    assert ("is meant for" in " ".join(notices)) is warns


@pytest.mark.parametrize("target", ["models.formats.torchscript._Telling", "models.keras_files.modules.Pool"])
def test_of_our_own_package_only_what_bundles_need_is_built(target: str, tmp_path: Path) -> None:
    with pytest.raises(UntrustedError, match="is not a network or transform"):
        load_model(zoo(tmp_path / "b", SCALE, network_def={"_target_": f"napari_xai_med.{target}"}))


@pytest.mark.parametrize("trust", [False, True])
def test_the_image_may_have_another_name(trust: bool, tmp_path: Path) -> None:
    expected = load_model(zoo(tmp_path / "c", SCALE))
    classifier = load_model(zoo(tmp_path / "b", SCALE | {"keys": ["img"]}, key="img"), trust=trust)
    np.testing.assert_array_equal(predict(PICTURE, classifier).logits, predict(PICTURE, expected).logits)
    assert classifier.steps == expected.steps
    assert any(isinstance(step, MinMax) for step in classifier.steps or ())


@pytest.mark.parametrize("name", ["image", "img"])
def test_of_several_names_metadata_tells_the_image_s(name: str, tmp_path: Path) -> None:
    steps = [SCALE | {"keys": "img"}, SCALE | {"keys": ["img", "seg"], "allow_missing_keys": True}]
    bundle = zoo(tmp_path / "b", *steps, key="img")
    path = bundle / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    formats = metadata["network_data_format"]
    formats["inputs"] = {name: formats["inputs"]["image"]}
    path.write_text(json.dumps(metadata))
    if name == "img":
        assert predict(PICTURE, load_model(bundle)).logits.shape == (2,)
    else:
        with pytest.raises(ModelError, match=r"works on img, seg, and which is the image is not told; call it 'image'"):
            load_model(bundle)
