"""Which pairs of a coalition and its complement to ask."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.games.base import Coalitions

_TRIES = 8
"""Coalitions in a row that were drawn before; so many of a size are then known that the rest is listed."""


class PairSampler:
    """Pairs of a coalition and its complement, each once: all players, each alone, then as many of each size.

    Pairs make the estimate of Shapley values depend on the odd part of a game only, which is all that they depend on
    themselves [1]_; sizes that are equally frequent are the leverage scores of their regression [2]_.

    Parameters
    ----------
    players : int
        At least 4.
    rng : numpy.random.Generator

    References
    ----------
    .. [1] F. Fumagalli et al., An odd estimator for Shapley values, ICML 2026, arXiv:2602.01399.
    .. [2] C. Musco and R. T. Witter, Provably accurate Shapley value estimation via leverage score sampling, ICLR 2025,
       arXiv:2410.01917.
    """

    def __init__(self, players: int, rng: np.random.Generator) -> None:
        self._players, self._rng = players, rng
        sizes = np.arange(2, players // 2 + 1)
        # A pair stands for two sizes, but for that of one half of the players against the other.
        halves = 2 * sizes == players
        self._share = np.where(halves, 1, 2) / np.where(halves, 1, 2).sum()
        self._pairs = [comb(players, int(size)) / (2 if half else 1) for size, half in zip(sizes, halves, strict=True)]
        self._used = np.zeros(len(sizes))
        self._seen: set[bytes] = set()
        self._hands: dict[int, NDArray[np.intp]] = {}
        self._rest: dict[int, list[Coalitions]] = {}

    def first(self) -> Coalitions:
        """All players, then each alone; shape (players + 1, players)."""
        alone = np.eye(self._players, dtype=bool)
        return np.concatenate([np.ones((1, self._players), dtype=bool), alone])

    def draw(self, pairs: int) -> Coalitions:
        """One coalition of each of so many more pairs, or of all that are left; shape (K, players)."""
        rows = []
        for _ in range(pairs):
            due = self._share * (self._used.sum() + 1) - self._used + 1e-6 * self._rng.random(len(self._used))
            due[self._used >= self._pairs] = -np.inf
            which = int(due.argmax())
            if due[which] == -np.inf:
                break
            self._used[which] += 1
            rows.append(self._one(which + 2))
        return np.array(rows, dtype=bool).reshape(-1, self._players)

    def _one(self, size: int) -> Coalitions:
        """A coalition that was not drawn before."""
        if size not in self._rest:
            for _ in range(_TRIES):
                coalition = self._dealt(size)
                if coalition.tobytes() not in self._seen:
                    self._seen.add(coalition.tobytes())
                    return coalition
            self._rest[size] = self._unseen(size)
        return self._rest[size].pop()

    def _dealt(self, size: int) -> Coalitions:
        """The next players of a shuffled pack: of any size, each takes part about as often as the others."""
        hand = self._hands.get(size, np.empty(0, dtype=np.intp))
        if len(hand) < size:
            pack = self._rng.permutation(self._players)
            hand = np.concatenate([hand, pack[~np.isin(pack, hand)], pack[np.isin(pack, hand)]])
        self._hands[size] = hand[size:]
        return self._half(hand[:size])

    def _half(self, members: NDArray[np.intp]) -> Coalitions:
        """Of two halves that are each other's complement, the one with the first player."""
        coalition = np.zeros(self._players, dtype=bool)
        coalition[members] = True
        return coalition if coalition[0] or 2 * len(members) < self._players else ~coalition

    def _unseen(self, size: int) -> list[Coalitions]:
        """All others of a size, shuffled."""
        known = {self._half(np.array(members)).tobytes() for members in combinations(range(self._players), size)}
        left = [np.frombuffer(key, dtype=bool) for key in sorted(known - self._seen)]
        return [left[k] for k in self._rng.permutation(len(left))]
