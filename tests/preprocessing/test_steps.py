from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import MeanOf, classifier_of, ones
from monai.data import MetaTensor
from torch import nn

from napari_xai_med import explain, load_model, predict
from napari_xai_med.cli import main
from napari_xai_med.errors import InputError, ModelError, UntrustedError
from napari_xai_med.image import Image
from napari_xai_med.job import Job
from napari_xai_med.options import option_fields
from napari_xai_med.pipeline import network_view
from napari_xai_med.preprocessing.base import Other, config_of, read_steps, steps, transform_of
from napari_xai_med.preprocessing.files import read_preprocessing
from napari_xai_med.preprocessing.presets import PRESETS, preset
from napari_xai_med.preprocessing.steps import Flip, Resize, Window, ZScore
from napari_xai_med.request import ExplainRequest
from napari_xai_med.samples import sample_files

DOCS = Path(__file__).parents[2] / "docs" / "preprocessing.md"
SMALL = {"resize": {"spatial_size": (6, 7, 8)}, "pad_or_crop": {"spatial_size": (6, 7, 8)}}


def picture(channels: int = 3) -> MetaTensor:
    values = torch.as_tensor(np.random.default_rng(0).random((channels, 10, 11, 12)) * 200, dtype=torch.float32)
    return MetaTensor(values, affine=torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize("name", steps())
def test_every_step_becomes_a_configuration_and_comes_back(name: str) -> None:
    step = steps()[name](**SMALL.get(name, {}))
    assert read_steps(json.loads(json.dumps(config_of([step])))["transforms"]) == (step,)
    result = transform_of([step], "test")(picture())
    assert isinstance(result, MetaTensor)
    assert torch.isfinite(result).all()


@pytest.mark.parametrize("name", steps())
def test_every_option_is_explained(name: str) -> None:
    assert all(item.metadata["text"].endswith(".") for item in option_fields(steps()[name]))


def steps_table() -> str:
    """The tables of docs/preprocessing.md."""
    rows = ["| step | option | default | meaning |", "|---|---|---|---|"]
    for kind in steps().values():
        rows.append(f"| **{kind.title}** | | | {(kind.__doc__ or '').splitlines()[0]} |")
        rows += [
            f"| | `{item.name}` | {_shown(item.default)} | {item.metadata['text']} |" for item in option_fields(kind)
        ]
    rows += ["", "| preset | what it does |", "|---|---|"]
    rows += [f"| `{name}` | {title} |" for name, (title, _) in PRESETS.items()]
    return "\n".join(rows) + "\n"


def _shown(value: Any) -> str:
    return " × ".join(f"{number:g}" for number in value) if isinstance(value, tuple) else str(value)


def test_the_documented_tables_are_the_registry() -> None:
    assert DOCS.read_text(encoding="utf-8").endswith(f"\n\n{steps_table()}"), (
        "put what steps_table() returns at the end of docs/preprocessing.md"
    )


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("window", {"a_min": 5.0, "a_max": 5.0}, r"Window can't go from 5 to 5; give a smallest value below"),
        ("window", {"b_min": 1.0, "b_max": 1.0}, "Window can't make 1 of all values"),
        ("window", {"a_min": float("nan")}, "Window can't have a_min nan; give it a number"),
        ("percentiles", {"lower": 99.0, "upper": 1.0}, "Percentile window can't go from 99 to 1"),
        ("percentiles", {"lower": -1.0}, "can't have lower -1.0; give it a number from 0 to 100"),
        ("minmax", {"minv": 1.0}, "Min-max can't make 1 of all values"),
        ("equalise", {"min": 2.0}, "Histogram equalisation can't go from 2 to 1"),
        ("resize", {"spatial_size": 0}, "Resize can't have spatial_size 0; give it a list of numbers"),
        ("resize", {"spatial_size": (0, 8)}, r"Resize can't make images of size \(0, 8\)"),
        ("resize", {"spatial_size": ()}, r"Resize can't make images of size \(\)"),
        ("resize", {"mode": "nearest"}, "can't have mode 'nearest'; choose one of 'linear', 'nearest-exact', 'area'"),
        ("pad_or_crop", {"spatial_size": (-2, 8)}, r"Pad or crop can't make images of size \(-2, 8\)"),
        ("spacing", {"pixdim": (1.0, 0.0)}, r"can't have \(1\.0, 0\.0\) mm between voxels"),
        ("orientation", {"axcodes": "RLS"}, "can't turn axes to 'RLS'"),
        ("orientation", {"axcodes": "ras"}, "can't turn axes to 'ras'"),
        ("standardise", {"divisor": (1.0, 0.0, 1.0)}, "can't divide by"),
        ("standardise", {"divisor": (1.0,)}, "has 3 means and 1 deviations"),
        ("flip", {"spatial_axis": (1, 1)}, r"can't mirror along \(1, 1\)"),
        ("crop_to_body", {"opening": -1}, "can't have opening -1"),
    ],
)
def test_what_a_step_can_t_be_is_told_when_it_is_made(name: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        steps()[name](**options)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("name", "option"), [("resize", "spatial_size"), ("spacing", "pixdim")])
def test_every_interpolation_keeps_its_word_and_the_place(name: str, option: str, dims: int) -> None:
    """Of a ramp: a value is where it was, to half a voxel for the nearest and to rounding for the others."""
    kind = steps()[name]
    modes = next(item for item in option_fields(kind) if item.name == "mode").metadata["choices"]
    index = torch.meshgrid(*[torch.arange(12.0)] * dims, indexing="ij")
    image = MetaTensor(torch.stack(index), affine=torch.eye(dims + 1, dtype=torch.float64))
    # 5 voxels of 12: no centre of the new lies on one of the old.
    size = {"spatial_size": (5,) * dims, "pixdim": (2.4,) * dims}[option]
    for mode in modes:
        found = transform_of([kind(**{option: size, "mode": mode})], "test")(image)
        new = torch.stack(
            torch.meshgrid(*[torch.arange(n, dtype=torch.double) for n in found.shape[1:]], indexing="ij")
        )
        place = torch.einsum("ij,j...->i...", found.affine[:-1, :-1], new) + found.affine[:-1, -1].view(-1, *[1] * dims)
        inner = (slice(None), *[slice(1, -1)] * dims)
        error = (found.as_tensor() - place)[inner].abs().max()
        assert error <= {"linear": 1e-4}.get(mode, 0.5 + 1e-4)
        assert (mode == "linear") == (float(error) < 1e-4)


