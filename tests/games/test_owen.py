import numpy as np
import pytest
import shap
from known_games import CLOSED, Played, perceptron
from scipy.cluster.hierarchy import linkage

from napari_xai_med.errors import InputError
from napari_xai_med.games.base import Float
from napari_xai_med.games.owen import owen


def tree(players: int, method: str = "single") -> Float:
    return linkage(np.random.default_rng(players).normal(size=(players, 2)), method)


@pytest.mark.parametrize("method", ["single", "ward"])
@pytest.mark.parametrize("players", [4, 9])
def test_is_shaps(players: int, method: str) -> None:
    game, links = perceptron(players), tree(players, method)
    masker = shap.maskers.Partition(np.zeros((1, players)), clustering=links)
    explain = shap.PartitionExplainer(lambda x: game(x > 0.5), masker)
    theirs = explain(np.ones((1, players)), max_evals=100_000, silent=True).values[0]
    *_, found = owen(game, links, 100_000)
    np.testing.assert_allclose(found.values, theirs.T, atol=1e-6)
    assert found.exact
    assert found.settled
    assert not found.errors.any()


@pytest.mark.parametrize("budget", [2, 3, 7, 20, 61])
def test_budget(budget: int) -> None:
    game, links = perceptron(12), tree(12)
    ends = game(np.array([[False] * 12, [True] * 12]))
    game.asked.clear()
    for found in owen(game, links, budget):
        np.testing.assert_allclose(found.values.sum(1), ends[1] - ends[0], atol=1e-10)
        assert not found.exact
        assert np.isnan(found.errors).all()
    assert found.evaluations == len({row.tobytes() for row in game.asked}) == len(game.asked) <= budget


def test_known_values() -> None:
    game, values = CLOSED["additive"](8)
    *_, found = owen(game, tree(8), 10_000)
    np.testing.assert_allclose(found.values, values, atol=1e-12)
    # The first two are a group, whose half of the worth each of them gets half of; the third gets the other half.
    game, _ = CLOSED["unanimity"](4)
    *_, found = owen(game, np.array([[0, 1], [4, 2], [5, 3]]), 100)
    np.testing.assert_allclose(found.values, [[0.25, 0.25, 0.5, 0]], atol=1e-12)


def test_coarse_to_fine() -> None:
    """What is large is split first; what is not split is spread evenly."""
    shares = np.array([0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 5.0, 9.0])
    links = np.array([[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11], [12, 13]], dtype=float)
    game = Played(8, lambda s: s @ shares)
    *_, found = owen(game, links, 8)
    np.testing.assert_allclose(found.values[0], [0, 0, 0, 0, 1.5, 1.5, 7, 7], atol=1e-12)


def test_one_player() -> None:
    (found,) = owen(Played(1, lambda s: s.sum(1) * 4.0), np.empty((0, 4)), 2)
    assert found.values == 4
    assert found.exact


def test_wrong_trees() -> None:
    with pytest.raises(InputError, match="not one of 5 segments"):
        next(owen(perceptron(5), tree(4), 10))
    with pytest.raises(InputError, match="not one of 5 segments"):
        next(owen(perceptron(5), tree(5)[::-1], 10))
    with pytest.raises(InputError, match="two evaluations"):
        next(owen(perceptron(5), tree(5), 1))
