from __future__ import annotations

import numpy as np
import pytest
from mask_cases import case_on, random_pair, scores_of, values_of
from scipy.stats import pearsonr
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from napari_xai_med.metrics.over_masks import CHANCE
from napari_xai_med.metrics.similarity import NOTHING


@pytest.mark.parametrize("shape", [(30, 41), (80, 9, 31), (9, 3, 31), (65, 5)], ids=str)
def test_similarity_is_that_of_scipy_and_scikit_image(shape: tuple[int, ...]) -> None:
    values, mask = random_pair(0, shape)
    share = np.maximum(values, 0).astype(np.float64) / values.max()
    found = values_of("similarity", case_on(values, mask))
    assert found["pearson"] == pytest.approx(pearsonr(share.ravel(), mask.ravel()).statistic, abs=1e-9)
    assert found["mse"] == pytest.approx(mean_squared_error(share, mask.astype(float)), abs=1e-9)
    assert found["psnr"] == pytest.approx(peak_signal_noise_ratio(mask.astype(float), share, data_range=1), abs=1e-7)
    # The largest odd window that fits; in slabs it is the same as at once.
    window = min(7, *(n - 1 + n % 2 for n in shape))
    whole = structural_similarity(share, mask.astype(float), win_size=window, data_range=1)
    assert found["ssim"] == pytest.approx(whole, abs=1e-6)


def test_a_slice_of_a_volume_is_compared_as_a_picture() -> None:
    values, mask = random_pair(0, (30, 41))
    flat = values_of("similarity", case_on(values, mask))
    assert values_of("similarity", case_on(values[:, None], mask[:, None])) == flat


def test_controls_are_a_shuffled_map_and_one_that_marks_nothing() -> None:
    values, mask = random_pair(0, (30, 41))
    chance = values_of("similarity", case_on(values, mask), CHANCE)
    random = np.random.default_rng(1)
    drawn = [values_of("similarity", case_on(random.permuted(values), mask))["mse"] for _ in range(200)]
    assert np.mean(drawn) == pytest.approx(chance["mse"], abs=4 * np.std(drawn) / np.sqrt(len(drawn)))
    nothing = values_of("similarity", case_on(values, mask), NOTHING)
    assert nothing["mse"] == pytest.approx(mask.mean())
    assert nothing["psnr"] == pytest.approx(
        peak_signal_noise_ratio(mask.astype(float), np.zeros(mask.shape), data_range=1)
    )


def test_what_is_not_defined_has_a_reason() -> None:
    _, mask = random_pair(0, (30, 41))
    same = scores_of("similarity", case_on(mask.astype(float), mask))
    assert same["psnr"].reason.startswith("The map equals the mask")
    assert same["mse"].value == 0
    assert same["ssim"].value == pytest.approx(1)
    constant = scores_of("similarity", case_on(np.full(mask.shape, 0.1), mask))
    assert constant["pearson"].reason.startswith("The map has the same value everywhere")
    assert constant["mse"].value == pytest.approx(1 - mask.mean())
    thin = scores_of("similarity", case_on(np.eye(2, 9), np.eye(2, 9)[::-1]))
    assert thin["ssim"].reason == "The image is less than 3 voxels wide."
