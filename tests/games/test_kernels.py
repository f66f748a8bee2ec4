from collections.abc import Callable

import numpy as np
import pytest

from napari_xai_med.games.design import Design
from napari_xai_med.games.exact import numbered, shares
from napari_xai_med.games.kernels import Component, by_player, by_size
from napari_xai_med.games.odd_process import Belief, Pairs, evidence
from napari_xai_med.games.products import Interactions


@pytest.mark.parametrize("players", [4, 7])
@pytest.mark.parametrize("component", [by_size, by_player])
def test_covariances_of_shapley_values_are_those_of_the_game(
    component: Callable[[int], Component], players: int
) -> None:
    part = component(players)
    coalitions = numbered(np.arange(2**players), players)
    signs = np.where(coalitions, 1, -1)
    size, agreeing = coalitions.sum(1), (signs @ signs.T + players) // 2
    covariance = part.sizes[size[:, None], size] * part.overlaps[agreeing]
    assert np.linalg.eigvalsh(covariance).min() > -1e-10
    # It is that of an odd game.
    np.testing.assert_allclose(covariance, -covariance[::-1], atol=1e-12)
    share = shares(coalitions)
    np.testing.assert_allclose(part.cross[size[:, None], coalitions.astype(int)], covariance @ share, atol=1e-10)
    np.testing.assert_allclose(part.variance, np.diag(share.T @ covariance @ share), rtol=2e-4)


@pytest.mark.parametrize("players", [4, 7])
@pytest.mark.parametrize("tilt", [0.0, 0.4, 1.0])
def test_interactions_of_players_that_are_not_alike(players: int, tilt: float) -> None:
    part = Interactions(np.random.default_rng(0).uniform(0.01, 0.8, players), tilt)
    coalitions = numbered(np.arange(2**players), players)
    signs, share = np.where(coalitions, 1.0, -1.0), shares(coalitions)
    covariance = part.covariance(signs)
    scale = covariance.max()
    assert np.linalg.eigvalsh(covariance).min() > -1e-10 * scale
    np.testing.assert_allclose(covariance, -covariance[::-1], atol=1e-12 * scale)
    np.testing.assert_allclose(part.cross(signs), covariance @ share, atol=1e-10 * scale)
    np.testing.assert_allclose(part.prior(), share.T @ covariance @ share, atol=1e-10 * scale)


def test_interactions_without_a_tilt_are_walsh_functions_of_odd_order() -> None:
    weights = np.array([0.1, 0.5, 0.3, 0.8])
    coalitions = numbered(np.arange(16), 4)
    signs = np.where(coalitions, 1.0, -1.0)
    functions = np.stack([signs[:, few].prod(1) for few in coalitions], 1)
    variances = np.where(coalitions, np.tanh(weights), 1.0).prod(1) * (coalitions.sum(1) % 2)
    covariance = Interactions(weights, 0.0).covariance(signs)
    expected = (functions * variances) @ functions.T
    np.testing.assert_allclose(covariance / covariance[0, 0], expected / expected[0, 0], atol=1e-12)


def test_derivatives_of_the_evidence() -> None:
    rng = np.random.default_rng(0)
    design = Design(6, rng)
    first = design.first()
    pairs = Pairs(np.concatenate([first, design.draw(first, 12)]))
    odd, logs, step = rng.normal(size=pairs.count), rng.normal(size=12) / 2, 1e-5
    _, derivatives = evidence(pairs, odd, Belief(logs))
    near = [[evidence(pairs, odd, Belief(logs + way * step * axis))[0] for way in (1, -1)] for axis in np.eye(12)]
    np.testing.assert_allclose(derivatives, -np.diff(near)[:, 0] / (2 * step), atol=1e-6)