@pytest.mark.parametrize("word", ["bilinear", "trilinear", "linear"])
def test_words_for_linear_are_one_step(word: str) -> None:
    entry = {"_target_": "Resized", "keys": "image", "spatial_size": [5, 6, 7], "mode": word}
    (step,) = read_steps([entry])
    assert step == Resize(spatial_size=(5, 6, 7), mode="linear") == Resize(spatial_size=(5, 6, 7), mode=word)
    theirs = transform_of([Other(entry)], "test")(picture())
    torch.testing.assert_close(transform_of([step], "test")(picture()), theirs, rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["nearest", "bicubic"])
def test_other_interpolations_of_a_bundle_are_kept_as_they_are(mode: str) -> None:
    entry = {"_target_": "Resized", "keys": "image", "spatial_size": [5, 6], "mode": mode}
    assert read_steps([entry]) == (Other(entry),)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_comes_back_and_runs(name: str, dims: int) -> None:
    chosen = preset(name, dims)
    assert read_steps(config_of(chosen)["transforms"]) == chosen
    image = picture() if dims == 3 else picture()[:, 0]
    assert torch.isfinite(transform_of(chosen, "test")(image)).all()


def test_windows_map_hounsfield_units_to_one() -> None:
    values = torch.tensor([[[-2000.0, -1000.0, -300.0, 400.0, 3000.0]]])
    expected = {"ct": [0, 0, 0.5, 1, 1], "ct_soft_tissue": [0, 0, 0, 1, 1], "ct_bone": [0, 0, 200 / 1800, 0.5, 1]}
    for name, result in expected.items():
        found = transform_of(preset(name, 2), "test")(MetaTensor(values))
        np.testing.assert_allclose(found.flatten(), result, atol=1e-6)


def test_what_a_step_cannot_say_is_kept_as_it_is() -> None:
    entries: list[dict[str, Any]] = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "monai.transforms.Resized", "keys": ["image"], "spatial_size": 8, "mode": "area"},
        {"_target_": "Resized", "keys": "image", "spatial_size": [8, 8], "mode": "bilinear", "align_corners": True},
        {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -1000, "a_max": 400, "b_min": 0, "b_max": 1},
        {"_target_": "SqueezeDimd", "keys": "image", "dim": -1},
        {"_target_": "ScaleIntensityd", "keys": ["image", "label"]},
    ]
    resize, aligned, window, squeeze, both = read_steps(entries)
    assert resize == Resize(spatial_size=(8,), mode="area")
    assert aligned == Other(entries[2])
    # MONAI's own default is not to clip.
    assert window == Window(a_min=-1000, a_max=400, b_min=0, b_max=1, clip=False)
    assert both == Other(entries[5])
    assert (squeeze.title, squeeze.config()) == ("SqueezeDimd", entries[4])


@pytest.mark.parametrize("entry", ["Resized", {"keys": "image"}, {"_target_": 3}])
def test_what_is_no_step_is_told(entry: Any) -> None:
    with pytest.raises(InputError, match="is no preprocessing step; it needs a _target_"):
        read_steps([entry])


