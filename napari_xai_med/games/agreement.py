"""How alike another run's order of the values would be."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from napari_xai_med.games.base import Float

_RUNS = 200


def expected_rank_correlation(values: Float, errors: Float, seed: int = 0) -> Float:
    """Spearman's correlation between the values of two further runs, as far as the standard errors say.

    Two runs are drawn from normal distributions around the values, many times; that takes no evaluation.

    Parameters
    ----------
    values : ndarray of float64, shape (T, players)
    errors : ndarray of float64, shape (T, players)
        Standard errors.
    seed : int
        Of the draws.

    Returns
    -------
    ndarray of float64, shape (T,)
        1 where all errors are 0; NaN where an error is not known, or there is one player only.
    """
    if values.shape[1] < 2:
        return np.full(len(values), np.nan)
    drawn = np.random.default_rng(seed).standard_normal((2, _RUNS, *values.shape))
    ranks = rankdata(values + errors * drawn, axis=-1)
    ranks -= ranks.mean(-1, keepdims=True)
    spread = np.sqrt(np.square(ranks).sum(-1))
    with np.errstate(invalid="ignore"):
        found: Float = ((ranks[0] * ranks[1]).sum(-1) / (spread[0] * spread[1])).mean(0)
    return np.where((errors == 0).all(1), 1.0, found)
