from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
from helpers import random_affine
from napari.layers import Image as ImageLayer
from napari.layers import Labels

from napari_xai_med.errors import InputError
from napari_xai_med.grid import RAS_TO_DISPLAY, Grid
from napari_xai_med.io.nifti import Volumes, save_nifti
from napari_xai_med.layers import METADATA_KEY, LayerView, possible_axes
from napari_xai_med.layers_images import percentile_limits, volumes_to_layer
from napari_xai_med.layers_metrics import map_in_layer
from napari_xai_med.layers_segments import LayerSegments
from napari_xai_med.plugin import get_reader, read_layer, write_image, write_labels


def volumes(affine: np.ndarray, shape: tuple[int, ...] = (1, 1, 5, 6, 7)) -> Volumes:
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return Volumes(data, Grid(shape[2:], affine), ())


@pytest.mark.parametrize("seed", range(6))
def test_every_voxel_of_a_straight_volume_is_shown_at_its_world_place(seed: int) -> None:
    affine = random_affine(np.random.default_rng(seed), 0)
    source = volumes(affine)
    layer = ImageLayer(*volumes_to_layer(source, "a", "")[:1], **volumes_to_layer(source, "a", "")[1])
    assert [str(u) for u in layer.units] == ["millimeter"] * 3
    assert layer.axis_labels == ("z", "y", "x")
    assert (np.array(layer.scale) > 0).all()
    for index in ((0, 0, 0), (4, 5, 6), (1, 3, 2)):
        world = RAS_TO_DISPLAY[:3, :3] @ source.grid.to_world(index)
        back = np.round(layer.world_to_data(world)).astype(int)
        assert layer.data[tuple(back)] == source.data[(0, 0, *index)]


@pytest.mark.parametrize("seed", range(6))
def test_a_layer_gives_the_true_grid_back_also_of_an_oblique_volume(seed: int) -> None:
    source = volumes(random_affine(np.random.default_rng(seed)))
    data, options, _ = volumes_to_layer(source, "a", "")
    view = LayerView(ImageLayer(data, **options), "ZYX")
    image = view.image()
    np.testing.assert_array_equal(image.data[0], source.data[0, 0])
    np.testing.assert_array_equal(image.grid.affine, source.grid.affine)
    if source.grid.is_oblique:
        assert "The scan is oblique" in view.notices[0]


def test_a_layer_that_the_user_moved_is_where_it_was_moved() -> None:
    source = volumes(random_affine(np.random.default_rng(1), 0))
    data, options, _ = volumes_to_layer(source, "a", "")
    layer = ImageLayer(data, **options)
    before = LayerView(layer, "ZYX").grid(data.shape)
    layer.translate = np.add(layer.translate, (10, 0, -3))
    after = LayerView(layer, "ZYX").grid(data.shape)
    # Napari's z is inferior, its x is left: to the feet by 10 mm and to the right by 3 mm.
    np.testing.assert_allclose(after.to_world([1, 2, 3]) - before.to_world([1, 2, 3]), (3, 0, -10), atol=1e-9)


def test_layers_of_other_readers_keep_their_own_transform() -> None:
    affine = np.array([[0, -2.0, 0, 5], [0.5, 0, 0, -3], [0, 0.1, 8.0, 1], [0, 0, 0, 1]])
    layer = ImageLayer(np.zeros((4, 5, 6)), scale=(2, 1, 1), rotate=(10, 20, 30), shear=(0.1, 0, 0), affine=affine)
    grid = LayerView(layer, "ZYX").grid((4, 5, 6))
    for index in ((0, 0, 0), (1, 2, 3), (3, 4, 5)):
        np.testing.assert_allclose(RAS_TO_DISPLAY[:3, :3] @ grid.to_world(index), layer.data_to_world(index))


def test_units_become_millimetres() -> None:
    layer = ImageLayer(np.zeros((4, 5, 6)), scale=(2, 1, 1), units=("um", "um", "um"))
    assert LayerView(layer, "ZYX").grid((4, 5, 6)).spacing == pytest.approx((0.002, 0.001, 0.001))


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        ((5, 6), {}, ("YX",)),
        ((5, 6, 3), {"rgb": True}, ("YXC",)),
        ((4, 5, 6, 3), {"rgb": True}, ("ZYXC",)),
        ((3, 5, 6), {}, ("ZYX", "CYX", "YXC")),
        ((3, 5, 6), {"axis_labels": ("channel", "y", "x")}, ("CYX",)),
        ((2, 3, 5, 6), {}, ("TZYX", "CZYX", "ZYXC")),
        ((2, 3, 5, 6), {"axis_labels": ("time", "z", "y", "x")}, ("TZYX",)),
    ],
)
def test_axes_are_told_or_left_to_the_user(
    shape: tuple[int, ...], options: dict[str, Any], expected: tuple[str, ...]
) -> None:
    assert possible_axes(ImageLayer(np.zeros(shape), **{"rgb": False} | options)) == expected


def test_a_layer_with_too_many_axes_is_one_sentence() -> None:
    with pytest.raises(InputError, match="has 6 axes"):
        possible_axes(ImageLayer(np.zeros((2,) * 6)))


