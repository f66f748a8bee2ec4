"""Interactions that know which players matter: covariances of products over the players, and their derivatives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_xai_med.games.base import Float

_NODES = 24
"""Of the quadratures; exact for up to twice as many players, and to rounding beyond."""


@dataclass(frozen=True)
class Halves:
    """The summands of the covariance of `Interactions`, of shape (m, m) each.

    Parameters
    ----------
    present, absent : ndarray of float64
        Of both coalitions, and of both complements.
    opposite, opposite_absent : ndarray of float64
        Of one coalition and the other's complement, and of its complement and the other.
    """

    present: Float
    absent: Float
    opposite: Float
    opposite_absent: Float

    def covariance(self) -> Float:
        """Of the odd part of the game."""
        covariance: Float = self.present + self.absent - self.opposite - self.opposite_absent
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

    def halves(self, signs: Float) -> Halves:
        """Of the covariance at coalitions of shape (m, n)."""
        same = np.exp((signs * self.weights) @ signs.T - self.weights.sum())
        other = np.exp(-2 * self.weights.sum()) / same
        tilted = np.exp(self.tilt * (signs @ self.weights))
        up, ratio = np.outer(tilted, tilted), np.outer(tilted, 1 / tilted)
        norm = 2 * self._norm()
        same, other = same / norm, other / norm
        return Halves(same * up, same / up, other * ratio, other * ratio.T)

    def covariance(self, signs: Float) -> Float:
        """Of the odd part of the game, shape (m, m), at coalitions of shape (m, n)."""
        return self.halves(signs).covariance()

    def derivative(self, signs: Float, halves: Halves, weight: Float) -> Float:
        """Of sum(weight * covariance) by the logarithm of each player's weight, shape (n,).

        Parameters
        ----------
        signs : ndarray of float64, shape (m, n)
        halves : Halves
            At them.
        weight : ndarray of float64, shape (m, m)
            Symmetric.
        """
        same, other = halves.present + halves.absent, halves.opposite + halves.opposite_absent
        by_weight = (signs * ((weight * (same + other)) @ signs)).sum(0)
        if self.tilt:
            odd = halves.present - halves.absent - halves.opposite + halves.opposite_absent
            by_weight += 2 * self.tilt * (signs.T @ (weight * odd).sum(1))
        by_norm = (weight * (same - other)).sum() / np.tanh(self.weights.sum())
        derivative: Float = self.weights * (by_weight - by_norm)
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
    nodes, weight = np.polynomial.legendre.leggauss(min(players // 2 + 1, _NODES))
    return (nodes[:, None] + 1) / 2, weight[:, None] / 2
