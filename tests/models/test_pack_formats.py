from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matrix import NAMES, Case, cases
from torch import nn

from napari_xai_med import explain, load_model, predict, read_image
from napari_xai_med.cli import main
from napari_xai_med.errors import InputError, ModelError
from napari_xai_med.models.formats.base import Gives
from napari_xai_med.models.pack import Packing, pack
from napari_xai_med.models.sliding_window import SlidingWindow
from napari_xai_med.preprocessing.base import AnyStep, Other
from napari_xai_med.preprocessing.presets import preset
from napari_xai_med.preprocessing.steps import PadOrCrop, Resize, Spacing, ZScore


def save(network: nn.Module, path: Path, example: torch.Tensor) -> None:
    if path.suffix == ".ts":
        torch.jit.trace(network, example, check_trace=False).save(path)
    elif path.suffix == ".pt2":
        batch = {0: torch.export.Dim("batch", min=1, max=64)}
        torch.export.save(torch.export.export(network, (example,), dynamic_shapes=(batch,)), path)
    else:
        pytest.importorskip("onnx")
        torch.onnx.export(network, (example,), path, dynamo=False, dynamic_axes={"x": {0: "n"}}, input_names=["x"])


def calibrated(network: nn.Module, case: Case) -> nn.Module:
    """Give the normalisations the statistics that training leaves, of the sample and of noise.

    Without these, what goes through a hundred layers grows until no two ways of adding it up agree.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.momentum = None
    seen = case.around(network).with_steps(case.steps).prepare(read_image(case.image)).tensor
    with torch.no_grad():
        network.train()(torch.cat([seen, seen.flip(-1), torch.randn(6, *seen.shape[1:])]))
    return network.eval()


def files() -> list[Any]:
    """A network of each family as every kind of file; in 3D as one in turn, if it has the same layers in 2D."""
    suffixes = (".ts", ".pt2", ".onnx")
    found = []
    for place, param in enumerate(cases()):
        (case,) = param.values
        kinds = (suffixes[place % 3],) if (case.name, 2) in NAMES and case.dims == 3 else suffixes
        found += [pytest.param(case, suffix, id=f"{param.id}{suffix}") for suffix in kinds]
    return found


@pytest.mark.parametrize(("case", "suffix"), files())
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_files_with_their_network_pack_and_answer_as_before(case: Case, suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = calibrated(case.network(), case)
    before = predict(case.image, case.around(network), preprocessing=case.steps)
    path = tmp_path / f"net{suffix}"
    save(network, path, torch.rand(2, *case.input_shape))
    packing = Packing(
        weights=path,
        class_names=case.classes,
        head=case.around(network).head,
        preprocessing=case.steps,
        input_shape=case.input_shape,
    )
    classifier = pack(packing, tmp_path / "bundle")
    after = predict(case.image, classifier)
    np.testing.assert_allclose(after.logits, before.logits, rtol=1e-5, atol=1e-5)
    if Gives.LAYERS in classifier.gives and case.name not in ("vit", "swin"):
        assert np.isfinite(explain(case.image, classifier).values).all()
    else:
        assert case.name in ("vit", "swin") or suffix == ".ts"


def test_files_that_say_their_input_need_not_be_told(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Sigmoid()).eval()
    save(network, tmp_path / "net.pt2", torch.rand(2, 1, 16, 20))
    classifier = pack(Packing(weights=tmp_path / "net.pt2", class_names=("a", "b")), tmp_path / "bundle")
    assert classifier.facts["network_data_format"]["inputs"]["image"]["spatial_shape"] == [16, 20]
    assert classifier.head == "multi_label"


def test_weights_beside_an_onnx_file_come_along(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    network = nn.Sequential(nn.Conv2d(1, 64, 5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2)).eval()
    save(network, tmp_path / "whole.onnx", torch.rand(2, 1, 16, 20))
    model = onnx.load(tmp_path / "whole.onnx")
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    packing = Packing(weights=tmp_path / "net.onnx", class_names=("a", "b"), input_shape=(1, 16, 20))
    pack(packing, tmp_path / "bundle")
    assert (tmp_path / "bundle" / "models" / "net.data").is_file()
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../../secret"
    (tmp_path / "hostile.onnx").write_bytes(model.SerializeToString())
    with pytest.raises((ModelError, InputError)):
        pack(Packing(weights=tmp_path / "hostile.onnx", class_names=("a", "b")), tmp_path / "other")
    assert not (tmp_path / "other").exists()


# What these make depends on the image.
DEPENDING = (
    (Resize(spatial_size=(16, -1)),),
    (Resize(spatial_size=(16, 20)), Spacing(pixdim=(1.0, 1.0))),
)


@pytest.mark.parametrize(
    ("steps", "fits"),
    [
        ((), True),
        ((ZScore(),), True),
        ((ZScore(), Resize(spatial_size=(16, 20))), True),
        ((PadOrCrop(spatial_size=(16, 20)), ZScore()), True),
        ((Resize(spatial_size=(20, 16)),), False),
        ((Resize(spatial_size=(-1, 16)),), False),
        ((Resize(spatial_size=(16, 20)), Resize(spatial_size=(-1, 20))), True),
        ((Resize(spatial_size=(16,)),), False),
        *((steps, True) for steps in DEPENDING),
        # What others' steps make isn't known.
        ((Other({"_target_": "CenterSpatialCropd", "keys": "image", "roi_size": [16, 20]}),), True),
    ],
)
def test_a_preprocessing_has_to_make_the_one_size_that_a_file_allows(
    steps: tuple[AnyStep, ...], fits: bool, tmp_path: Path
) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    save(network, tmp_path / "net.pt2", torch.rand(2, 1, 16, 20))
    packing = Packing(weights=tmp_path / "net.pt2", class_names=("a", "b"), preprocessing=steps)
    if not fits:
        with pytest.raises(
            InputError, match=r"net\.pt2 takes images of 16 x 20 voxels only.* end it with Resize to 16,20"
        ):
            pack(packing, tmp_path / "bundle")
        assert not (tmp_path / "bundle").exists()
        return
    fixed = {type(step) for step in steps} & {Resize, PadOrCrop, Other} and steps not in DEPENDING
    values = np.random.default_rng(0).random((40, 50) if fixed else (16, 20))
    assert len(predict(values, pack(packing, tmp_path / "bundle")).logits) == 2


def test_windows_have_to_be_of_the_one_size_that_a_file_allows(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    save(network, tmp_path / "net.pt2", torch.rand(2, 1, 16, 20))
    packing = Packing(weights=tmp_path / "net.pt2", class_names=("a", "b"), windows=SlidingWindow((16, 16), "max"))
    with pytest.raises(InputError, match="16 x 20 voxels only, which its windows do not make; give windows of 16,20"):
        pack(packing, tmp_path / "bundle")


def test_the_command_line_resizes(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    save(network, tmp_path / "net.pt2", torch.rand(2, 1, 16, 20))
    words = ["pack", str(tmp_path / "net.pt2"), "--out", str(tmp_path / "bundle"), "--classes", "a", "b"]
    words += ["--preprocessing", "picture"]
    assert main([*words, "--resize", "16,20"]) == 0
    classifier = load_model(tmp_path / "bundle")
    assert classifier.steps == (*preset("picture", 2), Resize(spatial_size=(16, 20), mode="linear"))
    assert len(predict(np.random.default_rng(0).random((40, 50)), classifier).logits) == 2
