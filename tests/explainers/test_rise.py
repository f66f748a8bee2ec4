from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
import pytest
import torch
from helpers import classifier_of, maps_of
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from torch import Tensor, nn

from napari_xai_med.explainers.base import RawMap
from napari_xai_med.explainers.rise import RISE
from napari_xai_med.job import Job
from napari_xai_med.models.classifier import Classifier

SHAPES = {2: (2, 17, 12), 3: (2, 9, 12, 7)}


def case(dims: int, dtype: torch.dtype = torch.double) -> tuple[Classifier, Tensor]:
    torch.manual_seed(3)
    convolution = (nn.Conv2d, nn.Conv3d)[dims - 2]
    size = 4 * int(np.prod(SHAPES[dims][1:]))
    layers = (convolution(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(size, 3))
    network = nn.Sequential(*layers).to(dtype)
    # A logit far from 0, which a sum must not lose the differences by.
    with torch.no_grad():
        network[-1].bias += 30
    return classifier_of(network, dims, 3, channels=2), torch.rand(2, *SHAPES[dims], dtype=dtype)


def plain(
    classifier: Classifier, image: Tensor, target: int, count: int, cells: int, probability: float, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Masks and scores as Petsiuk et al. describe them, one by one."""
    random = np.random.default_rng(seed)
    shape = image.shape[1:]
    counts = [min(cells, n) for n in shape]
    lengths = [ceil(n / k) for n, k in zip(shape, counts, strict=True)]
    shown = random.random((count, *counts)) < probability
    shifts = random.integers(0, lengths, (count, len(shape)))
    masks, scores = [], []
    for grid, shift in zip(shown, shifts, strict=True):
        places = [
            (np.arange(n) + s + 0.5) * k / ((k + 1) * length) - 0.5
            for n, s, k, length in zip(shape, shift, counts, lengths, strict=True)
        ]
        index = np.meshgrid(*places, indexing="ij")
        masks.append(map_coordinates(grid.astype(float), index, order=1, mode="nearest"))
        with torch.no_grad():
            scores.append(float(classifier.network((image * torch.from_numpy(masks[-1]))[None])[0, target]))
    return np.array(masks), np.array(scores)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize(("count", "cells", "probability"), [(100, 4, 0.5), (70, 30, 0.2)])
def test_equals_a_plain_loop(dims: int, centred: bool, count: int, cells: int, probability: float) -> None:
    classifier, x = case(dims)
    explainer = RISE(masks=count, cells=cells, probability=probability, centred=centred, seed=5)
    maps, _ = maps_of(explainer, classifier, x, [(0, 1), (1, 0), (0, 2)])
    for raw, (row, target) in zip(maps, [(0, 1), (1, 0), (0, 2)], strict=True):
        masks, scores = plain(classifier, x[row], target, count, cells, probability, 5)
        weights = scores - scores.mean() if centred else scores
        expected = np.tensordot(weights, masks, 1) / (count * probability)
        np.testing.assert_allclose(raw.values, expected, atol=1e-6 * np.abs(expected).max())
        assert raw.facts["mean_score"] == pytest.approx(scores.mean())
        assert raw.facts["masks_used"] == count


@pytest.mark.parametrize("dims", [2, 3])
def test_batches_do_not_show_and_seeds_do(dims: int) -> None:
    def explained(**options: Any) -> RawMap:
        classifier, x = case(dims, torch.float32)
        return maps_of(RISE(masks=50, **options), classifier, x[:1], [(0, 1)])[0][0]

    first, other = explained(batch_size=2), explained(batch_size=8)
    assert first.facts["images_at_once"] < other.facts["images_at_once"]
    np.testing.assert_array_equal(first.values, other.values)
    assert (explained(seed=1).values != first.values).any()


def test_the_standard_error_is_that_from_seed_to_seed() -> None:
    classifier, x = case(2)
    runs = [maps_of(RISE(masks=200, seed=seed), classifier, x[:1], [(0, 1)])[0][0] for seed in range(30)]
    spread = np.sqrt(np.stack([raw.values for raw in runs]).astype(float).var(0, ddof=1).mean())
    told = np.sqrt(np.mean([raw.facts["standard_error"] ** 2 for raw in runs]))
    assert told == pytest.approx(spread, rel=0.15)


class Corner(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        corner = x[:, 0, :5, :5].mean((1, 2))
        return torch.stack([-corner, corner], 1)


def test_the_place_that_counts_is_found_and_comes_by_and_by() -> None:
    shown: list[Any] = []
    x = torch.ones(1, 1, 20, 20)
    maps, _ = maps_of(RISE(masks=300), classifier_of(Corner(), 2), x, [(0, 1), (0, 0)], Job(partial=shown.append))
    assert [found[0].facts["masks_used"] for found, _ in shown] == [64, 128, 192, 256, 300]
    speaks = maps[0].values
    assert speaks[:5, :5].mean() > 10 * np.abs(speaks[10:, 10:]).mean()
    np.testing.assert_allclose(maps[1].values, -speaks, atol=1e-6)
