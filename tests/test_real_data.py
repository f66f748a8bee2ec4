"""Real scans, and a real 3D classifier: read, classified, explained and saved in three ways."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from helpers import write_bundle

from napari_xai_med import Image, explain, load_model, predict, read_image
from napari_xai_med.cli import main
from napari_xai_med.grid import Grid
from napari_xai_med.io.nifti import save_nifti
from napari_xai_med.models.guards import doubts

Folder = Callable[[str], Path]

VOLUMES = {
    "mosmed_thesis": ("*.nii.gz", 12),
    "msd_hippocampus": ("images/*.nii.gz", None),
    "ct_totalsegmentator": ("**/*.nii.gz", None),
    "niivue_volumes": ("*.nii.gz", 3),
}


def volumes(folder: Path, name: str) -> list[Path]:
    pattern, count = VOLUMES[name]
    files = sorted(folder.glob(pattern))
    assert files
    assert count is None or len(files) == count
    return files


@pytest.mark.slow
@pytest.mark.parametrize("name", VOLUMES)
def test_every_volume_by_script(name: str, shared_data: Folder, tmp_path: Path) -> None:
    """Also what is no CT: the answer means nothing there, but its place has to be right."""
    classifier = load_model("chest_ct_3d")
    for path in volumes(shared_data(name), name):
        image = read_image(path)
        attribution = explain(image, classifier, target="ground glass")
        source = nibabel.load(path)
        assert attribution.values.shape == source.shape[:3]
        save_nifti(tmp_path / "map.nii.gz", attribution.values, attribution.grid)
        saved = nibabel.load(tmp_path / "map.nii.gz")
        assert saved.shape == source.shape[:3]
        np.testing.assert_allclose(saved.affine, source.affine, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", VOLUMES)
def test_volumes_by_command_line(name: str, shared_data: Folder, tmp_path: Path) -> None:
    """All volumes, but of the 192 hippocampi every sixth."""
    for path in volumes(shared_data(name), name)[:: 6 if name == "msd_hippocampus" else 1]:
        code = main(["explain", str(path), "--model", "chest_ct_3d", "--out", str(tmp_path / path.name)])
        assert code == 0
        (heatmap,) = (tmp_path / path.name).glob("*.nii.gz")
        source, saved = nibabel.load(path), nibabel.load(heatmap)
        assert saved.shape == source.shape
        np.testing.assert_allclose(saved.affine, source.affine, atol=1e-3)
        (record,) = (tmp_path / path.name).glob("*.json")
        assert json.loads(record.read_text())["image"]["source"] == str(path)


_SEEN = {"msd_hippocampus": 24, "mosmed_thesis": 2, "ct_totalsegmentator": 2}


@pytest.mark.slow
@pytest.mark.parametrize("name", VOLUMES)
def test_volumes_by_widget(name: str, shared_data: Folder, tmp_path: Path, make_napari_viewer: Any, qtbot: Any) -> None:
    """All volumes, but of the 192 hippocampi every twenty-fourth, and of the large ones every second."""
    viewer = make_napari_viewer(show=True)
    _, widget = viewer.window.add_plugin_dock_widget("napari-xai-med", "Explain a classifier")
    for path in volumes(shared_data(name), name)[:: _SEEN.get(name, 1)]:
        (layer,) = viewer.open(str(path), plugin="napari-xai-med")
        widget.explain(layer, "chest_ct_3d")
        qtbot.waitUntil(lambda: not widget.task.running, timeout=120_000)
        heatmap = viewer.layers[-1]
        assert "Grad-CAM" in heatmap.name
        corner = np.array(layer.data.shape) - 1
        np.testing.assert_allclose(heatmap.data_to_world(corner), layer.data_to_world(corner))
        folder = tmp_path / path.name
        widget.save(str(folder))
        qtbot.waitUntil(lambda: not widget.task.running, timeout=120_000)
        source, saved = nibabel.load(path), nibabel.load(next(folder.glob("*.nii.gz")))
        assert saved.shape == source.shape
        np.testing.assert_allclose(saved.affine, source.affine, atol=1e-3)
        viewer.layers.clear()


@pytest.fixture(scope="module")
def luna(shared_data: Folder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The nodule network of dhammack's DSB2017 solution as a bundle; its patches are scaled already."""
    inference = {
        "network_def": {"_target_": "luna_network.LunaNodule"},
        "preprocessing": {"_target_": "Compose", "transforms": [{"_target_": "LoadImaged", "keys": "image"}]},
    }
    names = ("not malignant", "malignant")
    folder = tmp_path_factory.mktemp("bundles") / "luna"
    bundle = write_bundle(folder, inference, names, head="one_logit", output="o_mal", spatial_shape=[64, 64, 64])
    weights = shared_data("weights_luna_nodule_3d") / "luna_v29.pt"
    torch.save(torch.load(weights, weights_only=True), bundle / "models" / "model.pt")
    return bundle


