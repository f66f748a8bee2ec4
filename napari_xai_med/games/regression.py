"""Shapley values with few evaluations: regression of the odd part of a game."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from napari_xai_med.errors import InputError
from napari_xai_med.games.base import Coalitions, Estimate, Float, Game
from napari_xai_med.games.design import Design
from napari_xai_med.games.exact import exact_estimate
from napari_xai_med.games.odd_process import Belief, Pairs, Posterior, fitted, posterior
from napari_xai_med.games.stopping import StopRule

_GROWTH = 8
"""A round is at least this part of what is known, so that all rounds together take not much more than the last one."""

_ANEW = 2.0
"""By which factor more pairs there are when the belief is fitted anew."""

_FITTED = 256
"""Pairs, beyond the players, that are enough to fit it."""


def regression(game: Game, rule: StopRule, seed: int = 0) -> Iterator[Estimate]:
    """Estimate Shapley values, better with every round.

    They depend only on the odd part of a game, g(S) = (v(S) - v(N - S)) / 2 [1]_. A Gaussian process on it has each
    player's own share free; what a coalition's size alone does, how a player's share changes with the size, and
    interactions of any odd number of players are as large as the evidence says, and so is each player's part in them.
    Which pairs to ask is chosen by what they tell, whatever they turn out to be worth. The Shapley values are a linear
    function of g, so that they have a posterior in closed form: its mean is the estimate, and its standard deviation
    the error. They sum up to v(N) - v(0) exactly.

    Parameters
    ----------
    game : Game
    rule : StopRule
        The first estimate takes 2 n + 2 evaluations of n players, each further one n, and more where much is known.
        Where the budget is enough for all coalitions, the last one is exact, and the only one if there is nothing
        else to stop for.
    seed : int
        Of the coalitions that are asked.

    Yields
    ------
    Estimate
        The last one is final; all coalitions that were asked before are among those it rests on.

    Raises
    ------
    InputError
        If the budget is too small for the first estimate.

    References
    ----------
    .. [1] F. Fumagalli et al., An odd estimator for Shapley values, ICML 2026, arXiv:2602.01399.
    """
    players = game.players
    _check(players, rule.budget)
    if players < 4 or (2**players <= rule.budget and not rule.early):
        yield exact_estimate(game)
        return
    design = Design(players, np.random.default_rng(seed))
    asked = design.first()
    odd = _odd_part(game, asked)
    beliefs, fitted_with = [Belief.usual(players)] * odd.shape[1], 0
    while True:
        pairs = Pairs(asked)
        few = min(len(asked), players + _FITTED)
        if few > fitted_with and few >= min(max(_ANEW * fitted_with, players + 4), players + _FITTED):
            fit = Pairs(asked[:few])
            beliefs = [fitted(fit, g, belief) for g, belief in zip(odd[:few].T, beliefs, strict=True)]
            fitted_with = few
        found = [posterior(pairs, g, belief) for g, belief in zip(odd.T, beliefs, strict=True)]
        estimate = _estimate(found, len(asked), rule)
        yield estimate
        left = rule.budget // 2 - len(asked)
        if estimate.settled or not left:
            break
        more = design.draw(asked, min(left, max(players // 2, len(asked) // _GROWTH)))
        asked = np.concatenate([asked, more])
        odd = np.concatenate([odd, _odd_part(game, more)])
        if 2 * len(asked) == 2**players:
            yield exact_estimate(game)
            break


def _check(players: int, budget: int) -> None:
    least = min(2 * players + 2, 2**players)
    if budget < least:
        raise InputError(
            f"{budget} evaluations are too few for {players} segments; allow {least} or more, or make fewer segments."
        )


def _odd_part(game: Game, coalitions: Coalitions) -> Float:
    """Half of the difference of each coalition's worth and its complement's, shape (K, T)."""
    worth = game(np.concatenate([coalitions, ~coalitions]))
    return (worth[: len(coalitions)] - worth[len(coalitions) :]) / 2


def _estimate(found: list[Posterior], pairs: int, rule: StopRule) -> Estimate:
    values = np.stack([target.values for target in found])
    covariances = np.stack([target.covariance for target in found])
    errors = np.sqrt(np.maximum(np.diagonal(covariances, axis1=1, axis2=2), 0))
    return Estimate(values, errors, 2 * pairs, settled=rule.settled(values, covariances))
