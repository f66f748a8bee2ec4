"""Shapley values of segments: exact, or estimated from few evaluations with a standard error for each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from napari_xai_med.errors import InputError
from napari_xai_med.explainers.base import register
from napari_xai_med.explainers.segmented import SegmentExplainer
from napari_xai_med.games.base import Estimate
from napari_xai_med.games.engine import ImageGame
from napari_xai_med.games.exact import PLAYERS, exact
from napari_xai_med.games.regression import regression
from napari_xai_med.games.stopping import StopRule
from napari_xai_med.options import option

_PER_SEGMENT = 20
"""Evaluations for each segment, if the user says nothing: about 1 % of error in most games."""
_MOST = 40_000
"""Evaluations that can be put together: several matrices of half as many rows and columns, of 3 GB each."""
_OPEN = (
    "After {} evaluations the order or the errors that were asked for are not settled; allow more evaluations, make "
    "fewer segments, or ask for less."
)
_TOO_MANY = (
    "Shapley values of {} segments by {} evaluations would take hours and more memory than most computers have; make "
    "fewer segments, allow at most {} evaluations, or choose Owen values, which go from coarse to fine."
)


@register
@dataclass(frozen=True)
class ShapleyValues(SegmentExplainer):
    """Shapley values of segments: what each contributes on average over all orders in which they could be shown.

    Estimated by a regression on pairs of a coalition and its complement, which takes interactions of any odd number of
    segments into account; each value has a standard error. They are exact where the evaluations are enough for all
    coalitions, or where this is asked for. The contributions sum up to what the image has above the baseline.

    References
    ----------
    Shapley 1953, A value for n-person games, in Contributions to the Theory of Games II.
    Lundberg & Lee 2017, A unified approach to interpreting model predictions, NeurIPS, arXiv:1705.07874.
    Musco & Witter 2024, Provably accurate Shapley value estimation via leverage score sampling, arXiv:2410.01917.
    Fumagalli et al. 2026, An odd estimator for Shapley values, arXiv:2602.01399.
    """

    name: ClassVar[str] = "shapley"
    title: ClassVar[str] = "Shapley values"
    paper: ClassVar[str] = "Shapley 1953; Fumagalli et al. 2026, arXiv:2602.01399"
    additive: ClassVar[bool] = True

    evaluations: int = option(
        0, f"Masked images to ask about at most; {_PER_SEGMENT} for each segment if 0.", limits=(0, 10_000_000)
    )
    top: int = option(
        0,
        "Stop as soon as the order of so many segments, those that matter most, is settled; 0 not to.",
        limits=(0, None),
    )
    tolerance: float = option(
        0.0,
        "Stop as soon as the largest standard error is no more than this share of the largest contribution; 0 not to.",
        limits=(0.0, 1.0),
    )
    exact: bool = option(
        False, f"Ask about all coalitions, of up to {PLAYERS} segments, or of more if the evaluations are enough."
    )

    def estimates(self, game: ImageGame) -> Iterator[Estimate]:
        """A regression that gets better round by round, or an enumeration; see `SegmentExplainer`."""
        n = game.players
        if self.exact:
            game.expected = 2**n
            yield from exact(game, max(2**PLAYERS, self.evaluations))
            return
        # The first estimate needs two for each segment and two more.
        budget = self.evaluations or max(_PER_SEGMENT * n, 2 * n + 2)
        game.expected = min(budget, 2**n)
        rule = StopRule(budget, self.top, self.tolerance)
        if game.expected > _MOST and (budget < 2**n or rule.early):
            raise InputError(_TOO_MANY.format(n, budget, _MOST))
        for estimate in regression(game, rule, self.seed):
            open_yet = (_OPEN.format(estimate.evaluations),) if rule.early and not estimate.settled else ()
            facts = {**estimate.facts, "settled": estimate.settled}
            yield self.ranked(replace(estimate, facts=facts, notices=(*estimate.notices, *open_yet)))
