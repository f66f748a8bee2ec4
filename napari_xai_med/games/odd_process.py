"""Regression of a game's odd part, and what it says of the Shapley values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.stats import t as student

from napari_xai_med.games.base import Coalitions, Float
from napari_xai_med.games.kernels import by_player, by_size
from napari_xai_med.games.products import Interactions

_NUGGET = 1e-6
"""Share of the variance that is each coalition's own: float32 rounds."""

_TILTS, _USUAL = (0.0, 1.0), (3.0, 1.5)
"""The kinds of interactions, and what all weights of each usually sum up to."""

_PARTS = 2 + len(_TILTS)
_SHARED = _PARTS + len(_TILTS)

_SPREAD, _SPREAD_OF_PLAYERS = 1.5, 1.0
"""Standard deviations of logarithms, of what all players share and of one player's weight, among games."""

_LEAST, _MOST = -4.0, 1.5
"""Of the logarithms of the weights that all share; beyond, exponentials overflow."""

_STEPS = 16
"""Each fit starts at the last one, so that it need not converge."""

_ROUNDING, _ROUNDING_32 = 1e-12, 1e-6
"""Residuals that are smaller, relative to the game, are those of float64 and float32: they have no structure."""


@dataclass(frozen=True)
class Posterior:
    """Shapley values of a game.

    Parameters
    ----------
    values : ndarray of float64, shape (n,)
    covariance : ndarray of float64, shape (n, n)
    """

    values: Float
    covariance: Float


@dataclass(frozen=True)
class Belief:
    """How large the parts of a game's odd part are, relative to each other.

    Parameters
    ----------
    logs : ndarray of float64, shape (6 + n,)
        Logarithms, relative to the usual: the variances of what a coalition's size alone does, of how a player's
        share changes with the size, and of the interactions without and with a tilt; the weights of both kinds of
        interactions; and what each player's weight is beyond that.
    """

    logs: Float

    @classmethod
    def usual(cls, players: int) -> Belief:
        """What is believed before any coalition is asked."""
        return cls(np.zeros(_SHARED + players))

    @property
    def variances(self) -> Float:
        """Of the four parts."""
        return np.exp(self.logs[:_PARTS])

    def interactions(self) -> list[Interactions]:
        """Without a tilt, and with one."""
        own = self.logs[_SHARED:]
        usual = np.array(_USUAL) / len(own)
        scales = usual * np.exp(self.logs[_PARTS:_SHARED])
        return [Interactions(scale * np.exp(own), tilt) for scale, tilt in zip(scales, _TILTS, strict=True)]


class Pairs:
    """What coalitions have in common, for all targets alike.

    Parameters
    ----------
    coalitions : ndarray of bool, shape (m, n)
        One of each pair; all players first.

    Attributes
    ----------
    signs : ndarray of float64, shape (m, n)
    alike : list of ndarray of float64, shape (m, m)
        Covariances of the parts that treat all players alike, their variances left out.
    """

    def __init__(self, coalitions: Coalitions) -> None:
        self.count, self.players = coalitions.shape
        self.signs = np.where(coalitions, 1.0, -1.0)
        self.sizes = coalitions.sum(1)
        agreeing = np.rint((self.signs @ self.signs.T + self.players) / 2).astype(np.intp)
        self._alike = (by_size(self.players), by_player(self.players))
        of_sizes = np.ix_(self.sizes, self.sizes)
        self.alike = [part.sizes[of_sizes] * part.overlaps[agreeing] for part in self._alike]

    def covariance(self, belief: Belief) -> Float:
        """Of the odd part of the game, shape (m, m)."""
        interactions = [part.covariance(self.signs) for part in belief.interactions()]
        return _with_nugget(_weighted(belief, self.alike + interactions))

    def cross(self, belief: Belief) -> Float:
        """Of the odd part with the Shapley values, shape (m, n)."""
        inside = (self.signs > 0).astype(np.intp)
        alike = [part.cross[self.sizes[:, None], inside] for part in self._alike]
        return _weighted(belief, alike + [part.cross(self.signs) for part in belief.interactions()])

    def prior(self, belief: Belief) -> Float:
        """Of the Shapley values, shape (n, n)."""
        n, alike = self.players, []
        for part in self._alike:
            # All players are alike, and their values sum up to twice the odd part of the game where all take part.
            others = (2 * part.cross[n, 1] - part.variance) / (n - 1)
            alike.append(others + (part.variance - others) * np.eye(n))
        return _weighted(belief, alike + [part.prior() for part in belief.interactions()])


def _weighted(belief: Belief, parts: list[Float]) -> Float:
    total: Float = sum(variance * part for variance, part in zip(belief.variances, parts, strict=True))
    return total


def _with_nugget(covariance: Float) -> Float:
    covariance[np.diag_indices_from(covariance)] += _NUGGET * np.trace(covariance) / len(covariance)
    return covariance