@pytest.mark.parametrize("axes", ["ZYX", "CYX", "YXC", "TZYX", "CZYX", "ZYXC"])
def test_a_map_lies_on_every_kind_of_layer(axes: str) -> None:
    shape = tuple({"Z": 4, "Y": 5, "X": 6, "C": 3, "T": 2}[letter] for letter in axes)
    scale = tuple({"Z": 3.0, "Y": 2.0, "X": 0.5}.get(letter, 1.0) for letter in axes)
    layer = ImageLayer(np.random.default_rng(0).normal(size=shape), scale=scale, rgb=False)
    view = LayerView(layer, axes, volume=1 if "T" in axes else 0)
    image = view.image()
    assert image.data.shape[0] == (3 if "C" in axes else 1)
    assert image.grid.spacing == pytest.approx(tuple(s for s, a in zip(scale, axes, strict=True) if a in "ZYX"))
    data, options = view.place(np.ones(image.grid.shape, np.float32), image.grid)
    heatmap = ImageLayer(data, rgb=False, **options)
    assert heatmap.ndim == layer.ndim
    expected = tuple(1 if a == "T" else n for a, n in zip(axes, shape, strict=True))
    assert heatmap.data.shape == expected
    corner = np.array(shape) - 1
    if "T" not in axes:
        np.testing.assert_allclose(heatmap.data_to_world(corner), layer.data_to_world(corner))
    else:
        np.testing.assert_allclose(heatmap.data_to_world((0, *corner[1:])), layer.data_to_world(corner))
    # What it shows is read back, also where that is what its segments contribute.
    labels = (np.arange(data.size // (shape[axes.index("C")] if "C" in axes else 1)) % 3).reshape(image.grid.shape)
    contributions = np.array([0.0, 1.5, -2.5])
    placed, _ = view.place(contributions[labels].astype(np.float32), image.grid)
    heatmap.data = placed
    for segments in (
        None,
        LayerSegments(view.place(labels, image.grid)[0], pd.DataFrame({"contribution": contributions})),
    ):
        heatmap.metadata[METADATA_KEY]["segments"] = segments
        np.testing.assert_array_equal(map_in_layer(heatmap, view).data[0], contributions[labels])


def test_a_slice_has_all_axes_and_lies_at_its_place_only() -> None:
    layer = ImageLayer(np.zeros((4, 5, 6)), scale=(3, 2, 1), translate=(10, 0, 0), affine=np.diag([2, 1, 1, 1]))
    view = LayerView(layer, "ZYX")
    grid = view.grid((4, 5, 6)).slab(0, 3)
    data, options = view.place(np.ones((1, 5, 6), np.float32), grid)
    heatmap = ImageLayer(data, **options)
    np.testing.assert_allclose(heatmap.data_to_world((0, 4, 5)), layer.data_to_world((3, 4, 5)))
    # A layer made from a result is understood like any other.
    np.testing.assert_allclose(LayerView(heatmap, "ZYX").grid((1, 5, 6)).affine, grid.affine, atol=1e-9)


def test_channels_and_volumes_of_a_file_become_axes() -> None:
    data, options, _ = volumes_to_layer(volumes(np.eye(4), (4, 1, 5, 6, 7)), "a", "")
    assert data.shape == (4, 7, 6, 5)
    assert options["axis_labels"] == ("time", "z", "y", "x")
    data, options, _ = volumes_to_layer(volumes(np.eye(4), (1, 3, 5, 6, 7)), "a", "")
    assert options["axis_labels"] == ("channel", "z", "y", "x")


def test_percentile_limits() -> None:
    low, high = percentile_limits(np.linspace(0, 1000, 100_000))
    assert low == pytest.approx(10, abs=0.1)
    assert high == pytest.approx(995, abs=0.1)
    assert percentile_limits(np.full((3, 3), 7.0)) == (7, 8)


def test_the_reader_takes_its_own_kinds_only() -> None:
    assert get_reader("a.nii.gz")
    assert get_reader(["a.hdr", "A.IMG"])
    assert get_reader("a.png") is None
    assert get_reader(["a.nii", "b.png"]) is None


def test_reader_and_writers_round_trip(tmp_path: Path) -> None:
    affine = random_affine(np.random.default_rng(4))
    values = np.random.default_rng(0).integers(0, 3, (5, 6, 7)).astype(np.int16)
    save_nifti(tmp_path / "a.nii.gz", values, Grid(values.shape, affine))
    reader = get_reader(str(tmp_path / "a.nii.gz"))
    assert reader is not None
    ((data, options, kind),) = reader(str(tmp_path / "a.nii.gz"))
    assert kind == "image"
    assert data.dtype == np.int16
    for layer, write in (
        (ImageLayer(data, **options), write_image),
        (
            Labels(
                *read_layer(tmp_path / "a.nii.gz", labels=True)[:1], **read_layer(tmp_path / "a.nii.gz", labels=True)[1]
            ),
            write_labels,
        ),
    ):
        path = str(tmp_path / f"{write.__name__}.nii.gz")
        assert write(path, *layer.as_layer_data_tuple()[:2]) == [path]
        file = nibabel.load(path)
        np.testing.assert_array_equal(np.asarray(file.dataobj), values)
        np.testing.assert_allclose(file.affine, affine, atol=1e-3)


def test_layers_that_can_t_be_written_are_one_sentence(tmp_path: Path) -> None:
    layer = ImageLayer(np.zeros((2, 3, 4, 5)))
    with pytest.raises(InputError, match="save a layer with 2 or 3 grey axes"):
        write_image(str(tmp_path / "a.nii"), *layer.as_layer_data_tuple()[:2])


def test_the_3d_view_is_no_mirror_image() -> None:
    """Seen in napari's own coordinates, left lies where a right-handed world has it."""
    from napari.components import Camera

    inferior, posterior, left = np.linalg.inv(RAS_TO_DISPLAY[:3, :3]).T
    assert Camera().handedness == "right"
    np.testing.assert_allclose(np.cross(inferior, posterior), left)
