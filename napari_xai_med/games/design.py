"""Which pairs tell most of Shapley values, before any of them is asked."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from napari_xai_med.games.base import Coalitions
from napari_xai_med.games.odd_process import Belief, Pairs
from napari_xai_med.games.pairs import PairSampler

_POOL = 512
"""Pairs among which the next are chosen, until one half of them is."""

_FREE = 1e3
"""Variance of each player's own share, relative to all else."""

_ROUNDING, _TIES = 1e-12, 1e-4


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
        self._sampler, self._rng = PairSampler(players, rng), rng
        self._belief = Belief.usual(players)
        self._renew(self.first(), np.empty((0, players), dtype=bool))

    def first(self) -> Coalitions:
        """All players, then each alone; shape (players + 1, players)."""
        return self._sampler.first()

    def draw(self, asked: Coalitions, count: int) -> Coalitions:
        """One coalition of each of so many more pairs, or of all that are left; shape (K, players).

        Parameters
        ----------
        asked : ndarray of bool, shape (m, players)
            All that were drawn before.
        count : int
        """
        left = self._pool[self._free]
        if len(left) < max(_POOL // 2, count):
            more = self._sampler.draw(max(_POOL, count) - len(left))
            if len(more):
                self._renew(asked, np.concatenate([left, more]))
        best = [self._next() for _ in range(min(count, int(self._free.sum())))]
        return self._pool[best]

    def _renew(self, asked: Coalitions, pool: Coalitions) -> None:
        """What is known of each of the pool, and of its connection with the Shapley values, from all asked before."""
        pairs, m = Pairs(np.concatenate([asked, pool])), len(asked)
        covariance, cross = pairs.covariance(self._belief), pairs.cross(self._belief)
        free = _FREE * covariance.max() / pairs.players
        covariance += free * pairs.signs @ pairs.signs.T
        cross += 2 * free * pairs.signs
        lower = cholesky(covariance[:m, :m], lower=True, check_finite=False)
        known = np.concatenate([covariance[:m, m:], cross[:m]], 1)
        white = solve_triangular(lower, known, lower=True, check_finite=False)
        seen, values = white[:, : len(pool)], white[:, len(pool) :]
        self._pool, self._free = pool, np.ones(len(pool), dtype=bool)
        self._covariance, self._cross = covariance[m:, m:] - seen.T @ seen, cross[m:] - seen.T @ values
        # At first all players are alike, and so are many pairs: chance decides among them, not rounding.
        self._chance = 1 + _TIES * self._rng.random(len(pool))
        self._least = _ROUNDING * covariance.max()
        self._variance = np.diag(self._covariance).copy()
        # Rows of the Cholesky factor of what is chosen since.
        self._rows = np.empty((0, len(pool)))

    def _next(self) -> int:
        """Which of the pool lowers the variance of the Shapley values most, from now on chosen."""
        variance = np.maximum(self._variance, self._least)
        gain = np.square(self._cross).sum(1) / variance * self._chance
        best = int(np.where(self._free, gain, -1.0).argmax())
        deviation = np.sqrt(variance[best])
        row = (self._covariance[best] - self._rows[:, best] @ self._rows) / deviation
        self._rows = np.concatenate([self._rows, row[None]])
        self._variance = self._variance - row**2
        self._cross = self._cross - np.outer(row, self._cross[best] / deviation)
        self._free[best] = False
        return best
