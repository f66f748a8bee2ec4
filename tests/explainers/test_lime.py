from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from helpers import classifier_of, maps_of, segments_of
from lime.lime_image import LimeImageExplainer
from numpy.typing import NDArray
from scipy.stats import spearmanr
from segment_cases import HEADS, case, weights_of
from torch import Tensor, nn

from napari_xai_med.errors import InputError
from napari_xai_med.explainers.lime import Lime
from napari_xai_med.job import Job
from napari_xai_med.models.head import Head
from napari_xai_med.models.target import Quantity, Target
from napari_xai_med.segments.base import Segments


@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "rgb"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("quantity", [Quantity.LOGIT, Quantity.PROBABILITY])
@pytest.mark.parametrize(
    ("hide_color", "feature_selection", "features"),
    [(None, "auto", 100_000), (0.25, "none", 0), (None, "auto", 4), (0.25, "lasso_path", 5), (0, "highest_weights", 3)],
)
def test_equals_lime(
    channels: int, head: Head, quantity: Quantity, hide_color: float | None, feature_selection: str, features: int
) -> None:
    classifier, x = case(channels, head)
    segments = segments_of(x, 12)
    targets = [Target(k, None, quantity) for k in range(2)]

    def ask(images: NDArray[np.float64]) -> NDArray[np.float64]:
        batch = torch.from_numpy(np.moveaxis(images, -1, 1)[:, :channels].copy())
        with torch.no_grad():
            answer = head.answer(classifier.network(batch), len(classifier.class_names))
            return torch.stack([target.of(answer) for target in targets], 1).numpy()

    image = np.moveaxis(x[0].numpy(), 0, -1)
    theirs = LimeImageExplainer(0.3, feature_selection=feature_selection, random_state=7).explain_instance(
        image if channels == 3 else image[..., 0],
        ask,
        labels=(0, 1),
        hide_color=hide_color,
        top_labels=None,
        num_features=features or segments[0].count,
        num_samples=150,
        segmentation_fn=lambda _: segments[0].labels - 1,
        random_seed=0,
    )
    explainer = Lime(
        samples=150,
        kernel_width=0.3,
        feature_selection=feature_selection,
        features=features,
        seed=7,
        baseline="segment_mean" if hide_color is None else "constant",
        constant=float(hide_color or 0.0),
    )
    maps, _ = maps_of(explainer, classifier, x, [(0, target) for target in targets], segments=segments)
    for k, raw in enumerate(maps):
        expected = np.zeros(segments[0].count)
        for segment, weight in theirs.local_exp[k]:
            expected[segment] = weight
        np.testing.assert_allclose(weights_of(raw), expected, atol=1e-6 * np.abs(expected).max(), rtol=1e-6)
        assert raw.facts["intercept"] == pytest.approx(theirs.intercept[k], rel=1e-6)
        assert np.count_nonzero(expected) <= (features or segments[0].count)
    # Lime keeps that of the last class only.
    assert maps[1].facts["r2"] == pytest.approx(theirs.score, rel=1e-6)
    assert maps[1].facts["local_prediction"] == pytest.approx(theirs.local_pred[0], rel=1e-6)
    assert maps[1].facts["samples_used"] == 150


@pytest.mark.parametrize("sampling", ["half", "sizes"])
def test_standard_errors_and_rank_correlation_are_those_from_seed_to_seed(sampling: str) -> None:
    classifier, x = case(1, Head.SOFTMAX)
    segments = segments_of(x, 12)
    runs = [
        maps_of(Lime(samples=200, sampling=sampling, seed=seed), classifier, x, [(0, 1)], segments=segments)[0][0]
        for seed in range(40)
    ]
    values = np.array([weights_of(raw) for raw in runs])
    told = np.array([raw.parts.errors for raw in runs if raw.parts is not None])
    # The standard deviation of 40 runs is itself known to 11 %.
    ratio = values.std(0, ddof=1) / np.sqrt((told**2).mean(0))
    assert 0.85 < np.median(ratio) < 1.15
    assert ((ratio > 0.6) & (ratio < 1.5)).all()
    found = np.mean([spearmanr(*pair).statistic for pair in zip(values[::2], values[1::2], strict=True)])
    # Simulated around each run, whose own noise spreads the ranks out.
    expected = np.mean([raw.facts["expected_rank_correlation"] for raw in runs])
    assert expected == pytest.approx(found, abs=0.1)


