"""What every segmenter does alike."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from label_maps import ball, check_labels, texture

from napari_xai_med.errors import InputError
from napari_xai_med.segments.base import Segmenter, make_segmenter, segmenters

SIZES = {2: (48, 40), 3: (12, 24, 20)}
EVERY = [(name, dim) for name, kind in segmenters().items() for dim in sorted(kind.dims)]
NUMBERED = ("slic", "watershed", "grid")


def segmenter(name: str, number: int | None = None, **options: Any) -> Segmenter:
    return make_segmenter(name, options | ({"number": number} if number and name in NUMBERED else {}))


def test_all_are_registered() -> None:
    assert set(segmenters()) == {"slic", "quickshift", "felzenszwalb", "watershed", "grid"}
    assert {name for name, dim in EVERY if dim == 3} == set(NUMBERED)
    with pytest.raises(InputError, match="There is no segmenter 'x'; choose one of"):
        make_segmenter("x", {})


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("name", "dim"), EVERY)
def test_labels_are_connected_complete_and_the_same_again(name: str, dim: int, masked: bool) -> None:
    data = texture(SIZES[dim], channels=3)
    before = data.copy()
    mask = ball(SIZES[dim]) if masked else None
    spacing = (3.0, 1.0, 1.5)[-dim:]
    found = segmenter(name, 30).segments(data, spacing, mask)
    check_labels(found.labels, ball(SIZES[dim]) if masked else np.ones(SIZES[dim], bool))
    assert found.facts["made"] == found.count > 1
    again = segmenter(name, 30).segments(data, spacing, mask)
    np.testing.assert_array_equal(again.labels, found.labels)
    assert (again.facts, again.notices) == (found.facts, found.notices)
    np.testing.assert_array_equal(data, before)


@pytest.mark.parametrize(("name", "dim"), EVERY)
def test_the_least_size_is_kept(name: str, dim: int) -> None:
    """In mm2 and mL: 40 voxels of 0.5 mm2, or of 1.5 mm3."""
    spacing = (3.0, 1.0, 0.5)[-dim:]
    least = 40 * 0.5 if dim == 2 else 40 * 1.5 / 1000
    small = segmenter(name, 200, minimum=1e-9).segments(texture(SIZES[dim]), spacing)
    found = segmenter(name, 200, minimum=least).segments(texture(SIZES[dim]), spacing)
    assert np.bincount(small.labels.ravel())[1:].min() < 40
    assert np.bincount(found.labels.ravel())[1:].min() >= 40
    assert found.facts["minimum"] == pytest.approx(least)
    assert 1 < found.count < small.count


@pytest.mark.parametrize("name", NUMBERED)
@pytest.mark.parametrize("dim", [2, 3])
def test_one_segment_and_one_for_each_voxel(name: str, dim: int) -> None:
    data, spacing = texture(SIZES[dim]), (2.0, 1.0, 1.0)[-dim:]
    assert segmenter(name, 1).segments(data, spacing).count == 1
    for number in (data.size, data.size + 1):
        found = segmenter(name, number).segments(data, spacing)
        np.testing.assert_array_equal(found.labels.ravel(), np.arange(1, data.size + 1))
    # Many, but not as many as voxels.
    found = segmenter(name, data.size // 3).segments(data, spacing)
    check_labels(found.labels, np.ones(SIZES[dim], bool))


@pytest.mark.parametrize(("name", "dim"), EVERY)
@pytest.mark.parametrize("value", [0.0, 7.0])
def test_constant_images(name: str, dim: int, value: float) -> None:
    data = np.full((1, *SIZES[dim]), value, np.float32)
    found = segmenter(name, 20).segments(data, (1.0,) * dim)
    check_labels(found.labels, np.ones(SIZES[dim], bool))
    if name in NUMBERED:
        assert 15 <= found.count <= 25


@pytest.mark.parametrize("name", NUMBERED)
def test_black_slices(name: str) -> None:
    data = texture((8, 24, 24))
    data[:, 2:5] = 0
    found = segmenter(name, 40).segments(data, (2.0, 1.0, 1.0))
    check_labels(found.labels, np.ones((8, 24, 24), bool))


@pytest.mark.parametrize(("name", "dim"), EVERY)
@pytest.mark.parametrize("axis", [0, -1])
def test_images_one_voxel_thick(name: str, dim: int, axis: int) -> None:
    shape = list(SIZES[dim])
    shape[axis] = 1
    data = texture(tuple(shape))
    for spacing in ((1.0, 1.0, 1.0), (5.0, 1.0, 2.0)):
        found = segmenter(name, 8).segments(data, spacing[-dim:])
        check_labels(found.labels, np.ones(shape, bool))
    single = segmenter(name, 8).segments(data[..., :1, :1][(..., *(slice(1),) * dim)], (1.0,) * dim)
    assert single.labels.ravel().tolist() == [1]


@pytest.mark.parametrize(("name", "dim"), EVERY)
def test_masks_that_are_no_masks(name: str, dim: int) -> None:
    data = texture(SIZES[dim])
    with pytest.raises(
        InputError, match=r"^The mask is empty, so there is nothing to cut into segments; choose [^.]*\.$"
    ):
        segmenter(name).segments(data, (1.0,) * dim, np.zeros(SIZES[dim], bool))
    with pytest.raises(InputError, match="does not fit an image of shape"):
        segmenter(name).segments(data, (1.0,) * dim, np.ones((3,) * dim, bool))


@pytest.mark.parametrize("name", NUMBERED)
def test_thin_and_scattered_masks(name: str) -> None:
    """A diagonal band two pixels wide is cut along its length; single pixels are segments of their own."""
    y, x = np.indices((60, 60))
    line = (x == y) | (x == y + 1)
    found = segmenter(name, 10).segments(texture((60, 60)), (1.0, 1.0), line)
    check_labels(found.labels, line)
    assert 7 <= found.count <= 13
    ends = [np.ptp(x[found.labels == k]) for k in range(1, found.count + 1)]
    assert max(ends) < 3 * np.mean(ends)
    dots = (x % 7 == 0) & (y % 7 == 0)
    found = segmenter(name, 5, minimum=3.0).segments(texture((60, 60)), (1.0, 1.0), dots)
    check_labels(found.labels, dots)
    assert found.facts["below_minimum"] == found.count == np.count_nonzero(dots)
    assert any("touch no other" in each for each in found.notices)


@pytest.mark.parametrize("name", NUMBERED)
def test_a_mask_in_a_corner_is_all_that_counts(name: str) -> None:
    """What lies outside of it changes nothing, nor does how much lies outside."""
    data, mask = texture((20, 20)), ball((20, 20))
    alone = segmenter(name, 12, smoothing=1.0).segments(data, (1.0, 2.0), mask)
    large = texture((50, 60), seed=1) * 30
    around = np.zeros((50, 60), bool)
    place = (slice(30, 50), slice(7, 27))
    large[(slice(None), *place)], around[place] = np.where(mask, data, 9e4), mask
    found = segmenter(name, 12, smoothing=1.0).segments(large, (1.0, 2.0), around)
    np.testing.assert_array_equal(found.labels[place], alone.labels)


@pytest.mark.parametrize("name", NUMBERED)
@pytest.mark.parametrize("shape", [(64, 64), (50, 90), (16, 24, 24)])
def test_the_number_asked_for(name: str, shape: tuple[int, ...]) -> None:
    """Within a quarter, or there is a notice; basins between edges can be too narrow to stay."""
    data = texture(shape)
    for mask in (None, ball(shape)):
        found = segmenter(name, 40).segments(data, (1.0,) * len(shape), mask)
        assert found.facts["asked"] == 40
        assert bool(found.notices) is (abs(found.count - 40) > 10)
        assert name == "watershed" or not found.notices
    found = segmenter(name, 40, minimum=data.size / 4 / (1000 if len(shape) == 3 else 1)).segments(
        data, (1.0,) * len(shape)
    )
    assert found.count <= 4
    assert any(each.startswith(f"40 segments were asked for and {found.count} were made") for each in found.notices)


@pytest.mark.parametrize("name", NUMBERED)
@pytest.mark.parametrize("spacing", [(5.0, 1.0, 1.0), (1.0, 0.5, 2.0), (8.0, 0.8, 0.8), (1.0, 4.0), (3.0, 0.5)])
def test_segments_are_as_long_along_each_axis_in_millimetres(name: str, spacing: tuple[float, ...]) -> None:
    """Half the longest extent of any axis: thick slices can only give whole multiples."""
    shape = tuple(round(60 / step) for step in spacing)
    data = np.zeros((1, *shape), np.float32)
    found = segmenter(name, 27 if len(shape) == 3 else 36).segments(data, spacing).labels
    places = [np.indices(shape).reshape(len(shape), -1)[:, found.ravel() == k] for k in range(1, found.max() + 1)]
    extents = np.median([(np.ptp(place, axis=1) + 1) * spacing for place in places], axis=0)
    assert extents.max() / extents.min() < 1.5


@pytest.mark.parametrize(("name", "dim"), EVERY)
def test_units_of_intensity_make_no_difference(name: str, dim: int) -> None:
    """Powers of two, so that floats round alike."""
    data, spacing = texture(SIZES[dim]), (1.0,) * dim
    found = segmenter(name, 30).segments(data, spacing).labels
    np.testing.assert_array_equal(segmenter(name, 30).segments(data * 1024, spacing).labels, found)
    np.testing.assert_array_equal(segmenter(name, 30).segments(np.repeat(data, 4, axis=0), spacing).labels, found)


@pytest.mark.parametrize(("name", "dim"), EVERY)
def test_a_bright_voxel_does_not_set_the_scale(name: str, dim: int) -> None:
    data, spacing = texture(SIZES[dim]), (1.0,) * dim
    bright = data.copy()
    bright.flat[np.argmax(data)] = 1e6
    np.testing.assert_array_equal(
        segmenter(name, 30).segments(bright, spacing).labels, segmenter(name, 30).segments(data, spacing).labels
    )


@pytest.mark.parametrize(("name", "beside"), [("slic", 0), ("felzenszwalb", 0), ("quickshift", 0), ("watershed", 1)])
def test_borders_follow_edges(name: str, beside: int) -> None:
    """A step between two halves, off every lattice: no segment lies on both sides of it.

    Gradients are as high in the pixel before the step as in the one after, so that watersheds can be beside it.
    """
    data = np.zeros((1, 60, 60), np.float32)
    data[..., 34:] = 1

    def on_both_sides(name: str) -> set[int]:
        labels = segmenter(name, 25).segments(data, (1.0, 1.0)).labels
        return set(labels[:, : 34 - beside].ravel()) & set(labels[:, 34 + beside :].ravel())

    assert not on_both_sides(name)
    assert on_both_sides("grid"), "the same test can fail"


def test_smoothing_is_in_millimetres() -> None:
    """Noise of one pixel is gone: fewer pieces along rough borders, measured by their length."""
    random = np.random.default_rng(0)
    data = random.normal(size=(1, 64, 64)).astype(np.float32)

    def border(smoothing: float, spacing: float) -> int:
        labels = segmenter("slic", 30, smoothing=smoothing).segments(data, (spacing, spacing)).labels
        return sum(np.count_nonzero(a != b) for lines in (labels, labels.T) for a, b in pairwise(lines))

    assert border(2.0, 1.0) < 0.8 * border(0.0, 1.0)
    assert border(2.0, 1.0) == border(1.0, 0.5)