def posterior(pairs: Pairs, odd: Float, belief: Belief) -> Posterior:
    """Shapley values given the odd part of the game at some coalitions: universal kriging.

    Each player's own share is free, everything else is believed to be small. A game that is additive so far leaves no
    doubt.

    Parameters
    ----------
    pairs : Pairs
    odd : ndarray of float64, shape (m,)
        Half of the difference of a coalition's worth and its complement's.
    belief : Belief
    """
    n = pairs.players
    lower = cholesky(pairs.covariance(belief), lower=True, check_finite=False)
    columns = np.concatenate([pairs.signs, odd[:, None], pairs.cross(belief)], 1)
    white = solve_triangular(lower, columns, lower=True, check_finite=False)
    signs, right = white[:, :n], white[:, n + 1 :]
    orthogonal, upper = np.linalg.qr(signs)
    shares = orthogonal.T @ white[:, n]
    rest = white[:, n] - orthogonal @ shares
    values = 2 * solve_triangular(upper, shares) + right.T @ rest
    # Rounding apart, they sum up to it already.
    values += (2 * odd[0] - values.sum()) / n
    free = solve_triangular(upper, 2 * np.eye(n) - signs.T @ right, trans=1)
    covariance = pairs.prior(belief) - right.T @ right + free.T @ free
    if np.square(rest).sum() <= np.square(_ROUNDING * white[:, n]).sum():
        return Posterior(values, np.zeros((n, n)))
    freedom = max(pairs.count - n, 1)
    variance = np.square(rest).sum() / freedom
    # With few degrees of freedom, twice the error is to hold as much as with many.
    wider = float(student.ppf(0.975, freedom)) / 1.96
    return Posterior(values, covariance * variance * wider**2)


def evidence(pairs: Pairs, odd: Float, belief: Belief) -> tuple[float, Float]:
    """Logarithm of the likelihood with the free shares and the variance left out (REML), and its derivatives.

    Parameters
    ----------
    pairs : Pairs
        More than players.
    odd : ndarray of float64, shape (m,)
    belief : Belief

    Returns
    -------
    value : float
    derivatives : ndarray of float64, shape (6 + n,)
        By the belief's logarithms.

    Raises
    ------
    LinAlgError
        If the covariance is singular.
    """
    interactions = belief.interactions()
    alike = [part.likeness(pairs.signs) for part in interactions]
    parts = pairs.alike + [each.covariance() for each in alike]
    lower = cholesky(_with_nugget(_weighted(belief, parts)), lower=True, check_finite=False)
    white = solve_triangular(lower, np.eye(pairs.count), lower=True, check_finite=False)
    orthogonal, upper = np.linalg.qr(white @ pairs.signs)
    left = white - orthogonal @ (orthogonal.T @ white)
    precision = left.T @ left
    fit = precision @ odd
    rest, freedom = float(odd @ fit), pairs.count - pairs.players
    value = -freedom / 2 * np.log(rest) - np.log(np.diag(lower)).sum() - np.log(abs(np.diag(upper))).sum()
    weight = (freedom / rest * np.outer(fit, fit) - precision) / 2
    weight[np.diag_indices_from(weight)] += _NUGGET * np.trace(weight) / pairs.count
    own = [
        variance * part.derivative(pairs.signs, each, weight)
        for variance, part, each in zip(belief.variances[2:], interactions, alike, strict=True)
    ]
    of_variances = belief.variances * [(weight * part).sum() for part in parts]
    return float(value), np.concatenate([of_variances, [each.sum() for each in own], np.sum(own, 0)])


def fitted(pairs: Pairs, odd: Float, belief: Belief) -> Belief:
    """The belief that the pairs speak for most, from another one on: automatic relevance determination [1]_.

    Parameters
    ----------
    pairs : Pairs
        More than players and one.
    odd : ndarray of float64, shape (m,)
    belief : Belief
        The nearer the sooner; the usual one is where to start if that is better.

    References
    ----------
    .. [1] R. M. Neal, Bayesian learning for neural networks, Springer 1996.
    """
    plain = np.linalg.lstsq(pairs.signs, odd)[0]
    if np.square(odd - pairs.signs @ plain).sum() <= _ROUNDING_32**2 * np.square(odd).sum():
        return belief
    spread = np.repeat([_SPREAD, _SPREAD_OF_PLAYERS], [_SHARED, pairs.players])

    def lacking(logs: Float) -> tuple[float, Float]:
        try:
            value, derivatives = evidence(pairs, odd, Belief(logs))
        except LinAlgError:
            return 1e10, np.zeros_like(logs)
        # Few pairs say little of a belief that is far from the usual one.
        return np.square(logs / spread).sum() / 2 - value, logs / spread**2 - derivatives

    bounds = [(-10.0, 10.0)] * _PARTS + [(_LEAST, _MOST)] * len(_TILTS) + [(-3.0, 3.0)] * pairs.players
    # What few pairs spoke for may be a dead end, worse than the usual belief now.
    start = min(belief.logs, np.zeros_like(belief.logs), key=lambda logs: lacking(logs)[0])
    found = minimize(lacking, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _STEPS})
    return Belief(found.x)
