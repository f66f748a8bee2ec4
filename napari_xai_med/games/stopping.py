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

    @property
    def early(self) -> bool:
        """Whether there is anything but the budget to stop for."""
        return self.top > 0 or self.tolerance > 0

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
        return self.early and all(reached(*target) for reached in asked for target in each)

    def _ordered(self, values: Float, covariance: Float) -> bool:
        order = np.argsort(-abs(values), kind="stable")
        sizes, signs = abs(values[order]), np.sign(values[order])
        errors = covariance[np.ix_(order, order)] * signs[:, None] * signs
        variances = np.diag(errors)
        # Each of the top with all behind it: the next one may be known better than one further down.
        doubt = variances[: self.top, None] + variances - 2 * errors[: self.top]
        apart = sizes[: self.top, None] - sizes >= _APART * np.sqrt(np.maximum(doubt, 0))
        return bool(apart[np.triu_indices(len(apart), 1, len(order))].all())

    def _precise(self, values: Float, covariance: Float) -> bool:
        return float(np.sqrt(np.diag(covariance).max())) <= self.tolerance * float(abs(values).max())
