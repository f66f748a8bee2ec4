"""Regression of a game's odd part, and what it says of the Shapley values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.stats import t as student

from napari_xai_med.games.base import Coalitions, Float
from napari_xai_med.games.kernels import DEGREES, Component, by_player, by_size, interactions

_NUGGET = 1e-6
"""Share of the variance that is each coalition's own: float32 rounds."""

_FACTOR, _STEPS = 10**0.5, 6
"""Variances are found to this factor, up to so many of it away from 1."""

_SCREENED, _CANDIDATES = 24, 300
"""Among how many players interactions of three are looked for, and how many of these are compared."""

_ROUNDING = 1e-12
"""Residuals that are smaller, relative to the game, are float64's."""


@dataclass(frozen=True)
class Belief:
    """How large the parts of a game's odd part are, relative to each other; see `kernels`.

    Parameters
    ----------
    size, player, interaction : float
        Variances.
    degree : float
        Of the interactions.
    triples : ndarray of int, shape (P, 3)
        Interactions of three players that matter more than others.
    variances : ndarray of float64, shape (P,)
        What they have beyond the others.
    """

    size: float = 1.0
    player: float = 1.0
    interaction: float = 0.1
    degree: float = 4.0
    triples: NDArray[np.intp] = field(default_factory=lambda: np.empty((0, 3), dtype=np.intp))
    variances: Float = field(default_factory=lambda: np.empty(0))


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


class Pairs:
    """What coalitions have in common, for all targets alike.

    Parameters
    ----------
    coalitions : ndarray of bool, shape (m, n)
        One of each pair; all players first.
    """

    def __init__(self, coalitions: Coalitions) -> None:
        self.count, self.players = coalitions.shape
        self.signs = np.where(coalitions, 1.0, -1.0)
        self.sizes = coalitions.sum(1)
        self.agreeing = np.rint((self.signs @ self.signs.T + self.players) / 2).astype(np.intp)
        self._known: dict[tuple[str, float], Float] = {}

    def parts(self, belief: Belief) -> list[tuple[float, Component]]:
        """The components with their variances."""
        n = self.players
        kinds = (by_size(n), by_player(n), interactions(n, belief.degree))
        return list(zip((belief.size, belief.player, belief.interaction), kinds, strict=True))

    def covariance(self, belief: Belief) -> Float:
        """Of the odd part of the game, shape (m, m)."""
        total = np.zeros((self.count, self.count))
        for k, (variance, part) in enumerate(self.parts(belief)):
            key = (str(k), belief.degree if k == 2 else 0.0)
            if key not in self._known:
                by_sizes = part.sizes[self.sizes[:, None], self.sizes]
                self._known[key] = by_sizes * part.overlaps[self.agreeing]
            total += variance * self._known[key]
        total[np.diag_indices(self.count)] += _NUGGET * np.trace(total) / self.count
        products = self.products(belief.triples)
        return total + (products * belief.variances) @ products.T

    def cross(self, belief: Belief) -> Float:
        """Of the odd part with the Shapley values, shape (m, n)."""
        inside = (self.signs > 0).astype(np.intp)
        total = sum(variance * part.cross[self.sizes[:, None], inside] for variance, part in self.parts(belief))
        return total + 2 / 3 * (self.products(belief.triples) * belief.variances) @ self._members(belief)

    def prior(self, belief: Belief) -> Float:
        """Of the Shapley values, shape (n, n)."""
        n = self.players
        total = np.zeros((n, n))
        for variance, part in self.parts(belief):
            # All players are alike, and their values sum up to twice the odd part of the game where all take part.
            others = (2 * part.cross[n, 1] - part.variance) / (n - 1)
            total += variance * (others + (part.variance - others) * np.eye(n))
        members = self._members(belief)
        return total + 4 / 9 * (members * belief.variances[:, None]).T @ members

    def products(self, triples: NDArray[np.intp]) -> Float:
        """Of three players' signs, shape (m, P)."""
        return self.signs[:, triples[:, 0]] * self.signs[:, triples[:, 1]] * self.signs[:, triples[:, 2]]

    def _members(self, belief: Belief) -> Float:
        members = np.zeros((len(belief.triples), self.players))
        np.put_along_axis(members, belief.triples, 1.0, 1)
        return members


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
    # Each interaction that was looked for takes a degree of freedom as well.
    freedom = max(pairs.count - n - len(belief.triples), 1)
    variance = np.square(rest).sum() / freedom
    # With few degrees of freedom, twice the error is to hold as much as with many.
    wider = float(student.ppf(0.975, freedom)) / 1.96
    return Posterior(values, covariance * variance * wider**2)


