from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from napari_xai_med import classifier_from_module, explain, predict
from napari_xai_med.errors import InputError, ModelError
from napari_xai_med.models.architectures import build
from napari_xai_med.models.formats.base import Gives
from napari_xai_med.models.pack import Packing, pack
from napari_xai_med.preprocessing.presets import preset
from napari_xai_med.preprocessing.steps import Resize
from napari_xai_med.samples import sample_files

SIZES = {2: (64, 64), 3: (32, 32, 32)}
IMAGES = {2: sample_files("slice_nodule")[0], 3: sample_files("chest_ct_lesion")[0]}
NETWORKS = ("densenet121", "resnet10", "seresnet50", "efficientnet_b0", "vit")
SMALL_VIT = {"hidden_size": 48, "mlp_dim": 96, "num_layers": 2, "num_heads": 4}


def save(network: nn.Module, path: Path, example: torch.Tensor) -> None:
    if path.suffix == ".ts":
        torch.jit.trace(network, example, check_trace=False).save(path)
    elif path.suffix == ".pt2":
        batch = {0: torch.export.Dim("batch", min=1, max=64)}
        torch.export.save(torch.export.export(network, (example,), dynamic_shapes=(batch,)), path)
    else:
        pytest.importorskip("onnx")
        torch.onnx.export(network, (example,), path, dynamo=False, dynamic_axes={"x": {0: "n"}}, input_names=["x"])


@pytest.mark.parametrize("suffix", [".ts", ".pt2", ".onnx"])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_files_with_their_network_pack_and_answer_as_before(name: str, dims: int, suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    options = {"image_size": SIZES[dims], **SMALL_VIT} if name == "vit" else {}
    network = build(name, spatial_dims=dims, **options).eval()
    steps = (*preset("ct", dims), Resize(spatial_size=SIZES[dims], mode="bilinear" if dims == 2 else "trilinear"))
    classes = ("normal", "lesion")
    before = predict(IMAGES[dims], classifier_from_module(network, classes), preprocessing=steps)
    path = tmp_path / f"net{suffix}"
    save(network, path, torch.rand(2, 1, *SIZES[dims]))
    packing = Packing(weights=path, class_names=classes, preprocessing=steps, input_shape=(1, *SIZES[dims]))
    classifier = pack(packing, tmp_path / "bundle")
    after = predict(IMAGES[dims], classifier)
    np.testing.assert_allclose(after.logits, before.logits, rtol=1e-5, atol=1e-5)
    if Gives.LAYERS in classifier.gives and name != "vit":
        assert np.isfinite(explain(IMAGES[dims], classifier).values).all()
    else:
        assert name == "vit" or suffix == ".ts"


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
