from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from napari_xai_med.image import Image
from napari_xai_med.job import Job
from napari_xai_med.metrics.base import make_metric
from napari_xai_med.metrics.case import Case
from napari_xai_med.metrics.max_sensitivity import _control
from napari_xai_med.metrics.outcome import Better
from napari_xai_med.metrics.similarity_of_maps import MOST, NAMES, moved_copies, similarities, thinned
from napari_xai_med.metrics.unrelated import Likeness


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


def test_similarities_equal_plain_ones() -> None:
    random = np.random.default_rng(0)
    one, other = random.normal(size=(2, 32, 40)).astype(np.float32)
    found = similarities(one, other)
    a, b = (np.abs(each) / np.abs(each).max() for each in (one, other))
    assert found["ssim"] == pytest.approx(structural_similarity(a, b, data_range=1.0), abs=1e-6)
    ranks = [each.ravel().argsort().argsort() for each in (one, other)]
    assert found["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-9)
    sizes = [each.ravel().argsort().argsort() for each in (a, b)]
    assert found["spearman_absolute"] == pytest.approx(np.corrcoef(*sizes)[0, 1], abs=1e-9)


@pytest.mark.parametrize("shape", [(24, 30), (12, 10, 14), (16, 1, 16), (1, 20, 20)])
def test_a_map_is_like_itself_and_its_opposite_is_not(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert similarities(values, values) == pytest.approx(dict.fromkeys(NAMES, 1.0))
    expected = {"ssim": 1.0, "spearman": -1.0, "spearman_absolute": 1.0, "hog": 1.0}
    assert similarities(values, -3 * values) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "words"), [(0.0, "0 everywhere"), (2.5, "2.5 everywhere"), (np.nan, "576 voxels .* not finite")]
)
def test_why_maps_can_t_be_compared(value: float, words: str) -> None:
    good, bad = noise(24, 24), np.full((24, 24), value, np.float32)
    for pair in ((good, bad), (bad, good)):
        for reason in similarities(*pair).values():
            assert isinstance(reason, str)
            assert re.search(words, reason)


def test_small_maps_have_no_structure_but_ranks() -> None:
    one, other = np.random.default_rng(0).random((2, 2, 9), np.float32)
    found = similarities(one, other)
    assert isinstance(found["ssim"], str)
    assert isinstance(found["hog"], str)
    assert isinstance(found["spearman"], float)


def test_only_what_is_known_counts() -> None:
    one = noise(32, 32)
    inside = np.zeros((32, 32), bool)
    inside[8:24, 8:24] = True
    # Nothing that is outside is looked at, not even where it is not finite.
    other = np.where(inside, one, np.nan)
    assert similarities(one, other, inside) == pytest.approx(dict.fromkeys(NAMES, 1.0))
    assert isinstance(similarities(one, other)["ssim"], str)
    assert isinstance(similarities(one, other, ~inside & inside)["ssim"], str)


def test_large_maps_are_thinned() -> None:
    large = np.random.default_rng(0).random((128, 96, 64), np.float32)
    assert MOST / 8 < thinned(large).size <= MOST < large.size
    assert similarities(large, large)["spearman"] == pytest.approx(1.0)


def test_of_large_maps_with_hardly_a_value_nothing_is_said() -> None:
    """Between the voxels that are compared two values are lost: that looks like no change, or like all of it."""
    large, sparse = noise(64, 64, 64), np.zeros((64, 64, 64), np.float32)
    sparse[3, 3, 3:5] = 1, 2
    for one, other in ((large, sparse), (sparse, large)):
        verdict = Likeness(one, [other], 0).verdict("With that", "yes", "partly", "no")
        assert verdict.good is None
        assert "0 everywhere" in verdict.sentence
    # Sizes of changes are told all the same: of maps without a voxel in common, that of both.
    assert _control(sparse, 0) == pytest.approx(2**0.5, rel=0.2)


def test_moved_copies_keep_values_and_lose_the_place() -> None:
    values = np.random.default_rng(0).normal(size=(20, 1, 30)).astype(np.float32)
    for copy in moved_copies(values, 5, 3):
        np.testing.assert_array_equal(np.sort(copy, axis=None), np.sort(values, axis=None))
        assert abs(similarities(values, copy)["spearman"]) < 0.2
    again = zip(moved_copies(values, 5, 3), moved_copies(values, 5, 3), strict=True)
    assert all(np.array_equal(a, b) for a, b in again)


def test_smooth_maps_that_have_nothing_in_common_pass_as_often_as_they_should() -> None:
    """Of maps that are unrelated, 5 of 100 are beyond the limit; of 200, 18 at most with a chance of 99 %."""
    random = np.random.default_rng(0)
    beyond = 0
    for k in range(200):
        one, other = (gaussian_filter(random.normal(size=(32, 32)), 4, mode="wrap") for _ in range(2))
        likeness = Likeness(one.astype(np.float32), [other.astype(np.float32)], k)
        beyond += likeness.correlation > likeness.limit
    assert 3 <= beyond <= 18


KINDS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "random": lambda random, shape: random.normal(size=shape),
    "signs": lambda random, shape: random.choice([-1.0, 1.0], shape),
    "constant": lambda _, shape: np.full(shape, 0.7),
    "denormal": lambda random, shape: random.random(shape) * 1e-40,
    "huge": lambda random, shape: random.random(shape) * 3e38,
    "one voxel": lambda _, shape: np.eye(1, int(np.prod(shape))).reshape(shape),
    "infinite": lambda _, shape: np.full(shape, np.inf),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(9, 10), (8, 9, 10), (1, 9, 10), (3, 3), (2, 1), (1, 1, 1)], ids=str)
def test_all_numbers_are_finite_or_have_a_reason(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    for first, second in product(KINDS.values(), KINDS.values()):
        one, other = (make(random, shape).astype(np.float32) for make in (first, second))
        grid = Image.from_array(np.zeros(shape)).grid
        scores = [*Likeness(one, [other], 0).scores(Better.LOWER)]
        scores += make_metric("agreement", {}).measure(Case(one, grid, others={"other": other}), Job()).scores
        for score in scores:
            assert np.isfinite(score.value) != bool(score.reason), score
            assert np.isnan(score.low) or score.low <= score.value <= score.high
        assert Likeness(one, [other], 0).verdict("With that", "yes", "partly", "no").sentence.endswith(".")
