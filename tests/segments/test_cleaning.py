"""Connected pieces and how small ones are merged."""

from __future__ import annotations

import numpy as np
import pytest
from label_maps import ball, check_labels, texture

from napari_xai_med.segments.cleaning import borders, cleaned
from napari_xai_med.segments.part import Part, part_of


def part(shape: tuple[int, ...], spacing: tuple[float, ...], masked: bool = False) -> Part:
    mask = ball(shape) if masked else np.ones(shape, bool)
    return Part(texture(shape), mask, spacing, tuple(slice(n) for n in shape))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [(30, 40), (9, 20, 15)])
@pytest.mark.parametrize("minimum", [0, 2, 10, 60, 10**6])
def test_any_labels(shape: tuple[int, ...], masked: bool, minimum: int) -> None:
    """Random ones, most of them in single voxels; what is left too small touches nothing."""
    where = part(shape, (2.0, 1.0, 1.0)[-len(shape) :], masked)
    raw = np.random.default_rng(0).integers(0, 4, shape)
    labels = cleaned(raw, where, minimum)
    check_labels(labels, where.mask)
    if minimum == 0:
        # Two neighbours belong together exactly if their labels were the same.
        for axis in range(len(shape)):
            here, there = np.moveaxis(labels, axis, 0)[:-1], np.moveaxis(labels, axis, 0)[1:]
            same = np.diff(np.moveaxis(raw, axis, 0), axis=0) == 0
            both = (here > 0) & (there > 0)
            np.testing.assert_array_equal((here == there)[both], same[both])
    small = np.flatnonzero(np.bincount(labels.ravel())[1:] < minimum)
    assert not borders(labels, where.spacing)[small].nnz


def test_the_longest_border_in_millimetres_decides() -> None:
    """Two pixels of 1 x 3 mm one above the other: 3 mm to what is above, 2 x 1 mm to what is beside."""
    raw = np.array([[1, 1, 1], [2, 3, 2], [2, 3, 2], [2, 2, 2]])
    raw[3, 1] = 4
    values = np.zeros((1, 4, 3), np.float32)
    tall = cleaned(raw, Part(values, np.ones((4, 3), bool), (1.0, 3.0), ()), 3)
    wide = cleaned(raw, Part(values, np.ones((4, 3), bool), (3.0, 1.0), ()), 3)
    # Of pixels that are 3 mm wide, a horizontal border counts 3 and a vertical one 1.
    assert tall[1, 1] == tall[2, 1] != tall[1, 0]
    assert tall[1, 1] in (tall[0, 0], tall[3, 1])
    assert wide[1, 1] == wide[2, 1] == wide[1, 0]


def test_among_equal_borders_the_nearest_intensity_decides() -> None:
    raw = np.array([[1, 1, 2, 3, 3]])
    for middle, expected in ((0.4, [1, 1, 1, 2, 2]), (0.6, [1, 1, 2, 2, 2])):
        values = np.array([[[0, 0, middle, 1, 1]]], np.float32)
        labels = cleaned(raw, Part(values, np.ones((1, 5), bool), (1.0, 1.0), ()), 2)
        assert labels.tolist() == [expected]


@pytest.mark.parametrize("shape", [(7, 9), (4, 5, 6)])
def test_borders_by_counting(shape: tuple[int, ...]) -> None:
    labels = np.random.default_rng(1).integers(0, 4, shape).astype(np.int32)
    spacing = (2.0, 0.5, 3.0)[: len(shape)]
    expected = np.zeros((3, 3))
    for index in np.ndindex(shape):
        for axis in range(len(shape)):
            if index[axis] + 1 < shape[axis]:
                one, other = labels[index], labels[(*index[:axis], index[axis] + 1, *index[axis + 1 :])]
                if one and other and one != other:
                    expected[one - 1, other - 1] += np.prod(spacing) / spacing[axis]
    np.testing.assert_allclose(borders(labels, spacing).toarray(), expected + expected.T)


def test_the_part_is_the_box_of_the_mask() -> None:
    mask = np.zeros((9, 8), bool)
    mask[2:5, 3] = mask[4, 3:7] = True
    found = part_of(texture((9, 8)), (1.0, 1.0), mask)
    assert found.place == (slice(2, 5), slice(3, 7))
    assert found.voxels == 6