@pytest.mark.parametrize(
    ("file", "fits"),
    [
        ("ct_totalsegmentator/example_ct.nii.gz", True),
        ("ct_totalsegmentator/example_ct_sm.nii.gz", True),
        ("ct_totalsegmentator/aorta_case/ct_cropped.nii.gz", True),
        ("ct_totalsegmentator/example_mr_sm.nii.gz", False),
        # Windowed to 0 to 1, with rounding below 0.
        ("mosmed_thesis/study_0255_resz.nii.gz", False),
        ("mosmed_thesis/study_0260_resz.nii.gz", False),
    ],
)
def test_hounsfield_units_are_told_from_other_values(file: str, fits: bool, shared_data: Folder) -> None:
    """Also in parts of a CT, a quarter as long along each axis, that may hold no air at all."""
    folder, _, name = file.partition("/")
    image = read_image(shared_data(folder) / name)
    classifier = load_model("chest_ct_3d")
    parts = [image]
    if fits:
        for corner in np.ndindex(4, 4, 4):
            cut = tuple(slice(n * k // 4, n * (k + 1) // 4) for n, k in zip(image.grid.shape, corner, strict=True))
            data = image.data[(slice(None), *cut)]
            parts.append(Image(data, Grid(data.shape[1:], image.grid.affine)))
    for part in parts:
        notices = " ".join(doubts(classifier, part, classifier.prepare(part)))
        assert ("takes CT in Hounsfield units" in notices) is not fits


@pytest.mark.parametrize(("patch", "logit"), [("positive", 0.98), ("negative", -5.60)])
def test_the_lung_nodule_network_answers_as_published(
    luna: Path, shared_data: Folder, patch: str, logit: float
) -> None:
    data = np.load(shared_data("luna_patches") / f"{patch}_patch.npy")
    prediction = predict(Image.from_array(data), load_model(luna, trust=True))
    assert prediction.logits[0] == pytest.approx(logit, abs=0.006)


def test_the_map_of_the_nodule_lies_on_the_nodule(luna: Path, shared_data: Folder) -> None:
    """The nodule is the bright ball at the centre of its patch; cells of the last convolution are 16 voxels."""
    data = np.load(shared_data("luna_patches") / "positive_patch.npy")
    attribution = explain(Image.from_array(data), load_model(luna, trust=True), target="malignant")
    assert attribution.raw.shape == (4, 4, 4)
    np.testing.assert_allclose(attribution.raw_to_image[:3, 3], 7.5)
    peak = np.array(np.unravel_index(attribution.values.argmax(), data.shape))
    assert np.abs(peak - 31.5).max() <= 16
    ball = np.linalg.norm(np.indices(data.shape).T - 31.5, axis=-1).T < 8
    assert data[ball].mean() > 1.5 * data.mean(), "the nodule is there"
    assert attribution.values[ball].mean() > 1.5 * attribution.values.mean()


def test_a_foreign_network_needs_trust(luna: Path) -> None:
    from napari_xai_med.errors import UntrustedError

    with pytest.raises(UntrustedError, match=r"luna_network.LunaNodule"):
        load_model(luna)
