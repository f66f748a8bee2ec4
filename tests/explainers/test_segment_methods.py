"""What every method that explains by segments has to do, whatever the segments are."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pytest
import torch
from helpers import classifier_of, maps_of, segments_of
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_xai_med import Image, explain
from napari_xai_med.errors import InputError
from napari_xai_med.explainers.base import RawMap, explainers, make_explainer
from napari_xai_med.explainers.segmented import SegmentExplainer
from napari_xai_med.explanation import explain_request
from napari_xai_med.grid import Grid
from napari_xai_med.job import Job
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.options import option_fields
from napari_xai_med.request import ExplainRequest
from napari_xai_med.segmenting import Regions
from napari_xai_med.segments.base import Segments
from napari_xai_med.segments.choice import GIVEN, SegmentChoice

METHODS = [name for name, kind in explainers().items() if issubclass(kind, SegmentExplainer)]
ADDITIVE = [name for name in METHODS if explainers()[name].additive]  # type: ignore[attr-defined]
FEW = {"samples": 200, "permutations": 2, "evaluations": 80}
MANY = {"samples": 20_000, "permutations": 400, "evaluations": 100_000}
NOT_SHAPLEY = {"owen", "partitionshap"}
"""Additive methods whose values are others."""


def network(shape: tuple[int, ...]) -> nn.Module:
    """Two classes, nowhere linear."""
    torch.manual_seed(4)
    size = 4 * (shape[0] // 2) * (shape[1] // 2)
    features = (nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(size, 6))
    return nn.Sequential(*features, nn.Tanh(), nn.Linear(6, 2)).double()


def explained(name: str, x: Tensor, segments: Segments, options: dict[str, Any] = FEW, **others: Any) -> list[RawMap]:
    own = [item.name for item in option_fields(explainers()[name])]
    explainer = make_explainer(name, {key: value for key, value in (options | others).items() if key in own})
    classifier = classifier_of(network(tuple(x.shape[2:])), 2)
    return maps_of(explainer, classifier, x, [(0, 0), (0, 1)], segments=(segments,))[0]


def image(*shape: int) -> Tensor:
    return torch.rand(1, 1, *shape, dtype=torch.double, generator=torch.Generator().manual_seed(3)) + 0.5


def values_of_parts(raw: RawMap) -> NDArray[np.float64]:
    assert raw.parts is not None
    return raw.parts.values


@pytest.mark.parametrize("name", METHODS)
def test_one_segment_is_all_that_the_image_has_over_the_baseline(name: str) -> None:
    x = image(8, 8)
    for raw in explained(name, x, Segments(np.ones((8, 8), np.int32))):
        difference = raw.facts["of_image"] - raw.facts["of_baseline"]
        assert np.isfinite(raw.values).all()
        # LIME's ridge keeps the only weight far from it: an image without any segment hardly counts.
        if name != "lime":
            np.testing.assert_allclose(values_of_parts(raw), difference, rtol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_a_segment_may_be_a_voxel(name: str) -> None:
    x = image(8, 8)
    segments = Segments(np.arange(1, 65, dtype=np.int32).reshape(8, 8))
    # Shapley values take two for each segment and two more.
    for raw in explained(name, x, segments, {**FEW, "evaluations": 130}):
        assert np.isfinite(raw.values).all()
        assert raw.values.any()
        np.testing.assert_array_equal(raw.values.ravel(), values_of_parts(raw).astype(np.float32))
        if name in ADDITIVE:
            assert raw.facts["additivity_residual"] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (np.zeros((8, 8), np.int32), "There is no segment in the part of the image that is asked about"),
        (np.repeat(np.array([1, 2, 4, 4], np.int32), 16).reshape(8, 8), "Segment 3 has no voxel; number segments from"),
    ],
)
def test_empty_segments_are_a_sentence(name: str, labels: NDArray[np.int32], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        explained(name, image(8, 8), Segments(labels))


@pytest.mark.parametrize(
    ("name", "side", "sentence"),
    [
        ("shapley", 46, "Shapley values of 2116 segments by 42320 evaluations would take hours"),
        ("lime", 32, "LIME can't tell 1024 segments apart by 1000 samples; take at least 1025"),
        ("owen", 101, "The tree of 10201 segments takes more memory"),
    ],
)
def test_too_many_segments_are_a_sentence(name: str, side: int, sentence: str) -> None:
    each = Segments(np.arange(1, side**2 + 1, dtype=np.int32).reshape(side, side))
    with pytest.raises(InputError, match=sentence):
        explained(name, image(side, side), each, {})


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("value", [0.0, 2.0], ids=["black", "constant"])
def test_a_black_or_constant_image_is_answered(name: str, value: float) -> None:
    """Against zero and against its own mean, of which nothing is to be told apart."""
    x = torch.full((1, 1, 8, 8), value, dtype=torch.double)
    segments = segments_of(x, 9)[0]
    for baseline in ("zero", "mean", "segment_mean", "inpainting"):
        for raw in explained(name, x, segments, baseline=baseline):
            assert np.isfinite(raw.values).all()
            if baseline != "zero" or not value:
                assert not raw.values.any()
                assert raw.parts is not None
                # NaN where a method tells no errors.
                assert not np.nan_to_num(raw.parts.errors).any()
            else:
                assert raw.values.any()


@pytest.mark.parametrize("name", METHODS)
def test_drawn_labels_may_have_any_numbers(name: str) -> None:
    x = image(8, 8)
    drawn = np.zeros((8, 8), np.float32)
    drawn[1:4, 1:4], drawn[4:8, 2:6], drawn[0:2, 6:8] = 40, 7, 300
    grid = Grid((8, 8), np.eye(3))
    picture, labels = Image(x[0].float().numpy(), grid), Image(drawn[None], grid)
    classifier: Classifier = replace(classifier_of(network((8, 8)).float(), 2))
    own = [item.name for item in option_fields(explainers()[name])]
    options = {key: value for key, value in FEW.items() if key in own}
    choice = SegmentChoice("labels", labels=GIVEN)
    found = explain_request(
        picture, classifier, ExplainRequest(name, options, 1, segments=choice), Job(), Regions(labels=labels)
    )
    assert found.segments is not None
    assert found.record.method["segments"]["original"] == [7, 40, 300]
    assert found.segments.table["label"].tolist() == [0, 7, 40, 300]
    contributions = found.segments.table["contribution"].to_numpy()
    for row, number in enumerate((7, 40, 300), 1):
        np.testing.assert_array_equal(found.values[drawn == number], np.float32(contributions[row]))
    assert not found.values[drawn == 0].any()


def shapley(
    classifier_network: nn.Module, x: Tensor, labels: NDArray[np.int32], target: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """By the definition, over all coalitions, and what these are worth by their bits."""
    n = int(labels.max())
    kept = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    masks = np.concatenate([np.ones((2**n, 1)), kept], 1)[:, labels]
    with torch.no_grad():
        worth = classifier_network(x * torch.from_numpy(masks)[:, None])[:, target].numpy()
    values = np.zeros(n)
    for player in range(n):
        others = [k for k in range(n) if k != player]
        for size in range(n):
            for group in combinations(others, size):
                bits = sum(1 << k for k in group)
                values[player] += (worth[bits | 1 << player] - worth[bits]) / (n * comb(n - 1, size))
    return values, worth


@pytest.mark.parametrize("name", [name for name in ADDITIVE if name not in NOT_SHAPLEY])
def test_values_come_to_those_of_shapley(name: str) -> None:
    x = image(8, 8)
    segments = segments_of(x, 10)[0]
    assert 9 <= segments.count <= 12
    for target in range(2):
        expected, worth = shapley(network((8, 8)), x, segments.labels, target)
        few, many = (explained(name, x, segments, options)[target] for options in (FEW, MANY))
        parts = many.parts
        assert parts is not None
        errors = parts.errors
        off = np.abs(parts.values - expected)
        assert off.max() < 0.02 * np.abs(expected).max()
        # Where standard errors are told, the truth lies within four of them.
        assert (off[np.isfinite(errors)] <= 4 * errors[np.isfinite(errors)] + 1e-9).all()
        assert np.abs(values_of_parts(few) - expected).max() >= off.max()
        assert many.facts["additivity_residual"] == pytest.approx(0.0, abs=1e-5)
        assert many.facts["of_image"] - many.facts["of_baseline"] == pytest.approx(worth[-1] - worth[0])


@pytest.mark.parametrize(
    ("segments", "mask", "sentence"),
    [
        ("slick", None, "no way to make segments named 'slick', nor a file; known are: felzenszwalb"),
        ("slick.nii.gz", None, "There is no file"),
        ({"method": "slic", "background": True}, None, "Only drawn segments have a background"),
        (np.ones((5, 5)), None, r"Labels and masks have the shape of image, \(8, 8\); this one has \(5, 5\)"),
        ("slic", np.ones((5, 5)), r"Labels and masks have the shape of image, \(8, 8\); this one has \(5, 5\)"),
    ],
    ids=str,
)
def test_what_is_no_label_map_is_a_sentence(segments: Any, mask: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        explain(image(8, 8)[0, 0].numpy(), network((8, 8)), "lime", segments=segments, mask=mask)


def test_an_order_that_is_not_settled_is_told() -> None:
    x = image(8, 8)
    segments = Segments(np.arange(1, 17, dtype=np.int32).reshape(4, 4).repeat(2, 0).repeat(2, 1))
    for options, told in (({}, False), ({"tolerance": 1e-9}, True), ({"tolerance": 1.0}, False)):
        for raw in explained("shapley", x, segments, {"evaluations": 60, **options}):
            assert any("After 60 evaluations" in notice for notice in raw.notices) == told
            assert raw.facts["settled"] == (options.get("tolerance") == 1.0)
