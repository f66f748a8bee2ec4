from __future__ import annotations

import numpy as np
import pytest

from napari_xai_med.errors import InputError
from napari_xai_med.grid import Grid


def test_world_and_index_are_inverse() -> None:
    affine = np.array([[0, -2.0, 0, 5], [0.5, 0, 0, -3], [0, 0, 8.0, 1], [0, 0, 0, 1]])
    grid = Grid((4, 5, 6), affine)
    index = np.random.default_rng(0).uniform(0, 4, (10, 3))
    np.testing.assert_allclose(grid.to_index(grid.to_world(index)), index, atol=1e-12)
    assert grid.spacing == (0.5, 2.0, 8.0)


def test_a_flat_affine_is_refused() -> None:
    with pytest.raises(InputError, match="not invertible"):
        Grid((4, 4, 4), np.diag([1.0, 1.0, 0.0, 1.0]))
