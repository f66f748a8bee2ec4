from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from helpers import MeanOf, centre_of_mass, classifier_of, ones, random_affine
from monai.networks.nets import ViT
from monai.transforms import Orientationd
from napari.layers import Image as ImageLayer
from napari.layers import Layer
from PIL import Image as Picture
from torch import nn

from napari_xai_med import Image, feature_maps, load_model, read_image
from napari_xai_med.cli import main
from napari_xai_med.errors import Cancelled, InputError, ModelError
from napari_xai_med.figures_inside import MOST, contact_sheet
from napari_xai_med.grid import Grid
from napari_xai_med.inside import by_strength, central_slices
from napari_xai_med.io.nifti import Volumes
from napari_xai_med.job import Job
from napari_xai_med.layers import LayerView
from napari_xai_med.layers_images import volumes_to_layer
from napari_xai_med.layers_inside import layer_on
from napari_xai_med.pipeline import network_view
from napari_xai_med.request import ExplainRequest
from napari_xai_med.samples import sample_files

LESION, NODULE = (str(sample_files(name)[0]) for name in ("chest_ct_lesion", "slice_nodule"))


def identity(dims: int) -> nn.Module:
    return MeanOf(ones((nn.Conv2d, nn.Conv3d)[dims - 2](1, 1, 1)))


@pytest.mark.parametrize(("path", "dims"), [(LESION, 3), (NODULE, 2), (LESION, 2)], ids=["3d", "2d", "slice"])
def test_maps_lie_where_the_network_sees_the_image(path: str, dims: int) -> None:
    """Of a network that changes nothing the map is its input, value for value and place for place."""
    image = read_image(path)
    place = {"plane": "coronal", "slice": 30} if dims < image.ndim else {}
    classifier = classifier_of(identity(dims), dims)
    maps = feature_maps(image, classifier, "features.0", **place)
    seen = network_view(image, classifier, ExplainRequest(**place), Job())
    np.testing.assert_allclose(maps.data, seen.data, rtol=1e-6)
    np.testing.assert_array_equal(maps.grid.affine, seen.grid.affine)
    assert maps.grid.shape == seen.grid.shape


@pytest.mark.parametrize("seed", range(5))
def test_a_blob_comes_back_at_its_place_in_the_patient(seed: int) -> None:
    """Even on both sides of the cells that are halved, so that its centre stays."""
    random = np.random.default_rng(seed)
    affine = random_affine(random)
    data = np.zeros((1, 24, 28, 32), np.float32)
    data[0, 9:13, 10:16, 15:19] = 1
    image = Image(data, Grid(data.shape[1:], affine))
    network = MeanOf(ones(nn.Conv3d(1, 1, 2, 2)), ones(nn.Conv3d(1, 1, 3, 1, 1)))
    steps = [Orientationd("image", "LPS", labels=None)]
    maps = feature_maps(image, classifier_of(network, 3, steps=steps), "features.1")
    found = centre_of_mass(maps.data[0], maps.grid.affine)
    np.testing.assert_allclose(found, centre_of_mass(data[0], affine), atol=1e-4 * np.abs(affine).max())
    assert maps.grid.shape != image.grid.shape


def test_the_default_is_the_last_convolution_and_each_layer_is_what_a_hook_sees() -> None:
    classifier, image = load_model("chest_ct_3d", device="cpu"), read_image(LESION)
    caught: list[torch.Tensor] = []
    layer = classifier.network.get_submodule("features.3.conv")
    handle = layer.register_forward_hook(lambda _m, _i, out: caught.append(out.clone()))
    with torch.no_grad():
        classifier.network(classifier.prepare(image).tensor)
    handle.remove()
    maps = feature_maps(image, classifier)
    np.testing.assert_allclose(maps.data, caught[0][0], rtol=1e-5, atol=1e-6)
    assert "features.3.conv" in maps.name
    strength = [float(np.abs(maps.data[k]).mean()) for k in by_strength(maps)]
    assert strength == sorted(strength, reverse=True)


def test_tokens_are_maps_as_well() -> None:
    network = nn.Sequential(ViT(1, (16, 24), 8, 12, 24, 1, 3, spatial_dims=2), Mean())
    maps = feature_maps(np.random.default_rng(0).random((16, 24)), classifier_of(network, 2, 12), "0.norm")
    assert maps.data.shape == (12, 2, 3)
    np.testing.assert_array_equal(maps.grid.to_world((0, 0)), (3.5, 3.5))


class Mean(nn.Module):
    def forward(self, x: Any) -> torch.Tensor:
        return x[0].mean(1)


def test_the_middle_of_a_volume_and_the_only_slice_are_shown() -> None:
    data = np.arange(2 * 4 * 5 * 6, dtype=np.float32).reshape(2, 4, 5, 6)
    volume = Image.from_array(data, (3, 2, 1), channel_axis=0)
    slices, aspect = central_slices(volume)
    np.testing.assert_array_equal(slices, data[:, 2])
    assert aspect == 2
    slab = Image(data[..., 3:4], volume.grid.slab(2, 3))
    np.testing.assert_array_equal(central_slices(slab)[0], data[..., 3])


@pytest.mark.parametrize(
    ("layer", "changes", "error", "sentence"),
    [
        ("x", {}, InputError, r"no feature maps at layer 'x'; its convolutions are features\.0"),
        ("", {"gives": frozenset()}, ModelError, "gives no layers"),
        ("", {"windows": {"roi_size": [4, 4], "aggregate": "mean"}}, InputError, "window of 4 x 4 voxels"),
    ],
)
def test_what_can_not_be_is_one_sentence(layer: str, changes: Any, error: type, sentence: str) -> None:
    from napari_xai_med.models.sliding_window import SlidingWindow

    if "windows" in changes:
        changes = {"windows": SlidingWindow.from_dict(changes["windows"])}
    with pytest.raises(error, match=sentence):
        feature_maps(np.zeros((8, 8)), classifier_of(identity(2), 2, **changes), layer)


