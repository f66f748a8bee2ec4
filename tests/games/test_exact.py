import numpy as np
import pytest
from known_games import CLOSED, perceptron

from napari_xai_med.errors import InputError
from napari_xai_med.games.exact import exact


@pytest.mark.parametrize("players", [1, 2, 3, 9])
@pytest.mark.parametrize("name", CLOSED)
def test_known_values(name: str, players: int) -> None:
    if (name, players) == ("gloves", 1):
        pytest.skip("a left glove is worth nothing without another player")
    game, values = CLOSED[name](players)
    (found,) = exact(game)
    np.testing.assert_allclose(found.values, values, atol=1e-12)
    assert found.exact
    assert found.settled
    assert not found.errors.any()
    assert found.evaluations == 2**players == len({row.tobytes() for row in game.asked}) == len(game.asked)


def test_efficiency() -> None:
    game = perceptron(13)
    (found,) = exact(game)
    ends = game(np.array([[False] * 13, [True] * 13]))
    np.testing.assert_allclose(found.values.sum(1), ends[1] - ends[0], atol=1e-10)


def test_too_many() -> None:
    game, _ = CLOSED["voting"](15)
    with pytest.raises(InputError, match="15 segments take 32768 evaluations, more than the 16384"):
        next(exact(game))
    assert next(exact(game, 2**15)).exact
