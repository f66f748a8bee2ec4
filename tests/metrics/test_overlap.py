from __future__ import annotations

from math import isnan

import numpy as np
import pytest
import torch
from mask_cases import case_on, outcome_of, random_pair, scores_of, values_of
from monai.metrics import compute_dice, compute_iou
from skimage.filters import threshold_otsu
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, precision_score, recall_score

from napari_xai_med.bands import band_labels
from napari_xai_med.metrics.base import make_metric
from napari_xai_med.metrics.case import Case, Sign
from napari_xai_med.metrics.outcome import Curves
from napari_xai_med.metrics.over_masks import CHANCE
from napari_xai_med.metrics.threshold_curve import above
from napari_xai_med.metrics.thresholds import CHUNK, Thresholded

SHAPES = ((30, 41), (9, 20, 31), (1, 30, 41))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("lower", [0.0, 0.3, 0.9])
def test_counts_are_those_of_scikit_learn_and_monai(shape: tuple[int, ...], lower: float) -> None:
    values, mask = random_pair(0, shape)
    found = values_of("binary_overlap", case_on(values, mask), lower=lower)
    marked = values > np.float32(lower) * values.max()
    truth, guess = mask.ravel(), marked.ravel()
    assert found["dice"] == found["f1"] == pytest.approx(f1_score(truth, guess), abs=1e-12)
    assert found["iou"] == pytest.approx(jaccard_score(truth, guess), abs=1e-12)
    assert found["precision"] == pytest.approx(precision_score(truth, guess), abs=1e-12)
    assert found["recall"] == pytest.approx(recall_score(truth, guess), abs=1e-12)
    assert found["specificity"] == pytest.approx(recall_score(~truth, ~guess), abs=1e-12)
    assert found["pixel_accuracy"] == pytest.approx(accuracy_score(truth, guess), abs=1e-12)
    ours, theirs = (torch.from_numpy(each)[None, None] for each in (marked, mask))
    assert found["dice"] == pytest.approx(float(compute_dice(ours, theirs)), abs=1e-6)
    assert found["iou"] == pytest.approx(float(compute_iou(ours, theirs)), abs=1e-6)


def test_more_voxels_than_are_looked_at_together() -> None:
    values, mask = random_pair(0, (CHUNK // 1000 + 7, 2003))
    found = values_of("binary_overlap", case_on(values, mask), threshold="absolute")
    assert found["dice"] == f1_score(mask.ravel(), values.ravel() > 0.5)


@pytest.mark.parametrize(("shape", "unit", "per_voxel"), [((4, 5), "mm2", 0.6), ((4, 5, 6), "mL", 0.7 * 0.9 * 6.5e-3)])
def test_sizes_are_of_voxels_with_their_spacing(shape: tuple[int, ...], unit: str, per_voxel: float) -> None:
    values, mask = random_pair(0, shape)
    sizes = scores_of("binary_overlap", case_on(values, mask))
    assert sizes["mask_size"].value == pytest.approx(per_voxel * mask.sum())
    assert sizes["map_size"].value == pytest.approx(per_voxel * (values > values.max() / 2).sum())
    assert {sizes[name].unit for name in ("mask_size", "map_size", "overlap_size")} == {unit}


def test_chance_is_the_mean_over_as_many_voxels_anywhere() -> None:
    values, mask = random_pair(0, (20, 30))
    random = np.random.default_rng(1)
    shuffled = [values_of("binary_overlap", case_on(random.permuted(values), mask)) for _ in range(500)]
    chance = values_of("binary_overlap", case_on(values, mask), CHANCE)
    assert {"dice", "iou", "precision", "recall", "specificity", "pixel_accuracy"} < set(chance)
    for name, expected in chance.items():
        drawn = [each[name] for each in shuffled]
        # Four standard errors; what is the IoU of mean counts lies a little below the mean IoU.
        slack = 0.003 if name == "iou" else 1e-12
        assert np.mean(drawn) == pytest.approx(expected, abs=4 * np.std(drawn) / np.sqrt(len(drawn)) + slack), name


def test_signs_choose_what_is_evidence() -> None:
    values, mask = random_pair(0, (20, 30))
    for sign, part in ((Sign.NEGATIVE, -values), (Sign.ABSOLUTE, np.abs(values))):
        found = values_of("binary_overlap", case_on(values, mask, sign))
        assert found == values_of("binary_overlap", case_on(part, mask))
        assert found != values_of("binary_overlap", case_on(values, mask))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"threshold": "absolute", "lower": 0.25}, lambda e: e > 0.25),
        ({"lower": 0.3, "upper": 0.7}, lambda e: band_labels(e, (0.3, 0.7), signed=False) == 1),
        ({"threshold": "percentile", "lower": 90.0}, lambda e: e > np.percentile(e, 90)),
        (
            {"threshold": "percentile", "lower": 80.0, "upper": 90.0},
            lambda e: (e > np.percentile(e, 80)) & (e <= np.percentile(e, 90)),
        ),
        ({"threshold": "otsu"}, lambda e: e > threshold_otsu(e)),
        ({"threshold": "top", "lower": 5.0}, lambda e: e >= np.sort(e, axis=None)[-round(e.size / 20)]),
        # Four voxels in ten are above zero, and no other counts.
        ({"threshold": "top", "lower": 90.0}, lambda e: e > 0),
    ],
)
def test_thresholds_mark_what_they_say(options: dict[str, object], expected: object) -> None:
    evidence = np.maximum(random_pair(0, (30, 40))[0], 0)
    marked = make_metric("binary_overlap", options)
    assert isinstance(marked, Thresholded)
    np.testing.assert_array_equal(marked.cut(evidence, float(evidence.max())).marked(evidence), expected(evidence))  # type: ignore[operator]


