from __future__ import annotations

import numpy as np
import pytest
from label_maps import ball
from scipy import ndimage

from napari_xai_med.errors import InputError
from napari_xai_med.segments.body import body_mask

AIR, LUNG, FAT, MUSCLE = -1000, -850, -100, 40


def chest(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Noisy CT of a body with lungs, and a table that does not touch it."""
    body = ball(shape)
    lungs = ball(shape, 0.2)
    values = np.where(body, np.where(lungs, LUNG, np.where(ball(shape, 0.35), MUSCLE, FAT)), AIR)
    values[..., -2:, 5:-5] = FAT
    noisy = values + np.random.default_rng(0).normal(scale=30, size=shape)
    return noisy[None].astype(np.float32), body


@pytest.mark.parametrize("shape", [(64, 60), (6, 64, 60)])
def test_a_body_with_lungs_beside_a_table(shape: tuple[int, ...]) -> None:
    data, body = chest(shape)
    found = body_mask(data)
    # In a volume, only lungs that the slice's tissue surrounds are its holes.
    closed = np.stack([ndimage.binary_fill_holes(each) for each in body]) if len(shape) == 3 else body
    assert np.count_nonzero(found ^ closed) < 0.01 * np.count_nonzero(closed)
    np.testing.assert_array_equal(body_mask(-data, bright=True), found)
    # Two of a power: rounds alike.
    np.testing.assert_array_equal(body_mask(data * 4), found)
    np.testing.assert_array_equal(body_mask(np.repeat(data, 4, axis=0)), found)


def test_a_head_in_mr() -> None:
    """Scalp, black skull, brain and a tumour eight times as bright: the head is whole, and no text is in it."""
    shape = (80, 80)
    head, skull, brain = ball(shape, 0.45), ball(shape, 0.4), ball(shape, 0.35)
    values = np.where(brain, 100, np.where(skull, 4, np.where(head, 120, 4))).astype(np.float32)
    values[30:45, 30:45] = 800
    values[2:5, 2:9] = 800
    found = body_mask(values[None])
    np.testing.assert_array_equal(found, head)


def test_a_frame_holds_nothing() -> None:
    values = np.where(ball((50, 50), 0.3), 100.0, 0.0).astype(np.float32)
    values[[0, -1]] = values[:, [0, -1]] = 100
    np.testing.assert_array_equal(body_mask(values[None]), ball((50, 50), 0.3))


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (1, 30, 30), (5, 1, 30), (2, 2)])
def test_thin_images(shape: tuple[int, ...]) -> None:
    data = np.zeros((1, *shape), np.float32)
    with pytest.raises(InputError, match=r"same value everywhere; choose another image, or draw the mask\.$"):
        body_mask(data)
    if data.size > 1:
        data[..., -1:] = 3
        data[..., :1] = 0 if data.shape[-1] > 1 else data[..., :1]
        if np.ptp(data):
            np.testing.assert_array_equal(body_mask(data), data[0] > 0)


def test_black_slices_have_no_body() -> None:
    data, _ = chest((6, 64, 60))
    data[:, 2] = AIR
    found = body_mask(data)
    assert not found[2].any()
    assert found.any()
