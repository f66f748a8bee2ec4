"""Where the voxels of a mask stand among all voxels of a map, from one sorting."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.metrics.case import Map, Mask
from napari_xai_med.metrics.thresholds import together

Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Ranks:
    """The voxels of a map and a mask in order of their values.

    Own code, since scikit-learn's functions take minutes and tens of gigabytes for the volumes that this is for, and
    one sorting does for all of them: the bits of a float that is not below zero are in the order of the floats, and
    leave one bit free for the mask. The numbers are the same, ties included.

    Parameters
    ----------
    keys : ndarray of uint32, shape (voxels above zero,)
        Sorted; twice the value's bits, and 1 more in the mask.
    zeros, zeros_inside : int
        Voxels that are 0, and those of them in the mask.
    """

    keys: NDArray[np.uint32]
    zeros: int
    zeros_inside: int

    @classmethod
    def of(cls, evidence: Map, mask: Mask) -> Ranks:
        """Sort a map that is finite and nowhere below zero."""
        values, inside = together(evidence, mask)
        # The shift drops the sign, and with it what tells -0 from 0.
        keys = values.view(np.uint32) << np.uint32(1)
        keys |= inside
        above = keys[keys > 1]
        above.sort()
        inside_above = int(np.count_nonzero(above & np.uint32(1)))
        return cls(above, keys.size - above.size, int(np.count_nonzero(inside)) - inside_above)

    @property
    def voxels(self) -> int:
        """How many there are."""
        return self.keys.size + self.zeros

    @cached_property
    def inside(self) -> int:
        """How many are in the mask."""
        return int(self._groups[0].sum())

    @cached_property
    def _groups(self) -> tuple[Counts, Counts, Counts]:
        """Of each value in the mask, rising: how often it is there, how many voxels are lower, how many not higher."""
        values, often = np.unique(self.keys[(self.keys & np.uint32(1)) == 1], return_counts=True)
        lower = np.searchsorted(self.keys, values - np.uint32(1), "left") + self.zeros
        not_higher = np.searchsorted(self.keys, values, "right") + self.zeros
        if self.zeros_inside:
            often = np.concatenate([[self.zeros_inside], often])
            lower, not_higher = np.concatenate([[0], lower]), np.concatenate([[self.zeros], not_higher])
        return often.astype(np.int64), lower.astype(np.int64), not_higher.astype(np.int64)

    @cached_property
    def auroc(self) -> float:
        """How probably a voxel in the mask is higher than one outside; as ``sklearn.metrics.roc_auc_score``."""
        # With mean ranks for ties, the sum of ranks is that of Mann and Whitney.
        least = self.inside * (self.inside + 1) / 2
        return (self._rank_sum - least) / (self.inside * (self.voxels - self.inside))

    @cached_property
    def _rank_sum(self) -> float:
        often, lower, not_higher = self._groups
        return float((often * ((lower + not_higher + 1) / 2)).sum())

    @cached_property
    def auprc(self) -> float:
        """Mean precision over the recall; as ``sklearn.metrics.average_precision_score``."""
        often, lower, _ = self._groups
        found = often[::-1].cumsum()[::-1]
        return float((often * (found / (self.voxels - lower))).sum() / self.inside)

    @cached_property
    def rank_accuracy(self) -> float:
        """Share of the mask among as many of the highest voxels; of equal ones at the limit what is expected."""
        often, lower, not_higher = self._groups
        limit = self.voxels - self.inside
        # A group lies above the limit in part if the limit cuts it.
        above = (not_higher - np.clip(limit, lower, not_higher)) / (not_higher - lower)
        return float((often * above).sum() / self.inside)

    @cached_property
    def spearman(self) -> float:
        """Correlation of the mean ranks; as ``scipy.stats.spearmanr``."""
        n, inside = self.voxels, self.inside
        covariance = self._rank_sum / n - (inside / n) * (n + 1) / 2
        rank_variance = (float(n) ** 2 - 1) / 12 - self._ties / (12 * n)
        return float(covariance / np.sqrt(rank_variance * (inside / n) * (1 - inside / n)))

    @property
    def _ties(self) -> float:
        """Sum of t^3 - t over all groups of t equal values."""
        same = np.zeros(self.keys.size + 1, bool)
        same[1:-1] = (self.keys[1:] >> np.uint32(1)) == (self.keys[:-1] >> np.uint32(1))
        # Runs of true values, of one less than there are equal ones.
        starts = np.flatnonzero(same[1:] & ~same[:-1])
        stops = np.flatnonzero(same[:-1] & ~same[1:])
        sizes = np.append(stops - starts + 1, self.zeros).astype(np.float64)
        return float((sizes**3 - sizes).sum())