def test_equal_values_at_the_top_are_marked_together() -> None:
    evidence = np.repeat(np.float32([0, 1, 2, 3]), 5)
    cut = make_metric("binary_overlap", {"threshold": "top", "lower": 35.0}).cut(evidence, 3.0)  # type: ignore[attr-defined]
    assert cut.marked(evidence).sum() == 10


def test_what_is_not_defined_has_a_reason_and_the_rest_a_number() -> None:
    values = np.zeros((6, 6))
    values[:2] = 1
    empty = scores_of("binary_overlap", case_on(values, np.zeros((6, 6))))
    assert {name for name, score in empty.items() if isnan(score.value)} == (
        {"dice", "iou", "precision", "recall", "f1", "hit", "overlap_size"}
    )
    assert empty["specificity"].value == pytest.approx(2 / 3)
    nothing = scores_of("binary_overlap", case_on(values, values), threshold="absolute", lower=2.0)
    assert nothing["dice"].value == nothing["recall"].value == nothing["hit"].value == 0
    assert nothing["precision"].reason == "The map marks nothing at this threshold."
    full = scores_of("binary_overlap", case_on(values, np.ones((6, 6))))
    assert full["specificity"].reason.startswith("The mask covers the whole image")
    assert full["precision"].value == 1


@pytest.mark.parametrize("good", [True, False])
def test_the_verdict_is_beside_chance(good: bool) -> None:
    mask = np.zeros((10, 10))
    mask[:2] = 1
    (verdict,) = outcome_of("binary_overlap", case_on(mask if good else 1 - mask, mask)).verdicts
    assert verdict.good is good
    # Of 20 voxels at random 4 lie in the mask, of 80 there are 16.
    assert ("1.000, 0.200 by chance" if good else "0.000, 0.320 by chance") in verdict.sentence


@pytest.mark.parametrize("steps", [2, 16, 255])
@pytest.mark.parametrize("decimals", [None, 1])
def test_the_curve_is_what_each_threshold_gives(steps: int, decimals: int | None) -> None:
    values, mask = random_pair(0, (15, 16, 17), decimals)
    evidence = np.maximum(values, 0)
    marked, both = above(evidence, mask, steps)
    # What is compared is a share of the maximum, in the map's own precision.
    share = evidence / evidence.max() * steps
    np.testing.assert_array_equal(marked, [(share > k).sum() for k in range(steps)])
    np.testing.assert_array_equal(both, [(share > k)[mask].sum() for k in range(steps)])


def test_the_best_threshold_is_the_best() -> None:
    values, mask = random_pair(0, (15, 16, 17))
    made = case_on(values, mask)
    outcome = outcome_of("threshold_curve", made, steps=64)
    found = values_of("threshold_curve", made, steps=64)
    dice = [values_of("binary_overlap", made, lower=k / 64)["dice"] for k in range(64)]
    assert found["best_dice"] == pytest.approx(max(dice))
    assert found["best_threshold"] == np.argmax(dice) / 64
    assert found["mean_dice"] == pytest.approx(np.mean(dice))
    (plot,) = outcome.plots
    assert isinstance(plot, Curves)
    assert plot.best == found["best_threshold"]
    np.testing.assert_allclose(plot.lines[0].y, dice)
    control = [values_of("binary_overlap", made, CHANCE, lower=k / 64)["dice"] for k in range(64)]
    np.testing.assert_allclose(plot.lines[-1].y, control)
    assert values_of("threshold_curve", made, CHANCE, steps=64)["best_dice"] == pytest.approx(max(control))


def test_every_mask_has_its_own_numbers() -> None:
    values, mask = random_pair(0, (20, 30))
    made = case_on(values, mask)
    both = Case(made.values, made.grid, {"first": mask, "second": ~mask})
    scores = [score for score in outcome_of("binary_overlap", both).scores if score.name == "recall"]
    assert [score.of for score in scores] == ["first", "first", "second", "second"]
    assert scores[0].value == values_of("binary_overlap", made)["recall"]
