from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from label_maps import ball, texture

from napari_xai_med.errors import InputError
from napari_xai_med.image import PLANES
from napari_xai_med.options import option_fields
from napari_xai_med.slices import ChosenSlices, make_slice_rule, slice_rules, top_slices

SHAPE = (6, 7, 8)
VOLUME = texture(SHAPE, channels=2)
AXES = range(len(PLANES))


def across(values: np.ndarray, axis: int, index: int) -> np.ndarray:
    return np.take(values, index, axis)


def test_rules_are_listed() -> None:
    assert list(slice_rules()) == ["activation", "mask", "intensity", "body"]
    assert {name: rule.needs for name, rule in slice_rules().items()} == {
        "activation": "map",
        "mask": "mask",
        "intensity": None,
        "body": None,
    }
    assert [item.name for item in option_fields(slice_rules()["intensity"])] == ["low", "high"]
    with pytest.raises(InputError, match="There is no rule 'x' for slices; choose one of activation"):
        make_slice_rule("x", {})
    with pytest.raises(InputError, match="can't have by 'mean'"):
        make_slice_rule("activation", {"by": "mean"})


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("by", ["sum", "max"])
@pytest.mark.parametrize("masked", [False, True])
def test_activation_counts_what_is_positive(axis: int, by: str, masked: bool) -> None:
    heatmap = texture(SHAPE, seed=1)[0]
    mask = ball(SHAPE) if masked else None
    scores = make_slice_rule("activation", {"by": by}).scores(VOLUME, heatmap, mask, axis)
    assert scores.dtype == np.float64
    for k, score in enumerate(scores):
        values = across(heatmap if mask is None else heatmap * mask, axis, k)
        expected = values[values > 0].sum() if by == "sum" else max(values.max(), 0)
        assert score == pytest.approx(expected, rel=1e-5)
    assert not make_slice_rule("activation", {"by": by}).scores(VOLUME, -np.abs(heatmap), mask, axis).any()


@pytest.mark.parametrize("axis", AXES)
def test_mask_intensity_and_body(axis: int) -> None:
    mask = np.random.default_rng(0).random(SHAPE) < 0.3
    area = make_slice_rule("mask", {}).scores(VOLUME, mask=mask, axis=axis)
    rule = make_slice_rule("intensity", {"low": -100.0, "high": 50.0})
    share, inside = rule.scores(VOLUME, axis=axis), rule.scores(VOLUME, mask=mask, axis=axis)
    within = (VOLUME[0] >= -100) & (VOLUME[0] <= 50)
    assert len(area) == len(share) == SHAPE[axis]
    for k in range(SHAPE[axis]):
        assert area[k] == across(mask, axis, k).sum()
        assert share[k] == across(within, axis, k).mean()
        assert inside[k] == across(within & mask, axis, k).mean()
    bodies = np.where(ball((20, 20, 20)), 40, -1000)[None].astype(np.float32)
    body = make_slice_rule("body", {}).scores(bodies, axis=axis)
    np.testing.assert_array_equal(body, ball((20, 20, 20)).sum((1, 2)))


def test_ground_glass_is_the_default_range() -> None:
    """Its limits belong to it."""
    volume = np.full((1, 4, 2, 2), 40, np.float32)
    volume[0, 1, 0], volume[0, 2], volume[0, 3, 0] = -750, -300, -751
    assert make_slice_rule("intensity", {}).scores(volume).tolist() == [0, 0.5, 1, 0]


@pytest.mark.parametrize(
    ("name", "options", "given", "sentence"),
    [
        ("activation", {}, {}, "Highest activation needs a heatmap; choose one."),
        ("mask", {}, {"map": VOLUME[0]}, "Largest area of a mask needs a mask; choose one."),
        ("mask", {}, {"mask": np.ones((2, 2, 2), bool)}, "A mask of shape (2, 2, 2) does not fit a volume"),
        ("activation", {}, {"map": np.ones((2, 2, 2))}, "A map of shape (2, 2, 2) does not fit a volume"),
        ("intensity", {"low": 1.0, "high": 0.0}, {}, "No intensity is from 1 to 0; exchange them."),
        ("intensity", {}, {"axis": 3}, "There is no axis 3"),
        ("body", {}, {"volume": np.ones((1, *SHAPE), np.float32)}, "No body can be told"),
        ("body", {}, {"volume": np.ones((1, 4, 4), np.float32)}, "Slices are chosen of 3D images"),
    ],
)
def test_errors_are_sentences(name: str, options: dict[str, Any], given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as error:
        make_slice_rule(name, options).scores(**({"volume": VOLUME} | given))
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize(
    ("count", "distance", "spacing", "expected"),
    [
        (1, 0, 1, (4,)),
        (3, 0, 1, (4, 5, 1)),
        (3, 1, 1, (4, 5, 1)),
        (3, 1.01, 1, (4, 1, 6)),
        # Exactly as far is far enough; in thicker slices neighbours are.
        (3, 3, 1, (4, 1, 7)),
        (3, 3, 3, (4, 5, 1)),
        (3, 0.3, 0.1, (4, 1, 7)),
        (2, 3.01, 1, (4, 0)),
    ],
)
def test_top_slices(count: int, distance: float, spacing: float, expected: tuple[int, ...]) -> None:
    scores = np.array([0.1, 6, 5, 0.2, 9, 8, 4, 3])
    assert top_slices(scores, count, distance, spacing) == ChosenSlices(expected)


def test_equal_scores_and_too_few_slices() -> None:
    assert top_slices(np.ones(5), 2).indices == (0, 1)
    assert top_slices(np.ones(5), 2, 2.0).indices == (0, 2)
    found = top_slices(np.array([0, 2, 0, 3.0]), 3)
    assert found.indices == (3, 1)
    assert found.notices == ("2 of 3 slices could be chosen: the others score 0 or are nearer to these than 0 mm.",)
    assert top_slices(np.zeros(5), 1).indices == ()
    assert top_slices(np.ones(4), 3, 10.0).indices == (0,)
    assert len(top_slices(np.ones(4), 9).notices) == 1


@pytest.mark.parametrize("wrong", [{"count": 0}, {"minimum_distance": -1.0}, {"spacing": 0.0}])
def test_what_can_not_be_chosen(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="give at least one slice, a distance that is not negative"):
        top_slices(np.ones(4), **({"count": 1} | wrong))


def test_chosen_slices_are_as_good_as_can_be() -> None:
    """Greedy: each is the best of those that are far enough from the ones before."""
    random = np.random.default_rng(0)
    for _ in range(50):
        scores = random.random(30).round(1)
        distance = int(random.integers(0, 8))
        found = top_slices(scores, 4, float(distance)).indices
        for k, index in enumerate(found):
            free = [j for j in range(30) if all(abs(j - i) >= distance for i in found[:k]) and j not in found[:k]]
            assert scores[index] == scores[free].max() > 0
