"""Partition SHAP of the package shap, on segments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.explainers.base import register
from napari_xai_med.explainers.library_shap import LibraryShap, Model
from napari_xai_med.games.base import Estimate, Float
from napari_xai_med.options import option

_NOT_SPLIT = (
    "{} evaluations were not enough to tell all segments apart: in groups that were not split each has the same value; "
    "allow more evaluations, or fewer segments."
)


@register
@dataclass(frozen=True)
class PartitionSHAP(LibraryShap):
    """Partition SHAP (shap): Owen values over a binary tree of segments in which neighbours that look alike join first.

    Groups of segments are split where they contribute most, until the evaluations are used up. With enough of them
    the values are exact, of this tree: they are Shapley values only where groups don't act together.

    References
    ----------
    Owen 1977, Values of games with a priori unions, in Mathematical Economics and Game Theory, Springer.
    Lundberg & Lee 2017, A unified approach to interpreting model predictions, NeurIPS, arXiv:1705.07874.
    """

    name: ClassVar[str] = "partitionshap"
    title: ClassVar[str] = "Partition SHAP (shap)"
    paper: ClassVar[str] = "Owen 1977, doi:10.1007/978-3-642-45494-3_7"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"shap": {"evaluations": 500, "baseline": "zero"}}

    evaluations: int = option(2000, "Coalitions to ask about at most, for each class.", limits=(4, 1_000_000))

    def played(self, model: Model) -> Iterator[Estimate]:
        """The tree split for each target by itself, since each has other groups that matter; see `LibraryShap`."""
        game = model.game
        assert game.tree is not None
        tree, count = game.tree(), len(game.targets)
        game.expected = 2 + count * self.evaluations
        # Coalitions that two targets need are asked about once.
        found = [_split(partial(_column, model, k), model, tree, self.evaluations) for k in range(count)]
        errors = [np.full(game.players, 0.0 if complete else np.nan) for _, complete in found]
        told = _NOT_SPLIT.format(self.evaluations)
        yield Estimate(
            np.stack([values for values, _ in found]),
            np.stack(errors),
            game.evaluations,
            target_facts=tuple({"all_groups_split": complete} for _, complete in found),
            target_notices=tuple(() if complete else (told,) for _, complete in found),
        )


def _column(model: Model, target: int, rows: NDArray[Any]) -> Float:
    return model(rows)[:, target]


def _split(score: Callable[[NDArray[Any]], Float], model: Model, tree: Float, most: int) -> tuple[Float, bool]:
    """Owen values of one target, and whether all groups were split."""
    import shap

    with model.random.lent():
        masker = shap.maskers.Partition(model.nothing, clustering=tree)
        explainer = shap.PartitionExplainer(score, masker)
        values = explainer(model.everything, max_evals=most, silent=True).values[0]
    # shap counts neither the empty nor the whole coalition, and stops as soon as it has as many as are left.
    return values, explainer.last_eval_count < most - 2
