"""SLIC against scikit-image's, and what that one can't do."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from label_maps import ball, check_labels, texture
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import slic as theirs
from sklearn.metrics import adjusted_rand_score

from napari_xai_med.segments.lattice import lattice_of
from napari_xai_med.segments.part import part_of, scaled
from napari_xai_med.segments.slic import Slic


def spread(image: NDArray[np.float32], labels: NDArray[np.integer], number: int, compactness: float) -> float:
    """What SLIC makes small: mean squared distance of voxels from their segment's centre, in intensity and place."""
    pitch = (image.size / number) ** (1 / image.ndim)
    counts = np.bincount(labels.ravel())
    total = 0.0
    for each in (image / compactness, *(axis / pitch for axis in np.indices(image.shape))):
        sums = np.bincount(labels.ravel(), each.ravel())
        total += float(np.square(each, dtype=float).sum() - (sums**2 / np.maximum(counts, 1)).sum())
    return total / image.size


@pytest.mark.parametrize("compactness", [0.1, 0.4])
@pytest.mark.parametrize(("shape", "number"), [((96, 96), 36), ((64, 128), 32), ((32, 32, 32), 64)])
def test_as_good_as_scikit_image(shape: tuple[int, ...], number: int, compactness: float) -> None:
    """Equal voxels, no mask, and numbers that fit both lattices: the same problem, started half a voxel apart."""
    data = texture(shape)
    part = part_of(data, (1.0,) * len(shape), None)
    ours = Slic(number=number, compactness=compactness).groups(part)
    image = part.values[0]
    expected = theirs(image, number, compactness, channel_axis=None, enforce_connectivity=False)
    assert ours.max() == expected.max() == number
    assert spread(image, ours, number, compactness) < 1.02 * spread(image, expected, number, compactness)


def test_without_intensities_it_is_the_lattice_that_scikit_image_finds() -> None:
    """Squares of 9 pixels: their centres are pixels, which is where scikit-image starts."""
    image = np.zeros((1, 54, 54), np.float32)
    expected = theirs(image[0], 36, channel_axis=None)
    np.testing.assert_array_equal(Slic(number=36).segments(image, (1.0, 1.0)).labels, expected)


def test_scikit_image_counts_in_voxels() -> None:
    """The reason for own code: squares of 1 x 4 mm pixels, of which ours are square and theirs 1 to 4."""

    def ratio(labels: NDArray[np.integer]) -> float:
        extents = [(y.stop - y.start, 4 * (x.stop - x.start)) for y, x in ndimage.find_objects(labels)]
        height, width = np.median(extents, axis=0)
        return float(max(height, width) / min(height, width))

    image = np.zeros((1, 200, 50), np.float32)
    assert ratio(theirs(image[0], 100, spacing=(1.0, 4.0), channel_axis=None)) == 4
    assert ratio(Slic(number=100).segments(image, (1.0, 4.0)).labels) == 1


def test_pieces_of_one_label_are_told_apart() -> None:
    """The case of scikit-image #8295: with a mask its labels can be in several pieces; here none is."""
    shape, random = (24, 24, 24), np.random.default_rng(27)
    volume = ndimage.uniform_filter(random.integers(0, 255, (*shape, 3)).astype(float), (3, 3, 3, 1))
    mask, places = np.ones(shape, bool), np.random.default_rng(1027)
    for _ in range(6):
        z, y, x = (places.integers(0, n - 2) for n in shape)
        mask[z : z + 2, y : y + 2, x : x + 2] = False
    found = Slic(number=80).segments(np.moveaxis(volume, -1, 0).astype(np.float32), (1.0, 1.0, 1.0), mask)
    check_labels(found.labels, mask)


@pytest.mark.parametrize("scale", [0.25, 4.0])
def test_the_unit_of_length_makes_no_difference(scale: float) -> None:
    data, mask = texture((40, 30)), ball((40, 30))
    found = Slic(number=20).segments(data, (1.0, 2.0), mask).labels
    np.testing.assert_array_equal(Slic(number=20).segments(data, (scale, 2 * scale), mask).labels, found)


