from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from faithful_cases import case_for, conv_network, found, image_of, measured
from helpers import classifier_of
from numpy.typing import NDArray
from scipy.sparse import lil_array
from scipy.sparse.linalg import spsolve

from napari_xai_med.explainers.noise import generator
from napari_xai_med.metrics.imputation import imputed, side_weights


def solved(image: NDArray[np.float64], gone: NDArray[np.bool_], spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """Each missing voxel as the weighted mean of its neighbours inside of the image, by SciPy's direct solver."""
    places = {tuple(place): k for k, place in enumerate(np.argwhere(gone))}
    system, right = lil_array((len(places), len(places))), np.zeros((len(places), len(image)))
    for place, row in places.items():
        for offset in product((-1, 0, 1), repeat=gone.ndim):
            other = tuple(np.add(place, offset))
            if not any(offset) or any(not 0 <= k < n for k, n in zip(other, gone.shape, strict=True)):
                continue
            weight = np.prod(
                [(min(spacing) / step) ** 2 / 2 if k else 1 for k, step in zip(offset, spacing, strict=True)]
            )
            system[row, row] += weight
            if other in places:
                system[row, places[other]] -= weight
            else:
                right[row] += weight * image[(slice(None), *other)]
    result = image.copy()
    result[:, gone] = spsolve(system.tocsc(), right).reshape(len(places), len(image)).T
    return result


@pytest.mark.parametrize(
    ("shape", "spacing"), [((2, 14, 11), (1.0, 1.0)), ((1, 8, 9, 7), (1.0, 1.0, 1.0)), ((1, 8, 9, 7), (0.7, 3.0, 0.7))]
)
def test_what_is_filled_in_is_what_a_direct_solver_finds(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    random = np.random.default_rng(0)
    image = random.random(shape).astype(np.float32)
    gone = random.random((4, *shape[1:])) < np.array([0, 0.1, 0.5, 0.97]).reshape(-1, *(1 for _ in spacing))
    gone[2, :5] = True
    together = imputed(torch.from_numpy(image), torch.from_numpy(gone), side_weights(spacing))
    for found_one, each in zip(together, gone, strict=True):
        expected = solved(image.astype(float), each, spacing) if each.any() else image
        # As exact as the tolerance of the rounds, of images from 0 to 1.
        np.testing.assert_allclose(found_one, expected, atol=2e-3)
    np.testing.assert_allclose(
        imputed(torch.from_numpy(image), torch.from_numpy(gone[2:3]), side_weights(spacing))[0], together[2], atol=1e-6
    )


def test_pixels_have_the_weights_of_the_paper() -> None:
    (first, second) = side_weights((0.8, 0.8))
    whole = 2 * first + 2 * second + 4 * first * second
    # 2 of each axis' direct ones, and 4 diagonal ones.
    assert first / whole == second / whole == pytest.approx(1 / 6)
    assert first * second / whole == pytest.approx(1 / 12)


def test_a_ramp_is_filled_with_a_ramp() -> None:
    ramp = torch.arange(12.0).expand(1, 10, 12)
    gone = torch.zeros(1, 10, 12, dtype=torch.bool)
    gone[0, 3:8, 4:9] = True
    np.testing.assert_allclose(imputed(ramp, gone, (0.5, 0.5))[0], ramp, atol=1e-2)


@pytest.mark.parametrize("shape", [(10, 9), (6, 7, 5)])
def test_equals_a_plain_loop(shape: tuple[int, ...]) -> None:
    dims = len(shape)
    network, image = conv_network(dims, 3), image_of(shape)
    values = np.random.default_rng(7).normal(size=shape).astype(np.float32)
    outcome = measured("road", case_for(image, classifier_of(network, dims, 3), values), shares=(0.2, 0.6), noise=0.05)
    noise = 0.05 * torch.randn(image.data.shape, generator=generator(0, 3)).numpy()
    order = np.argsort(np.argsort(-values.ravel())).reshape(shape)
    means = []
    for ranks in (order, order.max() - order):
        scores = []
        for share in (0.2, 0.6):
            gone = ranks < round(share * values.size)
            filled = solved(image.data.astype(float), gone, (1.0,) * dims) + np.where(gone, noise, 0)
            with torch.no_grad():
                scores.append(float(network(torch.from_numpy(filled).float()[None]).softmax(1)[0, 1]))
        means.append(np.mean(scores))
    assert found(outcome, "road_most_first") == pytest.approx(means[0], abs=1e-3)
    assert found(outcome, "road_least_first") == pytest.approx(means[1], abs=1e-3)
    assert found(outcome, "road") == pytest.approx((means[1] - means[0]) / 2, abs=1e-3)
    assert not outcome.notices
    loud = measured("road", case_for(image, classifier_of(network, dims, 3), values), shares=(0.2, 0.6), noise=1.0)
    assert "leave the range of the network's input" in loud.notices[0]


def test_a_classifier_that_nothing_changes_decides_nothing() -> None:
    network, image = conv_network(2, 2), image_of((10, 9))
    with torch.no_grad():
        network[-1].weight.zero_()
    values = np.random.default_rng(7).normal(size=(10, 9)).astype(np.float32)
    verdict = measured("road", case_for(image, classifier_of(network, 2), values)).verdicts[0]
    assert verdict.good is None
    assert "hardly changes the score" in verdict.sentence
