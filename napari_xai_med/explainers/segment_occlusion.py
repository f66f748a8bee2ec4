"""Occlusion by segment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from napari_xai_med.explainers.base import register
from napari_xai_med.explainers.segmented import SegmentExplainer
from napari_xai_med.games.base import Estimate
from napari_xai_med.games.engine import ImageGame
from napari_xai_med.options import option


@register
@dataclass(frozen=True)
class SegmentOcclusion(SegmentExplainer):
    """Occlusion by segment: what is explained, minus the same without a segment; or what one segment alone brings.

    References
    ----------
    Zeiler & Fergus 2014, Visualizing and understanding convolutional networks, ECCV, arXiv:1311.2901.
    """

    name: ClassVar[str] = "segment_occlusion"
    title: ClassVar[str] = "Occlusion by segment"
    paper: ClassVar[str] = "Zeiler & Fergus 2014, arXiv:1311.2901"

    alone: bool = option(
        False, "Whether to keep one segment alone instead, and tell what it has above the baseline without any."
    )

    def estimates(self, game: ImageGame) -> Iterator[Estimate]:
        """One image for each segment; see `SegmentExplainer`."""
        n = game.players
        game.expected = n + 2
        one = np.eye(n, dtype=bool)
        start = np.full((1, n), not self.alone)
        step = 1 if self.alone else -1
        values = np.zeros((len(game.targets), n))
        whole = game(start)[0]
        for k in range(0, n, 64):
            chosen = slice(k, k + 64)
            values[:, chosen] = step * (game(one[chosen] if self.alone else ~one[chosen]) - whole).T
            yield Estimate(values.copy(), np.zeros_like(values), game.evaluations)
