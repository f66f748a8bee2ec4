"""Which pairs tell most of Shapley values, before any of them is asked."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from napari_xai_med.games.base import Coalitions
from napari_xai_med.games.odd_process import Belief, Pairs
from napari_xai_med.games.pairs import PairSampler

_POOL = 512
"""Pairs among which the next are chosen."""

_FREE = 1e3
"""Variance of each player's own share, relative to all else."""


class Design:
    """Pairs of a coalition and its complement, each once, those first that leave the least doubt.

    Of random pairs, those are chosen one after the other that lower the variance of all Shapley values most, as far
    as the usual belief goes [1]_. What coalitions are worth plays no part, so that it neither makes errors seem smaller
    than they are nor lets targets depend on each other.

    Parameters
    ----------
    players : int
        At least 4.
    rng : numpy.random.Generator

    References
    ----------
    .. [1] D. A. Cohn et al., Active learning with statistical models, JAIR 4, 1996.
    """

    def __init__(self, players: int, rng: np.random.Generator) -> None:
        self._sampler = PairSampler(players, rng)
        self._belief = Belief.usual(players)
        self._pool = np.empty((0, players), dtype=bool)

    def first(self) -> Coalitions:
        """All players, then each alone; shape (players + 1, players)."""
        return self._sampler.first()

    def draw(self, asked: Coalitions, count: int) -> Coalitions:
        """One coalition of each of so many more pairs, or of all that are left; shape (K, players)."""
        self._pool = np.concatenate([self._pool, self._sampler.draw(max(_POOL, count) - len(self._pool))])
        if not min(count, len(self._pool)):
            return self._pool[:0]
        pairs = Pairs(np.concatenate([asked, self._pool]))
        covariance, cross = pairs.covariance(self._belief), pairs.cross(self._belief)
        free = _FREE * covariance.max()
        covariance += free * (pairs.signs @ pairs.signs.T) / pairs.players
        cross += 2 * free / pairs.players * pairs.signs
        m = len(asked)
        lower = cholesky(covariance[:m, :m], lower=True, check_finite=False)
        known = np.concatenate([covariance[:m, m:], cross[:m]], 1)
        white = solve_triangular(lower, known, lower=True, check_finite=False)
        seen, left = white[:, : -pairs.players], white[:, -pairs.players :]
        covariance, cross = covariance[m:, m:] - seen.T @ seen, cross[m:] - seen.T @ left
        chosen = np.zeros(len(self._pool), dtype=bool)
        order = []
        for _ in range(min(count, len(chosen))):
            gain = np.square(cross).sum(1) / np.diag(covariance)
            best = int(np.where(chosen, -1.0, gain).argmax())
            chosen[best] = True
            order.append(best)
            column = covariance[:, best] / covariance[best, best]
            cross = cross - np.outer(column, cross[best])
            covariance = covariance - np.outer(column, covariance[best])
            covariance[best, best] = 1.0
        more, self._pool = self._pool[order], self._pool[~chosen]
        return more
