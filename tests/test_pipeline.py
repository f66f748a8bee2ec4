from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from helpers import MeanOf, centre_of_mass, classifier_of, ones, random_affine, world_of
from monai.transforms import CenterSpatialCropd, Flipd, Orientationd, Resized, Spacingd, SpatialPadd
from napari.layers import Image as ImageLayer
from torch import nn

from napari_xai_med import Image, explain, load_model, predict
from napari_xai_med.errors import Cancelled, InputError
from napari_xai_med.grid import Grid, Reorientation
from napari_xai_med.io.nifti import Volumes
from napari_xai_med.io.results import save_results
from napari_xai_med.layers import LayerView
from napari_xai_med.layers_images import volumes_to_layer
from napari_xai_med.preprocessing.base import read_steps
from napari_xai_med.preprocessing.steps import Flip
from napari_xai_med.samples import sample_files

K = {"keys": "image"}
SIZES = ((33, 40, 27), (41, 29, 36), (30, 30, 45), (25, 47, 38))


def planted(seed: int) -> tuple[Image, np.ndarray]:
    """A soft ball somewhere near the middle of a volume that lies anywhere, and its centre in the world."""
    random = np.random.default_rng(seed)
    shape, affine = SIZES[seed % len(SIZES)], random_affine(random)
    index = (np.array(shape) - 1) / 2 + random.uniform(-2, 2, 3)
    centre = affine[:3, :3] @ index + affine[:3, 3]
    # A ball in voxels, so that neither its width nor its distance to the border depends on the spacing.
    local = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1) - index
    values = np.exp(-((local / 2.2) ** 2).sum(-1) / 2)
    values[values < 1e-3] = 0
    return Image(values[None].astype(np.float32), Grid(shape, affine), "ball"), centre


