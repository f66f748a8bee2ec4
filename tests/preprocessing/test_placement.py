from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import MeanOf, classifier_of, ones
from monai import transforms as monai
from torch import nn

from napari_xai_med import explain, predict
from napari_xai_med.errors import ModelError
from napari_xai_med.image import Image
from napari_xai_med.preprocessing.base import steps, transform_of
from napari_xai_med.preprocessing.placement import misplaces
from napari_xai_med.preprocessing.presets import PRESETS, preset

LOST = "moves voxels without telling where to, so that maps would lie at a wrong place; use transforms of MONAI"


def affine_of(dims: int) -> Any:
    return Image.from_array(np.zeros((1,) * dims)).grid.affine


def wrong(dims: int) -> dict[str, Any]:
    axes = {2: [0, 2, 1], 3: [0, 2, 1, 3]}[dims]
    return {
        "transposed": monai.Transpose(axes),
        "mirrored": lambda image: image.flip(2),
        "shifted": lambda image: torch.roll(image, 4, 1),
        "cut": lambda image: image[:, 4:],
        "cut and mirrored": monai.Compose([monai.CenterSpatialCrop(12), lambda image: image.flip(2)]),
        "behind others": monai.Compose([monai.Resize([20] * dims), monai.ScaleIntensity(), monai.Transpose(axes)]),
    }


def right(dims: int) -> dict[str, Any]:
    return {
        "none": lambda image: image,
        "values": lambda image: image * 2 + 1,
        "smooth": monai.GaussianSmooth(2.0),
        "edges": monai.SobelGradients(),
        "at random": monai.RandFlip(0.5),
        "noise": monai.RandGaussianNoise(prob=1),
        "turned": monai.Rotate90(),
        "rotated": monai.Rotate([0.3] * (1 if dims == 2 else 3)),
        "very small": monai.Resize([6] * dims),
        "off by half a voxel": monai.Resize([9] * dims, mode="nearest"),
        "aligned corners": monai.Resize([20] * dims, mode="bilinear", align_corners=True),
        "middle": monai.CenterSpatialCrop(24),
        "little of the middle": monai.CenterSpatialCrop(10),
        "a corner": monai.SpatialCrop(roi_start=[20] * dims, roi_end=[30] * dims),
        "foreground": monai.CropForeground(),
        "padded": monai.DivisiblePad(32),
        "fails": monai.SpatialCrop(roi_start=[900] * dims, roi_end=[800] * dims),
        "without affine": lambda image: image.as_tensor(),
    }


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", wrong(3))
def test_what_moves_voxels_and_keeps_the_affine_is_found_and_refused(name: str, dims: int) -> None:
    transform = wrong(dims)[name]
    assert misplaces(transform, 1, affine_of(dims))
    # As long along each axis, so that no shape shows it.
    image = np.random.default_rng(0).random((12,) * dims).astype(np.float32)
    network = MeanOf(ones((nn.Conv2d, nn.Conv3d)[dims - 2](1, 1, 1)))
    for ask in (predict, explain):
        with pytest.raises(ModelError, match=LOST):
            ask(image, classifier_of(network, dims, preprocessing=transform))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", right(3))
def test_what_carries_the_affine_along_is_not(name: str, dims: int) -> None:
    assert not misplaces(right(dims)[name], 1, affine_of(dims))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", [*steps(), *PRESETS])
def test_steps_and_presets_are_not(name: str, dims: int) -> None:
    sizes = {"resize": {"spatial_size": (30,) * dims}, "pad_or_crop": {"spatial_size": (30,) * dims}}
    sizes["spacing"] = {"pixdim": (1.7,) * dims}
    chosen = [steps()[name](**sizes.get(name, {}))] if name in steps() else preset(name, dims)
    channels = 3 if name in ("standardise", "to_grey") else 1
    assert not misplaces(transform_of(chosen, "test"), channels, affine_of(dims))


@pytest.mark.filterwarnings("ignore:After SqueezeDim")
def test_a_preprocessing_that_takes_an_axis_away_is_refused() -> None:
    image = np.random.default_rng(0).random((12, 10, 1)).astype(np.float32)
    classifier = classifier_of(MeanOf(ones(nn.Conv3d(1, 1, 1))), 3, preprocessing=monai.SqueezeDim(-1))
    with pytest.raises(ModelError, match="makes 2D images of 3D ones, so that maps would have no place"):
        predict(image, classifier)
