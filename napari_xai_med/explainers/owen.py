"""Owen values of segments, coarse to fine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from napari_xai_med.explainers.base import register
from napari_xai_med.explainers.segmented import SegmentExplainer
from napari_xai_med.games.base import Estimate
from napari_xai_med.games.engine import ImageGame
from napari_xai_med.games.owen import owen
from napari_xai_med.options import option

_PER_SEGMENT = 20

_NOT_SPLIT = (
    "{} evaluations were not enough to tell all segments apart: those of a group that was not split share what it "
    "contributes; allow more evaluations, or make fewer segments."
)


@register
@dataclass(frozen=True)
class OwenValues(SegmentExplainer):
    """Owen values over a binary tree of segments in which neighbours that look alike join first.

    Groups are split where they contribute most to any of the classes, so that the first estimate takes a few
    evaluations and the rest goes to where the answer is. All classes share the evaluations, which in the package shap
    each class needs anew; split completely, the values are the same. They are Shapley values only where groups don't
    act together.

    References
    ----------
    Owen 1977, Values of games with a priori unions, in Mathematical Economics and Game Theory, Springer.
    Salembier & Garrido 2000, Binary partition tree as an efficient representation for image processing, IEEE TIP 9(4).
    """

    name: ClassVar[str] = "owen"
    title: ClassVar[str] = "Owen values, coarse to fine"
    paper: ClassVar[str] = "Owen 1977, doi:10.1007/978-3-642-45494-3_7"
    additive: ClassVar[bool] = True

    evaluations: int = option(
        0, f"Masked images to ask about at most; {_PER_SEGMENT} for each segment if 0.", limits=(0, 10_000_000)
    )

    def estimates(self, game: ImageGame) -> Iterator[Estimate]:
        """Groups that are split one after the other; see `SegmentExplainer`."""
        assert game.tree is not None
        budget = self.evaluations or max(_PER_SEGMENT * game.players, 4)
        game.expected = budget
        for estimate in owen(game, game.tree(), budget):
            told = () if estimate.exact else (_NOT_SPLIT.format(estimate.evaluations),)
            # They are exact as Owen values, which is not what the fact "exact" says of Shapley values.
            facts = {"all_groups_split": estimate.exact}
            yield replace(estimate, exact=False, facts=facts, notices=told)