def test_compactness_means_the_same_inside_of_a_mask() -> None:
    """Half of an image that is its own mirror image, and as many segments there: the same borders, or almost."""
    half = texture((128, 64))
    data = np.concatenate([half, half[..., ::-1]], axis=2)
    mask = np.zeros((128, 128), bool)
    mask[:, :64] = True
    for compactness in (0.1, 0.4):
        inside = Slic(number=32, compactness=compactness).segments(data, (1.0, 1.0), mask).labels[:, :64]
        whole = Slic(number=64, compactness=compactness).segments(data, (1.0, 1.0)).labels[:, :64]
        assert adjusted_rand_score(inside.ravel(), whole.ravel()) > 0.95


def test_compactness_makes_segments_rounder() -> None:
    data = texture((64, 64))
    lengths = []
    for compactness in (0.05, 0.2, 1.0, 10.0):
        labels = Slic(number=25, compactness=compactness).segments(data, (1.0, 1.0)).labels
        lengths.append(sum(np.count_nonzero(np.diff(labels, axis=axis)) for axis in (0, 1)))
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] < 0.7 * lengths[0]


def test_colour_parts_what_grey_can_not() -> None:
    """Red and green of the same brightness."""
    data = np.zeros((3, 40, 40), np.float32)
    data[0, :, :23] = data[1, :, 23:] = 200
    labels = Slic(number=16).segments(data, (1.0, 1.0)).labels
    assert not set(labels[:, :23].ravel()) & set(labels[:, 23:].ravel())


def test_scaled_intensities() -> None:
    data, mask = texture((60, 60), channels=3), ball((60, 60))
    data[1] = 5
    found = scaled(data, mask)
    assert found.min() == 0
    assert found.max() == np.float32(1 / np.sqrt(3))
    assert not found[1].any()
    for values, channel in zip(found[[0, 2]], data[[0, 2]], strict=True):
        # 1% of the mask's voxels at either end are clipped.
        assert np.mean(values[mask] == values[mask].max()) == pytest.approx(0.01, abs=0.002)
        assert np.corrcoef(values[mask], channel[mask])[0, 1] > 0.99
    # Almost all of it is black: the rest is not lost.
    dark = np.zeros((1, 60, 60), np.float32)
    dark[0, :2, :3] = 9
    np.testing.assert_array_equal(scaled(dark, np.ones((60, 60), bool)), dark / 9)


def test_nothing_leaks_through_the_border_of_a_mask() -> None:
    data, mask = np.ones((1, 30, 30), np.float32), ball((30, 30))
    data[:, ~mask] = 50
    data[0, 15, 15] = 0
    smooth = part_of(data, (1.0, 0.5), mask, smoothing=2.0)
    inside = smooth.values[0][smooth.mask]
    assert inside.max() <= 1 + 1e-6
    assert not smooth.values[0][~smooth.mask].any()
    plain = part_of(data, (1.0, 0.5), mask)
    expected = ndimage.gaussian_filter(plain.values[0] * plain.mask, (2.0, 4.0))
    weights = ndimage.gaussian_filter(plain.mask.astype(np.float32), (2.0, 4.0))
    np.testing.assert_allclose(inside, (expected / weights)[smooth.mask], rtol=1e-4)


@pytest.mark.parametrize("shape", [(37, 50), (1, 90), (12, 40, 31)])
@pytest.mark.parametrize("masked", [False, True])
def test_lattices_hold_what_they_say(shape: tuple[int, ...], masked: bool) -> None:
    mask = ball(shape) if masked else np.ones(shape, bool)
    for number in (1, 2, 7, 30):
        lattice = lattice_of(mask, (3.0, 1.0, 0.7)[-len(shape) :], number)
        cells = lattice.cells()
        assert cells.shape == shape
        assert cells.max() + 1 == prod(lattice.counts)
        np.testing.assert_array_equal(np.bincount(cells[mask], minlength=prod(lattice.counts)), lattice.held(mask))
        assert np.count_nonzero(lattice.filled(mask)) == pytest.approx(number, rel=0.3)
