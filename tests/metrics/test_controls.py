from __future__ import annotations

from math import nan

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from skimage.filters import sobel

from napari_xai_med.grid import Grid
from napari_xai_med.metrics.case import Case, Sign
from napari_xai_med.metrics.controls import against_controls, ascending, controls_of
from napari_xai_med.metrics.outcome import Better

SHAPES = [(40, 33), (24, 18, 20), (30, 1, 22)]


def case_of(shape: tuple[int, ...], sign: Sign = Sign.POSITIVE, seed: int = 0) -> Case:
    random = np.random.default_rng(5)
    values = gaussian_filter(random.normal(size=shape), 2).astype(np.float32)
    image = random.random((2, *shape), np.float32)
    image[:, : shape[0] // 2] = 0
    return Case(values, Grid(shape, np.eye(len(shape) + 1)), intensities=image, sign=sign, seed=seed)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sign", Sign)
def test_controls_have_the_maps_own_values_strongest_first(shape: tuple[int, ...], sign: Sign) -> None:
    case = case_of(shape, sign)
    controls = controls_of(case)
    assert list(controls) == ["random", "edges", "centre"]
    edges = np.sqrt((sobel(case.intensities[0]) ** 2) + sobel(case.intensities[1]) ** 2)
    away = sum(
        ((np.arange(n) - (n - 1) / 2) / n).reshape([-1 if j == k else 1 for j in range(len(shape))]) ** 2
        for k, n in enumerate(shape)
    )
    strengths = {Sign.POSITIVE: lambda x: x, Sign.NEGATIVE: np.negative, Sign.ABSOLUTE: np.abs}
    for name, values in controls.items():
        assert values.shape == shape
        np.testing.assert_array_equal(np.sort(values, None), np.sort(case.values, None))
        if name != "random":
            strength = strengths[sign](values).ravel()
            truth = edges.ravel() if name == "edges" else -np.broadcast_to(away, shape).ravel()
            order = np.argsort(strength, kind="stable")
            assert (np.diff(truth[order]) >= -1e-6).all()


@pytest.mark.parametrize("shape", SHAPES[:2])
def test_the_random_map_is_as_smooth_as_the_map_and_elsewhere(shape: tuple[int, ...]) -> None:
    def neighbours(values: np.ndarray) -> list[float]:
        return [
            float(np.corrcoef(values.take(range(n - 1), k).ravel(), values.take(range(1, n), k).ravel())[0, 1])
            for k, n in enumerate(shape)
        ]

    values = case_of(shape).values
    maps = [controls_of(case_of(shape, seed=seed))["random"] for seed in range(8)]
    # White noise has 0, and the map about 0.94; a spectrum wraps from border to border, which costs some.
    assert np.mean([neighbours(each) for each in maps], 0) == pytest.approx(neighbours(values), abs=0.15)
    assert abs(np.mean([spearmanr(values.ravel(), each.ravel()).statistic for each in maps])) < 0.2
    np.testing.assert_array_equal(maps[3], controls_of(case_of(shape, seed=3))["random"])
    assert (maps[3] != maps[4]).any()


def test_the_random_map_is_the_same_at_any_scale() -> None:
    made = case_of(SHAPES[0])
    large = Case(np.ldexp(made.values, 126), made.grid)
    np.testing.assert_array_equal(controls_of(large)["random"], np.ldexp(controls_of(made)["random"], 126))


def test_without_an_image_there_are_no_edges_and_the_case_makes_them_once() -> None:
    case = Case(np.arange(12, dtype=np.float32).reshape(3, 4), Grid((3, 4), np.eye(3)))
    assert list(case.controls) == ["random", "centre"]
    assert case.controls is case.controls


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_voxels_are_sorted_as_numpy_sorts_them(dtype: type[np.floating]) -> None:
    random = np.random.default_rng(0)
    field = (random.normal(size=(40, 50)) * 10.0 ** random.integers(-30, 30, (40, 50))).astype(dtype)
    field[::3] = np.round(random.normal(size=field[::3].shape))
    # Minus zero too, which is level with zero.
    field[1] *= -0.0
    ties = random.permutation(field.size)
    expected = ties[np.argsort(field.astype(np.float32).ravel()[ties], kind="stable")]
    np.testing.assert_array_equal(ascending(field, ties), expected)


@pytest.mark.parametrize(
    ("value", "better", "good", "told"),
    [
        (0.5, Better.HIGHER, True, "0.5: better than all controls, of which edges is best with 0.4"),
        (0.5, Better.LOWER, False, "0.5: not better than the control random with 0.1"),
        (0.4, Better.HIGHER, False, "0.4: no different from the control edges with 0.4"),
        (0.40004, Better.HIGHER, False, "0.40004: no different from the control edges with 0.4."),
        (nan, Better.HIGHER, None, "nothing can be said"),
    ],
)
def test_verdicts_name_the_best_control_with_both_numbers(
    value: float, better: Better, good: bool | None, told: str
) -> None:
    verdict = against_controls("It", value, {"random": 0.1, "edges": 0.4}, better)
    assert verdict.good is good
    assert told in verdict.sentence