def steps_for(seed: int, image: Image) -> list[Any]:
    """Four kinds of preprocessing: resized, resampled to a spacing, cropped and padded, and flipped."""
    spacing = float(np.mean(image.grid.spacing))
    longest = max(image.grid.shape)
    return [
        [Orientationd(**K, axcodes="RAS", labels=None), Resized(**K, spatial_size=(40, 36, 44), mode="trilinear")],
        [Spacingd(**K, pixdim=(spacing,) * 3)],
        [
            CenterSpatialCropd(**K, roi_size=[n - 3 for n in image.grid.shape]),
            SpatialPadd(**K, spatial_size=(longest + 4,) * 3),
        ],
        [
            Orientationd(**K, axcodes="LPI", labels=None),
            Flipd(**K, spatial_axis=(0, 2)),
            Resized(**K, spatial_size=(30, 41, 35), mode="trilinear"),
        ],
    ][seed // 5 % 4]


NETWORKS = (
    lambda: MeanOf(ones(nn.Conv3d(1, 1, 1))),
    lambda: MeanOf(ones(nn.Conv3d(1, 1, 3, 2))),
    lambda: MeanOf(ones(nn.Conv3d(1, 1, 2, 2))),
    lambda: MeanOf(ones(nn.Conv3d(1, 1, 3)), ones(nn.Conv3d(1, 1, 4, 2, 1))),
    lambda: MeanOf(ones(nn.Conv3d(1, 1, 5, 2, 0)), nn.ReLU(), nn.ConstantPad3d((0, 1, 0, 1, 0, 1), 0.0)),
)


@pytest.mark.parametrize("seed", range(20))
def test_a_planted_ball_is_found_where_it_is(seed: int, tmp_path: Path) -> None:
    """In the attribution, in the saved NIfTI and in the layer: within half a voxel of the coarser grid."""
    image, truth = planted(seed)
    classifier = classifier_of(NETWORKS[seed % 5](), 3, steps=steps_for(seed, image))
    attribution = explain(image, classifier, target=1)
    cells = image.grid.affine @ attribution.raw_to_image
    coarser = np.maximum(np.linalg.norm(cells[:3, :3], axis=0).max(), np.max(image.grid.spacing)) / 2

    found = centre_of_mass(attribution.values, image.grid.affine)
    assert np.linalg.norm(found - truth) < coarser
    # And along every axis by itself, in cells of the map or in voxels of the image, whichever are coarser.
    error = found - truth
    in_cells, in_voxels = (np.abs(np.linalg.solve(m[:3, :3], error)) for m in (cells, image.grid.affine))
    assert (np.minimum(in_cells, in_voxels) < 0.5).all()

    saved = nibabel.load(save_results(image, attribution, tmp_path).heatmap)
    assert saved.shape == image.grid.shape
    np.testing.assert_allclose(saved.affine, image.grid.affine, atol=1e-3)
    np.testing.assert_allclose(centre_of_mass(saved.get_fdata(), saved.affine), found, atol=1e-2)

    volumes = Volumes(image.data[None], image.grid, ())
    data, options, _ = volumes_to_layer(volumes, "ball", "")
    view = LayerView(ImageLayer(data, **options), "ZYX")
    shown = explain(view.image(), classifier, target=1)
    placed, place = view.place(shown.values, shown.grid)
    layer = ImageLayer(placed, **place)
    grid = LayerView(layer, "ZYX").grid(layer.data.shape)
    assert np.linalg.norm(centre_of_mass(layer.data, grid.affine) - truth) < coarser
    origin, corner = np.zeros(3), np.array(layer.data.shape) - 1
    np.testing.assert_allclose(layer.data_to_world(origin), view.layer.data_to_world(origin))
    np.testing.assert_allclose(layer.data_to_world(corner), view.layer.data_to_world(corner))


def test_the_map_is_zero_outside_what_the_network_saw() -> None:
    image = Image.from_array(np.ones((20, 20, 20)))
    classifier = classifier_of(
        MeanOf(ones(nn.Conv3d(1, 1, 1))), 3, steps=[CenterSpatialCropd(**K, roi_size=(10, 10, 10))]
    )
    values = explain(image, classifier, target=1).values
    assert values[5:15, 5:15, 5:15].min() > 0
    assert values.sum() == pytest.approx(values[5:15, 5:15, 5:15].sum())


def test_a_map_that_is_zero_everywhere_says_so() -> None:
    image = Image.from_array(np.random.default_rng(0).uniform(size=(12, 12, 12)))
    attribution = explain(image, classifier_of(MeanOf(ones(nn.Conv3d(1, 1, 3))), 3), target="class 0")
    assert attribution.is_zero
    assert attribution.display_limits == (0, 1)
    assert "is zero everywhere: as this method sees it, nothing speaks for class 0" in attribution.notices[0]


def test_without_a_target_the_most_probable_class_is_explained() -> None:
    image = Image.from_array(np.ones((12, 12, 12)))
    attribution = explain(image, classifier_of(MeanOf(ones(nn.Conv3d(1, 1, 3))), 3))
    assert attribution.class_name == "class 1" == attribution.prediction.ranked[0][0]


@pytest.mark.parametrize(("plane", "axis"), [("axial", 0), ("coronal", 1), ("sagittal", 2)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_slice_of_a_volume_is_explained_in_its_place(plane: str, axis: int, seed: int) -> None:
    """A bright spot in one slice: its map lies there in the world, on a slab of the image's own grid."""
    random = np.random.default_rng(seed)
    affine = random_affine(random, 10)
    image = Image(np.zeros((1, 20, 22, 24), np.float32), Grid((20, 22, 24), affine))
    spot = (9, 12, 10)
    image.data[(0, *spot)] = 1
    turn = Reorientation.between(image.grid)
    shown = np.argwhere(turn.array(image.data[0]) == 1)[0]
    classifier = classifier_of(MeanOf(ones(nn.Conv2d(1, 1, 3, 1, 1))), 2)
    attribution = explain(image, classifier, target=1, plane=plane, slice=int(shown[axis]))
    assert sorted(attribution.values.shape)[0] == 1
    found = centre_of_mass(attribution.values, attribution.grid.affine)
    np.testing.assert_allclose(found, image.grid.to_world(spot), atol=1e-6)
    elsewhere = explain(image, classifier, target=1, plane=plane, slice=int(shown[axis]) + 1)
    assert elsewhere.is_zero


def test_a_volume_needs_a_slice_for_a_2d_classifier() -> None:
    classifier = classifier_of(MeanOf(ones(nn.Conv2d(1, 1, 1))), 2)
    with pytest.raises(InputError, match="choose a slice from 0 to 4"):
        explain(np.ones((5, 6, 7)), classifier)
    with pytest.raises(InputError, match="Slice 5 is not in the image; choose 0 to 4"):
        explain(np.ones((5, 6, 7)), classifier, slice=5)
    with pytest.raises(InputError, match="no plane 'diagonal'"):
        predict(np.ones((5, 6, 7)), classifier, plane="diagonal", slice=1)


def test_unknown_methods_options_and_classes_are_one_sentence() -> None:
    classifier = classifier_of(MeanOf(ones(nn.Conv3d(1, 1, 1))), 3)
    image = np.ones((5, 6, 7))
    with pytest.raises(InputError, match=r"no method 'magic'; choose one of .*gradcam"):
        explain(image, classifier, "magic")
    with pytest.raises(InputError, match="Grad-CAM has no option 'colour'; it has layer"):
        explain(image, classifier, colour=1)
    with pytest.raises(InputError, match="no class 'tumour'; choose one of class 0, class 1"):
        explain(image, classifier, target="tumour")


def test_progress_rises_to_one_and_cancel_stops() -> None:
    seen: list[float] = []
    classifier = classifier_of(MeanOf(ones(nn.Conv3d(1, 1, 1))), 3)
    explain(np.ones((5, 6, 7)), classifier, progress=lambda done, _: seen.append(done))
    assert seen == sorted(seen)
    assert seen[-1] == 1

    class Set:
        def is_set(self) -> bool:
            return True

    with pytest.raises(Cancelled):
        explain(np.ones((5, 6, 7)), classifier, cancel=Set())


def test_the_image_is_not_changed_and_the_input_is_what_the_network_saw() -> None:
    image, _ = planted(1)
    before = image.data.copy()
    classifier = classifier_of(MeanOf(ones(nn.Conv3d(1, 1, 1))), 3, steps=steps_for(0, image))
    prediction = predict(image, classifier)
    np.testing.assert_array_equal(image.data, before)
    seen = prediction.network_input
    assert tuple(seen.tensor.shape) == (1, 1, 40, 36, 44)
    # Corners of both grids' extents meet: half a voxel beyond the outermost centres.
    world = world_of((2, 2, 2), np.eye(4))
    corners = world * np.array(seen.tensor.shape[2:]) - 0.5
    placed = corners @ seen.to_image[:3, :3].T + seen.to_image[:3, 3]
    assert placed.min() == pytest.approx(-0.5, abs=1e-3)
    np.testing.assert_allclose(
        np.sort(placed.reshape(-1, 3).max(0)), np.sort(np.array(image.grid.shape) - 0.5), atol=1e-3
    )


def test_answers_repeat_bit_for_bit() -> None:
    image, _ = planted(2)
    torch.manual_seed(0)
    classifier = classifier_of(
        nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2)), 3
    )
    one, two = explain(image, classifier, target=0), explain(image, classifier, target=0)
    assert one.record.result["sha256"] == two.record.result["sha256"]
    np.testing.assert_array_equal(one.values, two.values)


def test_the_record_tells_the_preprocessing_that_was_used() -> None:
    classifier, image = load_model("chest_ct_2d"), sample_files("slice_nodule")[0]
    changed = classifier.with_steps([*(classifier.steps or ()), Flip(spatial_axis=(0,))])
    for used in (classifier, changed):
        told = explain(image, used).record.model["preprocessing"]
        assert read_steps(told) == used.steps