def evidence(pairs: Pairs, odd: Float, covariance: Float) -> float:
    """Logarithm of the likelihood with the free shares and the variance left out (REML)."""
    n = pairs.players
    lower = cholesky(covariance, lower=True, check_finite=False)
    columns = np.concatenate([pairs.signs, odd[:, None]], 1)
    white = solve_triangular(lower, columns, lower=True, check_finite=False)
    upper = np.linalg.qr(white, mode="r")
    logs = np.log(abs(np.diag(upper)))
    return float(-(pairs.count - n) * logs[n] - np.log(np.diag(lower)).sum() - logs[:n].sum())


def fitted(pairs: Pairs, odd: Float, belief: Belief) -> Belief:
    """The belief that the pairs speak for most, from another one on.

    Parameters
    ----------
    pairs : Pairs
        More than players and one.
    odd : ndarray of float64, shape (m,)
    belief : Belief
        The nearer the sooner.
    """
    plain = np.linalg.lstsq(pairs.signs, odd)[0]
    if np.square(odd - pairs.signs @ plain).sum() <= _ROUNDING**2 * np.square(odd).sum():
        return belief
    belief = _scaled(pairs, odd, replace(belief, triples=np.empty((0, 3), dtype=np.intp), variances=np.empty(0)))
    belief = _with_triples(pairs, odd, belief)
    return _scaled(pairs, odd, belief) if len(belief.triples) else belief


def _scaled(pairs: Pairs, odd: Float, belief: Belief) -> Belief:
    """The best variances and degree, one after the other, each as long as a step helps."""
    best = evidence(pairs, odd, pairs.covariance(belief))
    for name in ("size", "interaction", "degree", "player"):
        for step in (1, -1):
            while True:
                if (trial := _stepped(belief, name, step)) is None:
                    break
                value = evidence(pairs, odd, pairs.covariance(trial))
                if value <= best:
                    break
                belief, best = trial, value
    return belief


def _stepped(belief: Belief, name: str, step: int) -> Belief | None:
    """A belief with one of its scales a step away, if that is still sensible."""
    if name == "degree":
        place = DEGREES.index(belief.degree) + step
        return replace(belief, degree=DEGREES[place]) if 0 <= place < len(DEGREES) else None
    value = getattr(belief, name) * _FACTOR**step
    return replace(belief, **{name: value}) if abs(np.log(value) / np.log(_FACTOR)) <= _STEPS + 0.5 else None


def _with_triples(pairs: Pairs, odd: Float, belief: Belief) -> Belief:
    """Interactions of three players, each of which the evidence grows by more than looking for it costs [1]_.

    References
    ----------
    .. [1] M. Tipping and A. Faul, Fast marginal likelihood maximisation for sparse Bayesian models, AISTATS 2003.
    """
    lower = cholesky(pairs.covariance(belief), lower=True, check_finite=False)
    inverse = cho_solve((lower, True), np.eye(pairs.count), check_finite=False)
    free = inverse @ pairs.signs
    precision = inverse - free @ np.linalg.solve(pairs.signs.T @ free, free.T)
    weighted = precision @ odd
    # The players whose own shares are large are in most interactions that are.
    strong = np.argsort(-abs(np.linalg.solve(pairs.signs.T @ free, free.T @ odd)), kind="stable")[:_SCREENED]
    triples = np.array(list(combinations(np.sort(strong), 3)))
    cost = np.log(len(triples)) / 2
    products = pairs.products(triples)
    if len(triples) > _CANDIDATES:
        kept = np.argsort(-abs(weighted @ products), kind="stable")[:_CANDIDATES]
        triples, products = triples[kept], products[:, kept]
    spread = precision @ products
    square, fit, rest = (products * spread).sum(0), weighted @ products, float(odd @ weighted)
    freedom = pairs.count - pairs.players
    variances = np.zeros(len(triples))
    for _ in range(pairs.count // 3):
        gain, added = _gains(square, fit, rest, freedom)
        k = int(gain.argmax())
        if gain[k] <= cost:
            break
        variances[k] += added[k]
        factor, column = added[k] / (1 + added[k] * square[k]), spread[:, k].copy()
        shared = products.T @ column
        rest -= factor * fit[k] ** 2
        fit = fit - factor * shared * fit[k]
        square, spread = square - factor * shared**2, spread - factor * np.outer(column, shared)
    return replace(belief, triples=triples[variances > 0], variances=variances[variances > 0])


def _gains(square: Float, fit: Float, rest: float, freedom: int) -> tuple[Float, Float]:
    """How much the evidence grows with each interaction, and with which variance."""
    square = np.maximum(square, np.finfo(float).tiny)
    share = np.minimum(fit**2 / square / rest, 1 - 1e-12)
    taken = np.clip((freedom * share - 1) / np.maximum(share * (freedom - 1), np.finfo(float).tiny), 0, 1 - 1e-9)
    gain = np.log1p(-taken) / 2 - freedom / 2 * np.log1p(-taken * share)
    return gain, taken / (1 - taken) / square
