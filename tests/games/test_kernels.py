import numpy as np
import pytest

from napari_xai_med.games.exact import numbered, shares
from napari_xai_med.games.kernels import DEGREES, Component, by_player, by_size, interactions


def components(players: int) -> list[Component]:
    return [by_size(players), by_player(players), *(interactions(players, degree) for degree in DEGREES)]


@pytest.mark.parametrize("players", [4, 7])
@pytest.mark.parametrize("which", range(2 + len(DEGREES)))
def test_covariances_of_shapley_values_are_those_of_the_game(players: int, which: int) -> None:
    part = components(players)[which]
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