class Parity(nn.Module):
    """One logit that says whether the number of columns with something in them is odd: no sum of weights."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amax(2).sum(2) % 2


@pytest.mark.parametrize(
    ("network", "poor"), [(Parity(), True), (nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), False)]
)
def test_a_poor_fit_or_seed_is_told_with_its_number(network: nn.Module, poor: bool) -> None:
    torch.manual_seed(0)
    columns = Segments(np.tile(np.arange(1, 9, dtype=np.int32), (8, 1)))
    classifier = classifier_of(network, 2, head=Head.ONE_LOGIT)
    (raw,), _ = maps_of(Lime(samples=300), classifier, torch.ones(1, 1, 8, 8), [(0, 1)], segments=(columns,))
    for fact, limit, told in (("r2", 0.5, "(R2 {:.2f})"), ("expected_rank_correlation", 0.95, "correlation {:.2f})")):
        assert (raw.facts[fact] < limit) == poor
        assert any(told.format(raw.facts[fact]) in notice for notice in raw.notices) == poor


def test_estimates_come_while_samples_are_asked_for() -> None:
    classifier, x = case(1, Head.SOFTMAX)
    shown: list[Any] = []
    maps, _ = maps_of(
        Lime(samples=300), classifier, x, [(0, 1)], Job(partial=shown.append), segments=segments_of(x, 12)
    )
    used = [found[0].facts["samples_used"] for found, _ in shown]
    assert used == [64, 128, 256, 300]
    # The same as if these were all.
    (fewer,), _ = maps_of(Lime(samples=64), classifier, x, [(0, 1)], segments=segments_of(x, 12))
    assert maps[0].facts["samples_used"] == 300
    np.testing.assert_allclose(weights_of(shown[0][0][0]), weights_of(fewer), atol=1e-12)


@pytest.mark.parametrize("selection", ["lasso_path", "highest_weights", "forward_selection"])
def test_how_alike_another_seed_selects_is_told(selection: str) -> None:
    classifier, x = case(1, Head.SOFTMAX)

    def run(samples: int, seed: int = 0) -> Any:
        lime = Lime(samples=samples, seed=seed, feature_selection=selection, features=4)
        return maps_of(lime, classifier, x, [(0, 1)], segments=segments_of(x, 12))[0][0]

    runs = [run(30, seed) for seed in range(6)]
    measured = np.mean([spearmanr(*pair).statistic for pair in combinations([weights_of(raw) for raw in runs], 2)])
    told = [raw.facts["expected_rank_correlation"] for raw in runs]
    # Drawn again from what was drawn, which spreads the ranks out: rather too low than too high.
    assert measured - 0.35 < np.mean(told) < measured + 0.1
    assert all(any("With another seed" in notice for notice in raw.notices) for raw in runs)
    assert run(200).facts["expected_rank_correlation"] > np.mean(told)


def test_a_number_of_features_needs_a_selection() -> None:
    classifier, x = case(1, Head.SOFTMAX)
    with pytest.raises(InputError, match="LIME keeps 5 segments only with a feature selection"):
        maps_of(Lime(features=5), classifier, x, [(0, 1)], segments=segments_of(x, 12))


@pytest.mark.parametrize(("count", "width", "told"), [(1, 0.25, True), (12, 0.01, True), (12, 0.25, False)])
def test_a_kernel_that_counts_nothing_is_told(count: int, width: float, told: bool) -> None:
    classifier, x = case(1, Head.SOFTMAX)
    segments = segments_of(x, 12) if count > 1 else (Segments(np.ones(x.shape[2:], np.int32)),)
    (raw,), _ = maps_of(Lime(kernel_width=width), classifier, x, [(0, 1)], segments=segments)
    assert any(f"With a kernel width of {width:g} masked images count" in notice for notice in raw.notices) == told
    assert not any("segments act together" in notice for notice in raw.notices)
