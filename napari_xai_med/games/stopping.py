"""When an estimate is good enough."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_xai_med.games.base import Float

_APART = 2.0
"""Standard errors of a difference by which values that are in order are apart."""


@dataclass(frozen=True)
class StopRule:
    """When to stop.

    Parameters
    ----------
    budget : int
        Evaluations at most.
    top : int
        Stop when the order of so many values, the largest of either sign first, is settled; 0 not to stop for it.
    tolerance : float
        Stop when the largest standard error is no more than this share of the largest value; 0 not to stop for it.
    """

    budget: int
    top: int = 0
    tolerance: float = 0.0

    def settled(self, values: Float, covariances: Float) -> bool:
        """Whether all that is asked for is reached, for every target.

        Parameters
        ----------
        values : ndarray of float64, shape (T, n)
        covariances : ndarray of float64, shape (T, n, n)
            Of the values' errors.
        """
        asked = [self._ordered] * (self.top > 0) + [self._precise] * (self.tolerance > 0)
        each = list(zip(values, covariances, strict=True))
        return bool(asked) and all(reached(*target) for reached in asked for target in each)

    def _ordered(self, values: Float, covariance: Float) -> bool:
        order = np.argsort(-abs(values), kind="stable")[: self.top + 1]
        signs = np.sign(values[order])
        errors = covariance[np.ix_(order, order)] * signs[:, None] * signs
        variances = np.diag(errors)
        doubt = variances[1:] + variances[:-1] - 2 * np.diag(errors, 1)
        return bool(np.all(-np.diff(abs(values[order])) >= _APART * np.sqrt(np.maximum(doubt, 0))))

    def _precise(self, values: Float, covariance: Float) -> bool:
        return float(np.sqrt(np.diag(covariance).max())) <= self.tolerance * float(abs(values).max())
