"""Interactions that know which players matter: covariances of products over the players, and their derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from napari_xai_med.games.base import Float

_NODES = 24
"""Of the quadratures; exact for up to twice as many players, and to rounding beyond."""


@dataclass(frozen=True)
class Likeness:
    """How alike coalitions are, without what is believed of their tilt, and that.

    Parameters
    ----------
    both, odd : ndarray of float64, shape (m, m)
        How alike one coalition is to another, plus and minus how alike it is to that one's complement.
    cosh, sinh : ndarray of float64, shape (m,), optional
        Of what a tilt multiplies; None without one.
    """

    both: Float
    odd: Float
    cosh: Float | None = None
    sinh: Float | None = None

    def covariance(self) -> Float:
        """Of the odd part of the game, shape (m, m)."""
        if self.cosh is None or self.sinh is None:
            return self.odd
        covariance: Float = self.odd * np.outer(self.cosh, self.cosh) + self.both * np.outer(self.sinh, self.sinh)
        return covariance


@dataclass(frozen=True)
class Interactions:
    """The odd part of a game whose players interact in products, each player as strongly as it does.

    Of coalitions x, x' in {-1, 1}^n and weights w the covariance is the odd part of that of a game,

        k(x, x') = exp(sum_i w_i (x_i x'_i + tilt (x_i + x'_i))),

    and of the same game with presence and absence exchanged. Without a tilt, the Walsh function of the players A has
    the variance prod_{i in A} tanh w_i. With the tilt 1 the same is true of the unanimity games of A, those that are
    worth something only if all of A are present, or absent, and their variance prod_{i in A} (exp(4 w_i) - 1).

    A Shapley value is the integral over q of the difference that a player makes to a coalition in which each other
    one is with probability q; of a product over the players that is a polynomial in q [1]_.

    Parameters
    ----------
    weights : ndarray of float64, shape (n,)
        Above 0.
    tilt : float

    References
    ----------
    .. [1] G. Owen, Multilinear extensions of games, Management Science 18(5), 1972.
    """

    weights: Float
    tilt: float

    def _norm(self) -> float:
        # A coalition of one half of the players has the variance 1; exp(sum w) is left out everywhere.
        return float(1 - np.exp(-2 * self.weights.sum()))

    def likeness(self, signs: Float) -> Likeness:
        """Of coalitions of shape (m, n)."""
        # To the other one, and to its complement.
        same = np.exp((signs * self.weights) @ signs.T - self.weights.sum())
        other = np.exp(-2 * self.weights.sum()) / same
        both, odd = (same + other) / self._norm(), (same - other) / self._norm()
        if not self.tilt:
            return Likeness(both, odd)
        tilted = self.tilt * (signs @ self.weights)
        return Likeness(both, odd, np.cosh(tilted), np.sinh(tilted))

    def covariance(self, signs: Float) -> Float:
        """Of the odd part of the game, shape (m, m), at coalitions of shape (m, n)."""
        return self.likeness(signs).covariance()

    def derivative(self, signs: Float, likeness: Likeness, weight: Float) -> Float:
        """Of sum(weight * covariance) by the logarithm of each player's weight, shape (n,).

        Parameters
        ----------
        signs : ndarray of float64, shape (m, n)
        likeness : Likeness
            Of them.
        weight : ndarray of float64, shape (m, m)
            Symmetric.
        """
        both, odd = weight * likeness.both, weight * likeness.odd
        if likeness.cosh is None or likeness.sinh is None:
            by_weight, covariance = (signs * (both @ signs)).sum(0), odd.sum()
        else:
            cosh, sinh = likeness.cosh[:, None], likeness.sinh[:, None]
            by_weight = (cosh * signs * (both @ (cosh * signs)) + sinh * signs * (odd @ (sinh * signs))).sum(0)
            by_weight += 2 * self.tilt * (signs * (sinh * (odd @ cosh) + cosh * (both @ sinh))).sum(0)
            covariance = (cosh * (odd @ cosh) + sinh * (both @ sinh)).sum()
        derivative: Float = self.weights * (by_weight - covariance / np.tanh(self.weights.sum()))
        return derivative

    def _factors(self) -> tuple[Float, Float, Float]:
        """What a player adds to the product where it is in both coalitions, in one, and in none."""
        return np.exp(2 * self.tilt * self.weights), np.exp(-2 * self.weights), np.exp(-2 * self.tilt * self.weights)

    def cross(self, signs: Float) -> Float:
        """Covariance of the odd part with the Shapley values, shape (m, n)."""
        both, one, none = self._factors()
        q, weight = _quadrature(len(self.weights))
        mixed_in, mixed_out = q * both + (1 - q) * one, q * one + (1 - q) * none
        logs_in, logs_out = np.log(mixed_in), np.log(mixed_out)
        half, middle = (logs_in - logs_out) / 2, (logs_in + logs_out).sum(1) / 2
        added_in, added_out = weight * (both - one) / mixed_in, weight * (one - none) / mixed_out
        of_coalition, of_complement = signs @ half.T + middle, middle - signs @ half.T
        product, opposite = np.exp(of_coalition), np.exp(of_complement)
        cross: Float = np.where(
            signs > 0, product @ added_in - opposite @ added_out, product @ added_out - opposite @ added_in
        )
        return cross / self._norm()

    def prior(self) -> Float:
        """Covariance of the Shapley values, shape (n, n)."""
        both, one, none = self._factors()
        q, weight = _quadrature(len(self.weights))
        p, q = q[:, None], q[None]
        mixed = p * q * both + (p + q - 2 * p * q) * one + (1 - p) * (1 - q) * none
        product = np.exp(np.log(mixed).sum(2)) * weight * weight.T
        # The player's difference in one coalition, and what it is in the other one.
        added = ((p * (both - one) + (1 - p) * (one - none)) / mixed).reshape(-1, len(self.weights))
        of_other = ((q * (both - one) + (1 - q) * (one - none)) / mixed).reshape(-1, len(self.weights))
        covariance = (added * product.reshape(-1, 1)).T @ of_other
        np.fill_diagonal(covariance, (product[:, :, None] / mixed).sum((0, 1)) * (both - 2 * one + none))
        covariance *= 2 / self._norm()
        return covariance


def _quadrature(players: int) -> tuple[Float, Float]:
    """Nodes between 0 and 1 and their weights, shape (nodes, 1)."""
    nodes, weight = _nodes(min(players // 2 + 1, _NODES))
    return (nodes[:, None] + 1) / 2, weight[:, None] / 2


# Finding them takes longer than using them.
_nodes = cache(np.polynomial.legendre.leggauss)
