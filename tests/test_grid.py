from __future__ import annotations

from itertools import permutations, product

import nibabel
import numpy as np
import pytest
from helpers import random_affine, world_of
from scipy.ndimage import affine_transform

from napari_xai_med.errors import InputError
from napari_xai_med.grid import RAS_TO_DISPLAY, Grid, Reorientation, display_matrix, resample_linear, resample_nearest


def test_world_and_index_are_inverse() -> None:
    affine = np.array([[0, -2.0, 0, 5], [0.5, 0, 0, -3], [0, 0, 8.0, 1], [0, 0, 0, 1]])
    grid = Grid((4, 5, 6), affine)
    index = np.random.default_rng(0).uniform(0, 4, (10, 3))
    np.testing.assert_allclose(grid.to_index(grid.to_world(index)), index, atol=1e-12)
    assert grid.spacing == (0.5, 2.0, 8.0)


def test_a_flat_affine_is_refused() -> None:
    with pytest.raises(InputError, match="not invertible"):
        Grid((4, 4, 4), np.diag([1.0, 1.0, 0.0, 1.0]))


def test_an_affine_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match="needs a 4x4 affine"):
        Grid((4, 4, 4), np.eye(3))


@pytest.mark.parametrize("seed", range(10))
def test_reorientation_moves_voxels_and_keeps_their_world(seed: int) -> None:
    random = np.random.default_rng(seed)
    affine, shape = random_affine(random), (3, 4, 5)
    values = random.normal(size=shape)
    turn = Reorientation.between(Grid(shape, affine))
    shown, grid = turn.array(values), turn.grid(Grid(shape, affine))
    assert grid.shape == shown.shape
    assert nibabel.aff2axcodes(grid.affine) == ("I", "P", "L")
    before = {
        tuple(np.round(w, 6)): v for w, v in zip(world_of(shape, affine).reshape(-1, 3), values.flat, strict=True)
    }
    for world, value in zip(world_of(grid.shape, grid.affine).reshape(-1, 3), shown.flat, strict=True):
        assert before[tuple(np.round(world, 6))] == value


@pytest.mark.parametrize("seed", range(10))
def test_reorientation_equals_nibabel_and_its_inverse_takes_it_back(seed: int) -> None:
    random = np.random.default_rng(seed)
    grid = Grid((3, 4, 5), random_affine(random))
    values = random.normal(size=grid.shape)
    turn = Reorientation.between(grid, ("R", "A", "S"))
    theirs = nibabel.as_closest_canonical(nibabel.Nifti1Image(values, grid.affine))
    np.testing.assert_array_equal(turn.array(values), theirs.get_fdata())
    np.testing.assert_allclose(turn.grid(grid).affine, theirs.affine, atol=1e-9)
    np.testing.assert_array_equal(turn.inverse.array(turn.array(values)), values)
    np.testing.assert_allclose(turn.inverse.grid(turn.grid(grid)).affine, grid.affine, atol=1e-9)


def test_straight_volumes_are_shown_at_their_world_place() -> None:
    grid = Grid(
        (4, 5, 6), np.linalg.inv(RAS_TO_DISPLAY) @ np.array([[2.0, 0, 0, 7], [0, 3, 0, -4], [0, 0, 5, 1], [0, 0, 0, 1]])
    )
    assert not grid.is_oblique
    np.testing.assert_allclose(display_matrix(grid), RAS_TO_DISPLAY @ grid.affine, atol=1e-12)


def test_oblique_volumes_are_turned_about_their_centre() -> None:
    grid = Grid((5, 7, 9), random_affine(np.random.default_rng(3)))
    shown = Reorientation.between(grid).grid(grid)
    assert shown.is_oblique
    matrix, centre = display_matrix(shown), (np.array(shown.shape) - 1) / 2
    np.testing.assert_allclose(np.diag(matrix)[:3], shown.spacing)
    np.testing.assert_allclose(
        matrix[:3, :3] @ centre + matrix[:3, 3], RAS_TO_DISPLAY[:3, :3] @ shown.to_world(centre), atol=1e-9
    )


def test_a_slab_lies_where_its_slice_lies() -> None:
    grid = Grid((4, 5, 6), random_affine(np.random.default_rng(1)))
    slab = grid.slab(1, 3)
    assert slab.shape == (4, 1, 6)
    np.testing.assert_allclose(slab.to_world([2, 0, 4]), grid.to_world([2, 3, 4]))
    with pytest.raises(InputError, match="choose 0 to 4"):
        grid.slab(1, 5)


@pytest.mark.parametrize("order", [*permutations(range(2)), *permutations(range(3))])
def test_along_axes_resampling_is_scipy_s(order: tuple[int, ...]) -> None:
    random, ndim = np.random.default_rng(0), len(order)
    for signs in product((1, -1), repeat=ndim):
        old, new = (tuple(random.integers(1, most, ndim).tolist()) for most in (9, 30))
        matrix = np.zeros((ndim + 1, ndim + 1))
        matrix[range(ndim), order] = signs * random.choice([0.1, 0.5, 1, 1.5, 1.7], ndim)
        matrix[:, -1] = [*random.choice([0, 0.5, -0.5, 2, 1.3], ndim), 1]
        values = random.normal(size=old).astype(np.float32)
        expected = affine_transform(values, matrix, output_shape=new, order=1, mode="nearest")
        np.testing.assert_allclose(resample_linear(values, matrix, new), expected, atol=1e-6)
        labels = random.integers(1, 99, old)
        moved = matrix.copy()
        # Halves always go the same way.
        moved[:-1, -1] -= 1e-6
        nearest = affine_transform(labels, moved, output_shape=new, order=0, mode="nearest")
        found = resample_nearest(labels, matrix, new)
        # 0 is what lies beyond the labels.
        np.testing.assert_array_equal(found[found > 0], nearest[found > 0])
        index = np.stack(np.indices(new), -1) @ moved[:-1, :-1].T + moved[:-1, -1]
        inside = ((index >= -0.5 - 1e-6) & (index <= np.array(old) - 0.5 + 1e-6)).all(-1)
        np.testing.assert_array_equal(found > 0, inside)


def test_resampling_is_linear_goes_on_at_the_edge_and_is_zero_outside_the_frame() -> None:
    values = np.array([1.0, 3.0], np.float32)
    to_values = np.array([[0.5, -1.0], [0, 1]])
    result = resample_linear(values, to_values, (7,))
    np.testing.assert_allclose(result, [1, 1, 1, 2, 3, 3, 3])
    framed = resample_linear(values, to_values, (7,), (np.array([[1.0, -1.0], [0, 1]]), (5,)))
    np.testing.assert_allclose(framed, [0, 1, 1, 2, 3, 3, 0])


def test_resampling_equals_an_independent_interpolator() -> None:
    from scipy.interpolate import RegularGridInterpolator

    random = np.random.default_rng(0)
    values = random.normal(size=(5, 6, 7)).astype(np.float32)
    matrix = np.eye(4)
    matrix[:3, :3] = np.diag([0.3, 0.4, 0.2]) + random.uniform(-0.02, 0.02, (3, 3))
    matrix[:3, 3] = 0.4
    result = resample_linear(values, matrix, (8, 9, 10))
    ours = RegularGridInterpolator(tuple(np.arange(n) for n in values.shape), values)
    index = world_of((8, 9, 10), matrix)
    inside = ((index >= 0) & (index <= np.array(values.shape) - 1)).all(-1)
    np.testing.assert_allclose(result[inside], ours(index[inside]), atol=1e-5)
