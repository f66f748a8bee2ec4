"""Kernel SHAP of the package shap, on segments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import binom

from napari_xai_med.errors import InputError
from napari_xai_med.explainers.base import register
from napari_xai_med.explainers.library_shap import LibraryShap, Model
from napari_xai_med.games.base import Estimate, Float
from napari_xai_med.options import option

_UNDETERMINED = (
    "The coalitions that were drawn do not tell all segments apart, so that these are not estimates of Shapley values; "
    "take more samples."
)
_RESAMPLED = 20
"""Bootstrap samples; the rank correlation needs no exact spread."""


@register
@dataclass(frozen=True)
class KernelSHAP(LibraryShap):
    """Kernel SHAP (shap): Shapley values of segments by a weighted regression on coalitions.

    shap's default keeps the ten segments that matter most and spreads the sum over them; here all are kept. All
    coalitions are asked if there are no more than samples; the values are exact then. shap gives no standard errors;
    how alike another seed would rank the segments is told by a bootstrap of the coalitions that were drawn.

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
        with model.random.lent(), _short():
            explainer = shap.KernelExplainer(model, model.nothing)
            values = explainer.explain(model.everything, nsamples=samples, l1_reg=l1_reg).T
        exact = samples == every and self.l1_reg == "none"
        used = explainer.nsamplesAdded
        masks = explainer.maskMatrix[:used]
        determined = np.linalg.matrix_rank(masks[:, :-1] - masks[:, -1:]) == n - 1
        estimate = Estimate(
            values,
            np.full(values.shape, 0.0 if exact else np.nan),
            game.evaluations,
            exact,
            facts={"samples_used": used},
            notices=() if determined else (_UNDETERMINED,),
        )
        with _short():
            spread = np.zeros_like(values) if exact else _spread(explainer, self.seed)
        yield self.ranked(estimate, spread)


def _short() -> AbstractContextManager[Any]:
    """Write arrays in short: shap does it for a log that nobody reads, which takes longer than its regression.

    NumPy before 2 has one such setting for all threads.
    """
    return np.printoptions(threshold=0, edgeitems=1)


def _spread(explainer: Any, seed: int) -> Float:
    """How much the values differ from seed to seed, (T, players), by shap's own regression on what was drawn again."""
    used, fixed, draws = explainer.nsamplesAdded, *_draws(explainer)
    if fixed == used:
        return np.zeros((explainer.D, explainer.M))
    weights = explainer.kernelWeights.copy()
    first = fixed + np.unique(draws, return_index=True)[1]
    times = weights[first] / weights[fixed:used].min()
    random = np.random.default_rng(seed)
    found = []
    for _ in range(_RESAMPLED):
        # As in a Bayesian bootstrap: no draw is left out, which would leave values undetermined.
        again = random.gamma(times) / times
        explainer.kernelWeights[fixed:used] = weights[fixed:used] * again[draws]
        share = explainer.nsamples / explainer.max_samples
        found.append([explainer.solve(share, target)[0] for target in range(explainer.D)])
    return np.asarray(np.std(found, 0, ddof=1))


def _draws(explainer: Any) -> tuple[int, NDArray[np.intp]]:
    """How many coalitions are the same with every seed, and to which draw each of the others belongs.

    shap first takes all of the smallest and largest sizes, then draws others, with their complements right behind
    unless these are of the same size.
    """
    used, players = explainer.nsamplesAdded, explainer.M
    sizes, fixed = explainer.maskMatrix[:used].sum(1), 0
    for size in range(1, players // 2 + 1):
        rows = int(binom(players, size)) * (1 if 2 * size == players else 2)
        if fixed + rows > used or not np.isin(sizes[fixed : fixed + rows], (size, players - size)).all():
            break
        fixed += rows
    draws: list[int] = []
    while fixed + len(draws) < used:
        # The last complement may be missing.
        rows = min(1 if 2 * sizes[fixed + len(draws)] == players else 2, used - fixed - len(draws))
        draws += [draws[-1] + 1 if draws else 0] * rows
    return fixed, np.array(draws, np.intp)
