from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from napari_xai_med.errors import ModelError
from napari_xai_med.preprocessing.base import transform_of
from napari_xai_med.preprocessing.steps import CropToBody, ReverseChannels, RoundToBytes, ToColours, ToGrey
from napari_xai_med.preprocessing.transforms import CropToBodyd


def placed(values: np.ndarray) -> MetaTensor:
    return MetaTensor(torch.as_tensor(values, dtype=torch.float32), affine=torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(40, 50), (30, 36, 28)])
def test_the_crop_is_the_box_around_the_largest_thing_and_knows_where_it_is(shape: tuple[int, ...]) -> None:
    values = np.full((1, *shape), -1000.0)
    body = tuple(slice(n // 4, 3 * n // 4) for n in shape)
    values[0][body] = 40
    # A hole belongs to the body, a thin line does not, nor does a smaller block that is brighter.
    values[0][tuple(slice(n // 4 + 5, n // 4 + 9) for n in shape)] = -1000
    values[0][(slice(None), *(0,) * (len(shape) - 1))] = 1000
    values[0][tuple(slice(n - 5, n) for n in shape)] = 3000
    cropped = transform_of([CropToBody(smoothing=0)], "test")(placed(values))
    assert cropped.shape[1:] == tuple(part.stop - part.start for part in body)
    starts = cropped.affine.numpy()[: len(shape), -1]
    np.testing.assert_array_equal(starts, [part.start for part in body])
    with_margin = transform_of([CropToBody(smoothing=0, margin=2, excludes_end=True)], "test")(placed(values))
    assert with_margin.shape[1:] == tuple(n + 3 for n in cropped.shape[1:])


def test_a_crop_of_nothing_keeps_the_image() -> None:
    values = placed(np.zeros((1, 20, 20)))
    assert transform_of([CropToBody(threshold=1.0)], "test")(values).shape == (1, 20, 20)


@pytest.mark.parametrize(("options", "size"), [({}, "1 x 1"), ({"excludes_end": True}, "0 x 0")])
def test_a_crop_to_almost_nothing_is_told(options: dict[str, bool], size: str) -> None:
    values = np.full((1, 20, 20), -1000.0)
    values[0, 7, 8] = 40
    told = rf"failed on this image: what is brighter than -500 is only {size} voxels; lower the threshold\.$"
    with pytest.raises(ModelError, match=told):
        transform_of([CropToBody(smoothing=0, opening=0, **options)], "test")(placed(values))


def test_smoothing_is_the_binomial_filter() -> None:
    """Two passes of (1, 2, 1) / 4 are (1, 4, 6, 4, 1) / 16, OpenCV's Gaussian of 5."""
    values = np.zeros((1, 30, 30))
    values[0, 10:20, 10:20] = 100
    kernel = np.array([1, 4, 6, 4, 1]) / 16
    smooth = ndimage.convolve1d(ndimage.convolve1d(values[0], kernel, 0), kernel, 1)
    for threshold in (5.0, 20.0, 60.0):
        box = CropToBodyd("image", threshold=threshold, opening=0)._box(values)
        inside = np.argwhere(smooth > threshold)
        assert box == (inside.min(0).tolist(), (inside.max(0) + 1).tolist())


def test_colours_are_weighted_repeated_and_reversed() -> None:
    colours = np.random.default_rng(0).random((3, 4, 5)) * 255
    image = placed(colours)
    grey = transform_of([ToGrey()], "test")(image)
    # The weights of PIL's "L", which rounds.
    np.testing.assert_allclose(grey[0], 0.299 * colours[0] + 0.587 * colours[1] + 0.114 * colours[2], rtol=1e-5)
    np.testing.assert_array_equal(transform_of([ReverseChannels()], "test")(image), np.float32(colours[::-1]))
    repeated = transform_of([ToColours()], "test")(grey)
    assert repeated.shape == (3, 4, 5)
    assert (repeated == grey).all()
    with_alpha = placed(np.concatenate([colours, np.full((1, 4, 5), 255)]))
    np.testing.assert_array_equal(transform_of([ToColours()], "test")(with_alpha), image)
    np.testing.assert_array_equal(transform_of([ToGrey()], "test")(with_alpha), grey)
    np.testing.assert_array_equal(transform_of([ToGrey()], "test")(grey), grey)
    rounded = transform_of([RoundToBytes()], "test")(placed(np.array([[[-3.0, 1.4, 1.6, 300.0]]])))
    assert rounded.flatten().tolist() == [0, 1, 2, 255]


def test_pil_makes_the_same_grey() -> None:
    from PIL import Image

    colours = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)
    expected = np.asarray(Image.fromarray(colours).convert("L"), float)
    found = transform_of([ToGrey()], "test")(placed(np.moveaxis(colours, -1, 0)))[0]
    assert np.abs(found.numpy() - expected).max() <= 0.51
