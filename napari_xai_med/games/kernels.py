"""What is believed of a game before any coalition is asked: covariances of its odd part and of Shapley values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from napari_xai_med.games.base import Float


@dataclass(frozen=True)
class Component:
    """One part of the odd part g of a game, a Gaussian process that treats all players alike.

    A coalition S is x in {-1, 1}^n; s is its size, and the overlap of two is the product x x'.

    Parameters
    ----------
    sizes : ndarray of float64, shape (n + 1, n + 1)
        Factor of the covariance by both coalitions' sizes.
    overlaps : ndarray of float64, shape (n + 1,)
        Factor by the number of players about whom both coalitions agree.
    cross : ndarray of float64, shape (n + 1, 2)
        Covariance of g(S) with the Shapley value of a player that is not, or is, in S, by the size of S.
    variance : float
        Of each Shapley value.
    """

    sizes: Float
    overlaps: Float
    cross: Float
    variance: float


def _places(players: int) -> Float:
    """Where sizes lie: the first and the last members of a coalition change more than those in between."""
    size = np.arange(players + 1)
    place: Float = np.log((size + 0.5) / (players - size + 0.5))
    return place / place[-1]


@lru_cache(maxsize=64)
def by_size(players: int) -> Component:
    """What depends on a coalition's size only: a random walk over the sizes, from one half of the players outwards."""
    place = _places(players)
    walk = np.sign(place)[:, None] * np.sign(place) * np.minimum(abs(place)[:, None], abs(place))
    cross = np.repeat(2 / players * walk[players][:, None], 2, 1)
    return Component(walk, np.ones(players + 1), cross, 4 / players**2)


@lru_cache(maxsize=64)
def by_player(players: int) -> Component:
    """That what a player adds depends on how many there are: for each a random walk, from all players inwards."""
    place = abs(_places(players))
    walk = 1 - np.maximum(place[:, None], place)
    agreeing = 2 * np.arange(players + 1) - players
    before = np.arange(players)
    others = 2 * before / (players - 1) - 1
    own, of_others = np.zeros(players + 1), np.zeros(players + 1)
    np.add.at(own, np.concatenate([before, before + 1]), 1 / players**2)
    np.add.at(of_others, before + 1, others / players**2)
    np.add.at(of_others, before, -others / players**2)
    # For each size of S: the factors of the player's own sign and of each other player's.
    mine, theirs = own @ walk, of_others @ walk
    total = 2 * np.arange(players + 1) - players
    cross = np.stack([sign * mine + (total - sign) * theirs for sign in (-1, 1)], 1)
    variance = players * (own @ walk @ own + (players - 1) * (of_others @ walk @ of_others))
    return Component(walk, agreeing / players, cross, float(variance))
