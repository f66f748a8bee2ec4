"""Owen values of segments, coarse to fine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import ClassVar

import numpy as np

from napari_xai_med.errors import InputError
from napari_xai_med.explainers.base import register
from napari_xai_med.explainers.segmented import SegmentExplainer
from napari_xai_med.games.base import Coalitions, Estimate, Float
from napari_xai_med.games.engine import ImageGame
from napari_xai_med.games.owen import owen
from napari_xai_med.options import option

_PER_SEGMENT = 20
_MOST = 10_000
"""Segments whose tree is 2 GB large."""
_TOO_MANY = "The tree of {} segments takes more memory than most computers have; make at most {} segments."

_NOT_SPLIT = (
    "{} evaluations were not enough to tell all segments apart: those of a group that was not split share what it "
    "contributes; allow more evaluations, or make fewer segments."
)


@register
@dataclass(frozen=True)
class OwenValues(SegmentExplainer):
    """Owen values over a binary tree of segments in which neighbours that look alike join first.

    Groups are split where they contribute most, so that the first estimate takes a few evaluations and the rest goes to
    where the answer is. Split completely, the values are those of the package shap, which shows nothing before its
    end. They are Shapley values only where groups don't act together.

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
        0,
        f"Masked images to ask about at most, for each class; {_PER_SEGMENT} for each segment if 0.",
        limits=(0, 10_000_000),
    )

    def estimates(self, game: ImageGame) -> Iterator[Estimate]:
        """Groups that are split one after the other; see `SegmentExplainer`."""
        assert game.tree is not None
        if game.players > _MOST:
            raise InputError(_TOO_MANY.format(game.players, _MOST))
        budget, tree = self.evaluations or max(_PER_SEGMENT * game.players, 4), game.tree()
        game.expected = budget * len(game.targets)
        # Each class by itself: with groups that another one needs, its values would depend on what else is asked.
        # Coalitions that several need are asked about once.
        runs = [owen(_OfOneClass(game, k), tree, budget) for k in range(len(game.targets))]
        found: list[Estimate | None] = [None] * len(runs)
        for latest in zip_longest(*runs):
            found = [new or old for new, old in zip(latest, found, strict=True)]
            yield _together([each for each in found if each is not None], game.evaluations)


@dataclass(frozen=True)
class _OfOneClass:
    """The game of one of several classes."""

    game: ImageGame
    target: int

    @property
    def players(self) -> int:
        """As in all of them."""
        return self.game.players

    def __call__(self, coalitions: Coalitions) -> Float:
        """See `Game`."""
        return self.game(coalitions)[:, self.target : self.target + 1]


def _together(found: list[Estimate], evaluations: int) -> Estimate:
    """Estimates of single classes as one."""
    return Estimate(
        np.concatenate([each.values for each in found]),
        np.concatenate([each.errors for each in found]),
        evaluations,
        # As Owen values they may be exact, which is not what the fact "exact" says of Shapley values.
        target_facts=tuple({"all_groups_split": each.exact} for each in found),
        target_notices=tuple(() if each.exact else (_NOT_SPLIT.format(each.evaluations),) for each in found),
    )
