from __future__ import annotations

from math import isnan

import numpy as np
import pytest
import torch
from mask_cases import SPACING, case_on, outcome_of, scores_of, values_of
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.stats import binomtest

from napari_xai_med.metrics.case import Case
from napari_xai_med.metrics.lesions import intervals
from napari_xai_med.metrics.over_masks import CHANCE
from napari_xai_med.metrics.surfaces import Surface


def blobs(seed: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A smooth map and a smooth mask, in part alike."""
    random = np.random.default_rng(seed)
    common, own, other = (gaussian_filter(random.normal(size=shape), 1.5) for _ in range(3))
    return (common + own).astype(np.float32), common + other > 0.12


@pytest.mark.parametrize("shape", [(40, 50), (12, 30, 31), (1, 30, 40)], ids=str)
@pytest.mark.parametrize("lower", [0.0, 0.5])
@pytest.mark.parametrize("seed", range(2))
def test_surface_distances_are_those_of_monai(shape: tuple[int, ...], lower: float, seed: int) -> None:
    values, mask = blobs(seed, shape)
    found = values_of("distances", case_on(values, mask), lower=lower)
    marked = np.maximum(values, 0) > np.float32(lower * float(values.max()))
    ours, theirs = (torch.from_numpy(each)[None, None] for each in (marked, mask))
    with_spacing = {"include_background": True, "spacing": SPACING[len(shape)]}
    hausdorff = compute_hausdorff_distance(ours, theirs, **with_spacing)
    assert found["hausdorff"] == pytest.approx(float(hausdorff), rel=1e-6)
    most = compute_hausdorff_distance(ours, theirs, percentile=95, **with_spacing)
    assert found["hausdorff_95"] == pytest.approx(float(most), rel=1e-6)
    mean = compute_average_surface_distance(ours, theirs, symmetric=True, **with_spacing)
    assert found["mean_surface_distance"] == pytest.approx(float(mean), rel=1e-6)


def test_two_boxes_are_as_far_apart_as_they_lie() -> None:
    values, mask = np.zeros((4, 5, 30)), np.zeros((4, 5, 30))
    values[1:3, 2:4, 2:5], mask[1:3, 2:4, 10:13] = 1, 1
    found = scores_of("distances", case_on(values, mask))
    assert found["hausdorff"].value == found["hausdorff_95"].value == pytest.approx(8 * SPACING[3][2])
    assert found["hausdorff"].unit == "mm"
    assert set(values_of("distances", case_on(mask, mask)).values()) == {0}
    nothing = scores_of("distances", case_on(values, mask), threshold="absolute", lower=1.0)
    assert all(score.reason == "The map marks nothing at this threshold." for score in nothing.values())


@pytest.mark.parametrize("shape", [(40, 50), (12, 30, 31)], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_the_peak_is_as_far_as_the_distance_transform_says(shape: tuple[int, ...], seed: int) -> None:
    values, mask = blobs(seed, shape)
    values = np.random.default_rng(seed).permuted(values)
    made = case_on(values, mask)
    away = distance_transform_edt(~mask, sampling=SPACING[len(shape)])
    found, chance = values_of("peak", made), values_of("peak", made, CHANCE)
    assert found["peak_distance"] == pytest.approx(away.flat[values.argmax()], rel=1e-12)
    assert found["pointing_game"] == mask.flat[values.argmax()]
    assert chance["pointing_game"] == pytest.approx(mask.mean())
    # Four standard errors of ten thousand places.
    assert chance["peak_distance"] == pytest.approx(away.mean(), abs=4 * away.std() / 100)


def test_several_peaks_count_each_and_a_tolerance_is_in_millimetres() -> None:
    values, mask = np.zeros((10, 10)), np.zeros((10, 10))
    mask[2, 2], values[2, 2], values[2, 4], values[7, 2] = 1, 5, 5, 5
    made = case_on(values, mask)
    # Two columns of 2 mm, and five rows of 0.3 mm.
    assert values_of("peak", made) == pytest.approx({"pointing_game": 1 / 3, "peak_distance": (4 + 1.5) / 3})
    assert values_of("peak", made, tolerance=1.5)["pointing_game"] == pytest.approx(2 / 3)
    assert outcome_of("peak", made).notices == ("3 voxels share the maximum; all of them count as its peak.",)


@pytest.mark.parametrize("inside", [True, False])
def test_the_verdict_is_beside_a_place_drawn_at_random(inside: bool) -> None:
    values, mask = np.zeros((20, 20)), np.zeros((20, 20))
    mask[:2, :2], values[(0, 0) if inside else (19, 19)] = 1, 1
    (verdict,) = outcome_of("peak", case_on(values, mask)).verdicts
    assert verdict.good is inside
    assert f"{values_of('peak', case_on(values, mask), CHANCE)['peak_distance']:.1f} mm" in verdict.sentence


def test_a_surface_ends_at_the_border_of_the_image_too() -> None:
    assert len(Surface.of(np.ones((4, 5, 6), bool), (1, 1, 1)).points) == 4 * 5 * 6 - 2 * 3 * 4
    assert len(Surface.of(np.ones((1, 5, 6), bool), (1, 1, 1)).points) == 30


def lesions_case() -> Case:
    """Six lesions of 1, 2, ... 6 voxels in a row, of which the map marks the first voxel in four, and one elsewhere."""
    mask, values = np.zeros((14, 10)), np.zeros((14, 10))
    for k in range(6):
        mask[2 * k, : k + 1] = 1
        values[2 * k, 0] = k < 4
    values[13, 9] = 1
    return case_on(values, mask)


def test_lesions_are_counted_one_by_one() -> None:
    made = lesions_case()
    found = values_of("lesions", made)
    assert found["lesions"] == 6
    assert found["hit_rate"] == 4 / 6
    assert found["lesion_coverage"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 6)
    assert found["lesion_size"] == pytest.approx(3.5 * 0.6)
    assert found["false_positive_size"] == pytest.approx(0.6)
    assert found["false_positive_parts"] == 1
    assert found["false_positive_mass"] == pytest.approx(1 / (140 - 21))
    (verdict,) = outcome_of("lesions", made).verdicts
    assert "touches 4 of 6 lesions" in verdict.sentence


def test_chance_touches_large_lesions_more_often() -> None:
    made = lesions_case()
    chance = values_of("lesions", made, CHANCE)
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(600):
        shuffled = case_on(random.permuted(made.values), made.masks["m"])
        drawn.append(values_of("lesions", shuffled))
    for name, expected in chance.items():
        values = [each[name] for each in drawn]
        # Marks are drawn without replacement here, and one by one there.
        assert np.mean(values) == pytest.approx(expected, abs=4 * np.std(values) / np.sqrt(600) + 0.002), name


def test_strata_are_by_size_and_number() -> None:
    made = lesions_case()
    # 0.01 and 0.02 cm2: up to 1 voxel of 0.6 mm2, up to 3, and larger ones.
    outcome = outcome_of("lesions", made, edges=(0.01, 0.02))
    strata = {score.at: score.value for score in outcome.scores if score.name == "hit_rate" and ";" in score.at}
    assert {text.partition("; ")[2]: value for text, value in strata.items()} == {
        "lesions > 0 mm2, <= 1 mm2": 1,
        "lesions > 1 mm2, <= 2 mm2": 1,
        "lesions > 2 mm2": 1 / 3,
    }
    assert [score.at for score in outcome.scores if score.name == "lesions"][1] == "more than 5 lesions"
    each = [score for score in outcome_of("lesions", made, each=True).scores if "lesion 3" in score.of]
    assert [score.value for score in each] == pytest.approx([1 / 3, 3 * 0.6])


def test_intervals_are_over_lesions_and_cover_their_mean() -> None:
    score = scores_of("lesions", lesions_case())["hit_rate"]
    wilson = binomtest(4, 6).proportion_ci(method="wilson")
    assert (score.low, score.high) == (wilson.low, wilson.high)
    random = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        low, high = intervals(random.beta(2, 3, 30), seed)["lesion_coverage"]
        covered += low < 2 / 5 < high
    # Of intervals of 95 %; four standard errors, and the bootstrap's own 2 % at 30 lesions.
    assert covered / 200 == pytest.approx(0.94, abs=0.06)
    assert intervals(np.ones(4), 0) == {}
    assert "lesion_coverage" not in intervals(np.ones(9), 0)
    assert intervals(np.ones(9), 0)["hit_rate"][0] < 0.75


def test_an_image_without_lesions_tells_what_is_marked() -> None:
    values = np.zeros((10, 10))
    values[2:4, 2:4], values[7, 7] = 1, 0.8
    found = scores_of("lesions", case_on(values, np.zeros((10, 10))))
    assert {name for name, score in found.items() if isnan(score.value)} == (
        {"hit_rate", "lesion_coverage", "lesion_size"}
    )
    assert found["lesions"].value == 0
    assert found["false_positive_parts"].value == 2
    assert found["false_positive_size"].value == pytest.approx(5 * 0.6)
    assert found["false_positive_mass"].value == pytest.approx(4.8 / 100)


@pytest.mark.parametrize(("name", "same"), [("lesions", "hit_rate"), ("peak", "pointing_game")])
def test_what_is_drawn_depends_on_the_seed_alone(name: str, same: str) -> None:
    values, mask = blobs(0, (60, 70))
    first, again, other = (
        [(score.name, score.value, score.low) for score in outcome_of(name, case_on(values, mask, seed=seed)).scores]
        for seed in (0, 0, 1)
    )
    assert str(first) == str(again)
    assert str(first) != str(other)
    assert str([row for row in first if row[0] == same]) == str([row for row in other if row[0] == same])
