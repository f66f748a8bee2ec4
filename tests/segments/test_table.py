from __future__ import annotations

import numpy as np
import pytest
from label_maps import texture
from scipy import ndimage

from napari_xai_med.segments.given import given_segments
from napari_xai_med.segments.table import segments_table


@pytest.mark.parametrize(
    ("shape", "spacing", "size"),
    [
        ((20, 30), (2.0, 0.5), "size_mm2"),
        ((20, 30), None, "size_px"),
        ((5, 12, 9), (4.0, 0.5, 1.5), "size_mL"),
        ((5, 12, 9), None, "size_px"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_against_scipy(shape: tuple[int, ...], spacing: tuple[float, ...] | None, size: str, channels: int) -> None:
    labels = np.random.default_rng(0).integers(0, 6, shape).astype(np.int32)
    data = texture(shape, channels)
    table = segments_table(labels, data, spacing)
    index = np.arange(6)
    axes = [f"centroid_{axis}" for axis in "zyx"[-len(shape) :]]
    several = [f"mean_intensity_{k}" for k in range(channels)] if channels > 1 else []
    assert list(table.columns) == ["segment", size, "mean_intensity", *several, *axes]
    assert list(table.index) == list(table["segment"]) == list(index)
    voxel = 1.0 if spacing is None else np.prod(spacing) / (1000 if len(shape) == 3 else 1)
    np.testing.assert_allclose(table[size], ndimage.sum(np.ones(shape), labels, index) * voxel)
    np.testing.assert_allclose(table["mean_intensity"], ndimage.mean(data.mean(0), labels, index), rtol=1e-4)
    for k, name in enumerate(several):
        np.testing.assert_allclose(table[name], ndimage.mean(data[k], labels, index), rtol=1e-6)
    np.testing.assert_allclose(table[axes], ndimage.center_of_mass(np.ones(shape), labels, index))


def test_a_background_without_voxels_has_no_means() -> None:
    table = segments_table(np.array([[1, 2]], np.int32), np.array([[[3, 4]]], np.float32), (1.0, 1.0))
    assert table["size_mm2"].tolist() == [0, 1, 1]
    assert table.loc[0, ["mean_intensity", "centroid_y", "centroid_x"]].isna().all()
    assert not table.loc[1:].isna().any(axis=None)


def test_it_is_the_features_of_a_labels_layer() -> None:
    from napari.layers import Labels

    labels = np.array([[0, 1], [2, 2]], np.int32)
    layer = Labels(labels, features=segments_table(labels, texture((2, 2)), (1.0, 1.0)))
    assert layer.features["size_mm2"].tolist() == [1, 1, 2]


def test_segments_of_a_label_map_keep_their_labels() -> None:
    labels = np.array([[0, 52, 52], [20, 0, 117]])
    found = given_segments(labels)
    table = segments_table(found.labels, np.zeros((1, 2, 3), np.float32), original=found.facts["original"])
    assert table.columns[:2].tolist() == ["segment", "label"]
    assert table["label"].tolist() == [0, 20, 52, 117]
    assert "label" not in segments_table(found.labels, np.zeros((1, 2, 3), np.float32))