def test_cancelling_leaves_no_hook() -> None:
    class Token:
        asked = 0

        def is_set(self) -> bool:
            self.asked += 1
            return self.asked > 3

    network = identity(2)
    with pytest.raises(Cancelled):
        feature_maps(np.zeros((8, 8)), classifier_of(network, 2), cancel=Token())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def oblique() -> Any:
    affine = random_affine(np.random.default_rng(3))
    data = np.random.default_rng(0).random((1, 1, 8, 10, 12)).astype(np.float32)
    return Layer.create(*volumes_to_layer(Volumes(data, Grid((8, 10, 12), affine), ()), "oblique", ""))


def plain(*shape: int, **options: Any) -> ImageLayer:
    return ImageLayer(np.random.default_rng(0).random(shape), rgb=False, **options)


MOVED = {"scale": (3, 1.5, 2), "translate": (5, -7, 9), "rotate": (10, 20, 30), "units": ("mm",) * 3}
SOURCES: dict[str, tuple[Any, str, int]] = {
    "2d": (lambda: plain(8, 10, scale=(0.5, 2)), "YX", 0),
    "moved": (lambda: plain(8, 10, 12, **MOVED), "ZYX", 0),
    "centimetres": (lambda: plain(8, 10, 12, scale=(3, 1, 2), units=("cm",) * 3), "ZYX", 0),
    "oblique": (oblique, "ZYX", 0),
    "volumes": (lambda: plain(3, 8, 10, 12, scale=(2, 3, 1, 2)), "TZYX", 1),
    "channels first": (lambda: plain(2, 8, 10), "CYX", 0),
    "channels last": (lambda: plain(8, 10, 12, 2), "ZYXC", 0),
}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("stacked", [False, True])
def test_layers_lie_exactly_on_their_source(name: str, stacked: bool) -> None:
    """Maps of halved resolution: their voxel k lies at voxel 2k + 0.5 of the layer, wherever that is."""
    make, axes, volume = SOURCES[name]
    source = make()
    view = LayerView(source, axes, volume)
    image = view.image()
    kind = (nn.Conv2d, nn.Conv3d)[image.ndim - 2]
    network = MeanOf(kind(len(image.data), 4, 2, 2))
    maps = feature_maps(image, classifier_of(network, image.ndim, channels=len(image.data)), "features.0")
    data, options, _ = layer_on(view, maps, [2, 3] if stacked else [2])
    layer = ImageLayer(data, **options)
    assert layer.ndim == source.ndim + stacked
    for corner in ([0] * source.ndim, [k % 3 for k in range(source.ndim)]):
        own = np.array(corner, float)
        there = np.array(corner, float)
        for k, letter in enumerate(axes[: source.ndim]):
            if letter == "T":
                own[k], there[k] = 0, volume
            elif letter != "C":
                there[k] = 2 * own[k] + 0.5
            else:
                own[k] = there[k] = min(own[k], 1)
        found = layer.data_to_world([1, *own] if stacked else own)[int(stacked) :]
        np.testing.assert_allclose(found, source.data_to_world(there), atol=1e-6)
    turned = image if view.turn is None else image.reoriented(view.turn)
    halved = maps if view.turn is None else maps.reoriented(view.turn)
    assert turned.ndim == halved.ndim
    first = np.asarray(layer.data)[0] if stacked else np.asarray(layer.data)
    index = tuple(0 if letter in "TC" else slice(None) for letter in axes[: source.ndim])
    np.testing.assert_array_equal(first[index], halved.data[2])


def test_files_hold_a_volume_for_each_channel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["features", LESION, "--model", "chest_ct_3d", "--layer", "features.1.conv", "--out", str(tmp_path)]) == 0
    )
    out, maps = capsys.readouterr().out, feature_maps(LESION, "chest_ct_3d", "features.1.conv")
    assert f"32 maps of {' x '.join(map(str, maps.grid.shape))}\n" in out
    assert "Research use only" in out
    (path,) = tmp_path.glob("*.nii.gz")
    file = nibabel.load(path)
    np.testing.assert_allclose(file.get_fdata(), np.moveaxis(maps.data, 0, -1), rtol=1e-6)
    np.testing.assert_allclose(file.affine, maps.grid.affine, atol=1e-4)
    again = read_image(path, volume=5)
    np.testing.assert_allclose(again.data[0], maps.data[5], rtol=1e-6)
    assert Picture.open(next(tmp_path.glob("*.png"))).size[0] > 500


@pytest.mark.parametrize("image", [NODULE, LESION], ids=["picture", "slice"])
def test_files_of_2d_networks(image: str, tmp_path: Path) -> None:
    words = ["features", image, "--model", "chest_ct_2d", "--layer", "features.0", "--out", str(tmp_path)]
    assert main([*words, "--slice", "20"]) == 0
    (path,) = tmp_path.glob("*.nii.gz")
    assert sorted(nibabel.load(path).shape) == [1, 16, 48, 48]


def test_a_sheet_tells_what_it_leaves_out() -> None:
    random = np.random.default_rng(0)
    figure = contact_sheet(Image.from_array(random.random((MOST + 6, 4, 5)), channel_axis=0))
    assert f"{MOST + 6} channels, the {MOST} most active ones" in figure.get_suptitle()
    assert len([ax for ax in figure.axes if ax.images]) == MOST


def test_a_folder_that_can_not_be_written_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["features", NODULE, "--model", "chest_ct_2d", "--out", str(tmp_path / "file")]) == 2
    assert "can't be written" in capsys.readouterr().err
