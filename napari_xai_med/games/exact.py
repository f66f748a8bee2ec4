"""Exact Shapley values: every coalition is asked."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.special import gammaln

from napari_xai_med.errors import InputError
from napari_xai_med.games.base import Coalitions, Estimate, Float, Game

PLAYERS = 14
"""Without a budget, for how many players at most: 16384 coalitions."""

_CHUNK = 4096


def exact(game: Game, budget: int = 2**PLAYERS) -> Iterator[Estimate]:
    """Shapley values by enumeration [1]_, as one estimate that is exact.

    Parameters
    ----------
    game : Game
    budget : int
        How many coalitions may be asked; 2 to the power of the players are needed.

    Yields
    ------
    Estimate
        The only one.

    Raises
    ------
    InputError
        If the budget does not allow it.

    References
    ----------
    .. [1] L. S. Shapley, A value for n-person games, Contributions to the Theory of Games II, 1953.
    """
    players = game.players
    if 2**players > budget:
        raise InputError(
            f"The exact values of {players} segments take {2**players} evaluations, more than the {budget} allowed; "
            "make fewer segments, allow more evaluations, or let them be estimated."
        )
    yield exact_estimate(game)


def exact_estimate(game: Game) -> Estimate:
    """Exact Shapley values of a game, however many coalitions it has."""
    players = game.players
    values = 0.0
    for first in range(0, 2**players, _CHUNK):
        coalitions = numbered(np.arange(first, min(first + _CHUNK, 2**players)), players)
        values = values + shares(coalitions).T @ game(coalitions)
    values = np.asarray(values).T
    return Estimate(values, np.zeros_like(values), 2**players, exact=True, settled=True)


def numbered(index: np.ndarray, players: int) -> Coalitions:
    """The coalitions whose members are the bits of numbers, the first player's the lowest; shape (K, players)."""
    return (index[:, None] >> np.arange(players) & 1).astype(bool)


def shares(coalitions: Coalitions) -> Float:
    """How much of what a coalition is worth goes to each player; negative to those outside it.

    Summed over all coalitions, times their worths, these are the Shapley values.
    """
    players = coalitions.shape[1]
    size = coalitions.sum(1)
    # Of a member, 1 / (size * C(players, size)); of the others the same with one more member.
    inside = np.exp(gammaln(np.maximum(size, 1)) + gammaln(players - size + 1) - gammaln(players + 1))
    outside = np.exp(gammaln(size + 1) + gammaln(np.maximum(players - size, 1)) - gammaln(players + 1))
    return np.where(coalitions, inside[:, None], -outside[:, None])
