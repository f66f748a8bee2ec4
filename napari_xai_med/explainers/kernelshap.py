"""Kernel SHAP of the package shap, on segments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from napari_xai_med.errors import InputError
from napari_xai_med.explainers.base import register
from napari_xai_med.explainers.library_shap import LibraryShap, Model
from napari_xai_med.games.base import Estimate
from napari_xai_med.options import option

_UNDETERMINED = (
    "The coalitions that were drawn do not tell all segments apart, so that these are not estimates of Shapley values; "
    "take more samples."
)


@register
@dataclass(frozen=True)
class KernelSHAP(LibraryShap):
    """Kernel SHAP (shap): Shapley values of segments by a weighted regression on coalitions.

    shap's default keeps the ten segments that matter most and spreads the sum over them; here all are kept. All
    coalitions are asked if there are no more than samples; the values are exact then. shap gives no standard errors.

    References
    ----------
    Lundberg & Lee 2017, A unified approach to interpreting model predictions, NeurIPS, arXiv:1705.07874.
    """

    name: ClassVar[str] = "kernelshap"
    title: ClassVar[str] = "Kernel SHAP (shap)"
    paper: ClassVar[str] = "Lundberg & Lee 2017, arXiv:1705.07874"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "shap": {"samples": 0, "l1_reg": "num_features", "features": 10, "baseline": "zero"},
    }

    samples: int = option(
        0, "Coalitions to ask about; as shap has it, 2048 and two for each segment, if 0.", limits=(0, 1_000_000)
    )
    l1_reg: str = option(
        "none",
        "How shap selects the segments that get a value: all, as many as features says (num_features), or by an "
        "information criterion of a lasso.",
        choices=("none", "num_features", "aic", "bic"),
    )
    features: int = option(10, "How many segments num_features keeps.", limits=(1, None))

    def played(self, model: Model) -> Iterator[Estimate]:
        """One regression; see `LibraryShap`."""
        import shap

        game = model.game
        n = game.players
        every = 2**n - 2
        samples = min(self.samples or 2 * n + 2048, every)
        if samples < min(2 * n, every):
            raise InputError(
                f"Kernel SHAP can't tell {n} segments apart by {samples} samples; take at least {2 * n} samples, or "
                "fewer segments."
            )
        game.expected = samples + 2
        l1_reg = {"none": False, "num_features": f"num_features({self.features})"}.get(self.l1_reg, self.l1_reg)
        with model.random.lent():
            explainer = shap.KernelExplainer(model, model.nothing)
            values = explainer.explain(model.everything, nsamples=samples, l1_reg=l1_reg).T
        exact = samples == every and self.l1_reg == "none"
        used = explainer.nsamplesAdded
        masks = explainer.maskMatrix[:used]
        determined = np.linalg.matrix_rank(masks[:, :-1] - masks[:, -1:]) == n - 1
        yield Estimate(
            values,
            np.full(values.shape, 0.0 if exact else np.nan),
            game.evaluations,
            exact,
            facts={"samples_used": used},
            notices=() if determined else (_UNDETERMINED,),
        )
