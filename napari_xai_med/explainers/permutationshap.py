"""Permutation SHAP of the package shap, on segments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any, ClassVar

import numpy as np

from napari_xai_med.explainers.base import register
from napari_xai_med.explainers.library_shap import SEEDS, LibraryShap, Model
from napari_xai_med.games.base import Estimate
from napari_xai_med.options import option


@register
@dataclass(frozen=True)
class PermutationSHAP(LibraryShap):
    """Permutation SHAP (shap): what each segment adds when all are added in random orders, and taken away again.

    shap is asked for one permutation at a time, with its random numbers going on from one to the next, so that there
    is an estimate after each, and a standard error from the second on: permutations are independent, which the two
    directions of one are not.

    References
    ----------
    Castro et al. 2009, Polynomial calculation of the Shapley value based on sampling, Comput. Oper. Res. 36(5).
    """

    name: ClassVar[str] = "permutationshap"
    title: ClassVar[str] = "Permutation SHAP (shap)"
    paper: ClassVar[str] = "Castro et al. 2009, doi:10.1016/j.cor.2008.04.004"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"shap": {"permutations": 10, "baseline": "zero"}}

    permutations: int = option(
        10, "Orders of the segments, each of which takes two images for a segment.", limits=(1, 100_000)
    )

    def played(self, model: Model) -> Iterator[Estimate]:
        """The mean over the permutations so far; see `LibraryShap`."""
        import shap

        game = model.game
        n = game.players
        game.expected = 2 + self.permutations * 2 * (n - 1)
        with model.random.lent():
            masker = shap.maskers.Independent(model.nothing)
            explainer = shap.PermutationExplainer(model, masker, seed=self.seed % SEEDS)
        found = []
        for count in range(1, self.permutations + 1):
            with model.random.lent():
                values = explainer(model.everything, max_evals=2 * n + 1, silent=True).values[0]
            # Of a single target shap leaves the axis out.
            found.append(values.reshape(n, -1).T)
            spread = np.std(found, 0, ddof=1) if count > 1 else np.full(found[0].shape, np.nan)
            yield self.ranked(
                Estimate(np.mean(found, 0), spread / sqrt(count), game.evaluations, facts={"permutations_used": count})
            )