@pytest.mark.parametrize(
    "entry",
    [
        {"_target_": "os.system", "command": "touch hacked"},
        {"_target_": "Lambdad", "keys": "image", "func": "$print"},
        {"_target_": "ScaleIntensityd", "keys": "$__import__('os').system('touch hacked')"},
    ],
)
def test_steps_run_no_code(entry: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UntrustedError):
        transform_of(read_steps([entry]), "test")
    with pytest.raises(UntrustedError):
        predict(sample_files("chest_ct_lesion")[0], "chest_ct_3d", preprocessing=[entry])
    assert not (tmp_path / "hacked").exists()


def test_embedded_classifiers_show_their_steps() -> None:
    for name in ("chest_ct_3d", "chest_ct_2d"):
        classifier = load_model(name)
        assert classifier.steps is not None
        assert not any(isinstance(step, Other) for step in classifier.steps)
        image = Image.from_array(np.random.default_rng(0).normal(0, 500, (9, 40, 41)[3 - classifier.spatial_dims :]))
        again = classifier.with_steps(classifier.steps)
        torch.testing.assert_close(again.prepare(image).tensor, classifier.prepare(image).tensor, rtol=0, atol=0)


def test_a_request_can_change_the_preprocessing_and_its_record_knows() -> None:
    image = Image.from_array(np.random.default_rng(0).random((12, 14)).astype(np.float32), (2.0, 3.0))
    classifier = classifier_of(MeanOf(ones(nn.Conv2d(1, 1, 1))), 2)
    chosen = [Flip(spatial_axis=(1,)), Window(a_min=0, a_max=2, clip=False)]
    prediction = predict(image, classifier, preprocessing=chosen)
    np.testing.assert_allclose(prediction.logits[1], image.data.mean() / 2, rtol=1e-5)
    attribution = explain(image, classifier, preprocessing=chosen, target=1)
    # Turned and scaled for the network, and back in place for the user.
    np.testing.assert_allclose(attribution.values, image.data[0] / 2 / image.data[0].size, rtol=1e-4)
    request = attribution.record.explain_request
    assert request == ExplainRequest.from_dict(json.loads(attribution.record.to_json())["request"])
    again = explain(image, classifier, preprocessing=request.preprocessing, target=1)
    assert again.record.result["sha256"] == attribution.record.result["sha256"]
    assert "preprocessing=[{'_target_': 'Flipd'" in request.as_python("image", "model")
    seen = network_view(image, classifier, request, Job())
    np.testing.assert_allclose(seen.data[0], image.data[0][:, ::-1] / 2, rtol=1e-6)
    assert "preprocessing" not in explain(image, classifier).record.request


def test_a_preprocessing_that_fails_is_one_sentence() -> None:
    image = Image.from_array(np.zeros((4, 4), np.float32))
    with pytest.raises(ModelError, match=r"^The preprocessing of test failed on this image: [^.]*\.$"):
        predict(image, classifier_of(nn.Flatten(), 2), preprocessing=[Flip(spatial_axis=(2,))])
    with pytest.raises(InputError, match="no preprocessing preset 'ct_lungs'; choose one of ct, ct_lung"):
        predict(image, classifier_of(nn.Flatten(), 2), preprocessing="ct_lungs")


def test_files_and_presets_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "steps.json"
    path.write_text(json.dumps(config_of([ZScore()])["transforms"]))
    assert read_preprocessing(str(path), 2) == (ZScore(),)
    path.write_text(json.dumps({"preprocessing": config_of([ZScore()])}))
    assert read_preprocessing(str(path), 2) == (ZScore(),)
    image = str(sample_files("slice_nodule")[0])
    assert main(["predict", image, "--model", "chest_ct_2d", "--preprocessing", str(path)]) == 0
    assert main(["predict", image, "--model", "chest_ct_2d", "--preprocessing", "nothing"]) == 2
    path.write_text("no json")
    assert main(["predict", image, "--model", "chest_ct_2d", "--preprocessing", str(path)]) == 2
    path.write_text("{}")
    assert main(["predict", image, "--model", "chest_ct_2d", "--preprocessing", str(path)]) == 2
    told = capsys.readouterr().err
    assert "There is no preset or file 'nothing'; the presets are ct, " in told
    assert "is not valid JSON" in told
    assert "holds no list of transforms" in told


def test_any_number_of_channels_can_be_allowed() -> None:
    colours = Image(np.random.default_rng(0).random((3, 6, 6), np.float32), Image.from_array(np.zeros((6, 6))).grid)
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    classifier = replace(classifier_of(network, 2), channels=0)
    grey = replace(colours, data=colours.data[:1])
    assert predict(colours, classifier, preprocessing="imagenet").logits.shape == (2,)
    assert predict(grey, classifier, preprocessing="imagenet").logits.shape == (2,)
