from itertools import combinations

import numpy as np
import pytest
from known_games import convolutional, perceptron
from scipy.stats import spearmanr

from napari_xai_med.games.agreement import expected_rank_correlation
from napari_xai_med.games.regression import regression
from napari_xai_med.games.stopping import StopRule


@pytest.mark.parametrize("factor", [5, 10, 20])
@pytest.mark.parametrize("game", [perceptron(12), perceptron(10, 1), convolutional()], ids=["a", "b", "c"])
def test_is_what_runs_give(game, factor: int) -> None:
    runs = [list(regression(game, StopRule(factor * game.players), seed))[-1] for seed in range(12)]
    for target in range(len(runs[0].values)):
        measured = np.mean([spearmanr(a.values[target], b.values[target]).statistic for a, b in combinations(runs, 2)])
        expected = np.mean([expected_rank_correlation(run.values, run.errors)[target] for run in runs])
        # With few evaluations runs share what the belief gets wrong: they agree more with each other than with the
        # values, which the errors tell of as well.
        assert expected <= measured + 0.05
        if factor > 5:
            assert expected == pytest.approx(measured, abs=0.05)


def test_ends() -> None:
    values = np.arange(12.0).reshape(1, 12)
    assert expected_rank_correlation(values, 0 * values) == 1
    assert expected_rank_correlation(0 * values, 0 * values) == 1
    assert abs(expected_rank_correlation(values, np.full((1, 12), 1e6))[0]) < 0.1
    assert np.isnan(expected_rank_correlation(values, np.full((1, 12), np.nan))[0])
    assert np.isnan(expected_rank_correlation(values[:, :1], values[:, :1])[0])
    again = (expected_rank_correlation(values, values, seed=3)[0] for _ in range(2))
    assert len(set(again)) == 1
