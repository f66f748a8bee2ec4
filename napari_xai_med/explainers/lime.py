"""LIME on segments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.errors import InputError
from napari_xai_med.explainers.base import register
from napari_xai_med.explainers.library_shap import SEEDS
from napari_xai_med.explainers.segmented import SegmentExplainer
from napari_xai_med.games.base import Coalitions, Estimate, Float
from napari_xai_med.games.engine import ImageGame
from napari_xai_med.options import option

_FIRST = 64
"""Samples of the first estimate, if that is more than there are segments."""
_PART = 256
_ALPHA = 1.0
"""Of the ridge regression, as lime has it."""
_GOOD_FIT, _COUNTED = 0.5, 0.01

_ONE_BY_ONE = ("forward_selection", "lasso_path")
"""Selections that never fit all segments at once."""
_TOO_FEW = (
    "LIME can't tell {} segments apart by {} samples; take at least {} samples, better ten for each segment, or make "
    "fewer segments."
)
_UNCOUNTED = (
    "With a kernel width of {:g} masked images count for less than 1 % of the fit; choose a larger one, such as 1."
)
_RESAMPLED = 20
"""Bootstrap samples of a fit with selected segments; the rank correlation needs no exact spread."""
_WHICH = (
    "LIME keeps {} segments only with a feature selection; choose one, such as highest_weights, or 0 for all segments."
)
_POOR_FIT = (
    "LIME's linear model explains {:.0%} of what the masked images' scores differ by (R2 {:.2f}): segments act "
    "together, so that no weight for each tells how; choose another number of segments, or Shapley values."
)


@dataclass(frozen=True)
class _Fit:
    """A linear model of one target."""

    weights: Float
    errors: Float
    facts: Mapping[str, Any]
    notices: tuple[str, ...]


@register
@dataclass(frozen=True)
class Lime(SegmentExplainer):
    """LIME: weights of a linear model of the scores of images of which about half the segments are hidden.

    The regression is that of the package lime, with samples and distances as in its `LimeImageExplainer`, which draws
    the same with this seed as its `random_state`, if it also gets the `random_seed` that it else draws first. What
    differs is what is explained: by default the logit, where lime explains the probability; ask for that as quantity.
    Standard errors are the regression's own, robust to scores that no linear model fits (HC3); with features selected
    they take the selection as given. How alike another seed would rank the segments is told by a bootstrap then.

    References
    ----------
    Ribeiro, Singh & Guestrin 2016, "Why should I trust you?", KDD, arXiv:1602.04938.
    MacKinnon & White 1985, Some heteroskedasticity-consistent covariance matrix estimators, J. Econometrics 29(3).
    """

    name: ClassVar[str] = "lime"
    title: ClassVar[str] = "LIME"
    paper: ClassVar[str] = "Ribeiro et al. 2016, arXiv:1602.04938"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "lime": {
            "samples": 1000,
            "kernel_width": 0.25,
            "feature_selection": "auto",
            "features": 100_000,
            "sampling": "half",
            "baseline": "segment_mean",
        },
    }

    samples: int = option(1000, "Masked images to ask about, with the image itself.", limits=(2, 1_000_000))
    kernel_width: float = option(
        0.25,
        "How far from the image masked images still count: a mask at cosine distance d counts exp(-d2 / 2w2).",
        limits=(1e-3, None),
    )
    sampling: str = option(
        "half",
        "Which segments a mask hides: each with probability one half, as lime does; or as many as you like (sizes): "
        "first their number is drawn, each equally probable, and then which.",
        choices=("half", "sizes"),
    )
    feature_selection: str = option(
        "none",
        "How lime selects the segments that get a weight; the others get 0.",
        choices=("none", "auto", "forward_selection", "lasso_path", "highest_weights"),
    )
    features: int = option(0, "How many segments are selected at most; all if 0.", limits=(0, None))

    def estimates(self, game: ImageGame) -> Iterator[Estimate]:
        """A regression on the first samples, and again whenever these are twice as many; see `SegmentExplainer`."""
        if self.samples <= game.players and self.feature_selection not in _ONE_BY_ONE:
            raise InputError(_TOO_FEW.format(game.players, self.samples, game.players + 1))
        if self.features and self.feature_selection == "none":
            raise InputError(_WHICH.format(self.features))
        masks = self._masks(game.players)
        game.expected = self.samples + 2
        # The cosine distance between a mask and the one of all segments.
        distances = 1 - np.sqrt(masks.mean(1))
        count = min(self.samples, max(_FIRST, game.players + 1))
        while True:
            scores = game(masks[:count])
            fits = [self._fit(masks[:count], distances[:count], column) for column in scores.T]
            estimate = Estimate(
                np.stack([fit.weights for fit in fits]),
                np.stack([fit.errors for fit in fits]),
                game.evaluations,
                facts={"samples_used": count},
                target_facts=tuple(fit.facts for fit in fits),
                target_notices=tuple(fit.notices for fit in fits),
            )
            last = count == self.samples
            selected = last and bool(np.isnan(estimate.errors).any())
            yield self.ranked(estimate, self._spread(masks, distances, scores) if selected else None)
            if last:
                return
            count = min(2 * count, self.samples)

    def _masks(self, players: int) -> Coalitions:
        """Which segments each sample keeps, shape (samples, players); all of them first."""
        random = np.random.RandomState(self.seed % SEEDS)  # what lime draws with
        if self.sampling == "half":
            masks = random.randint(0, 2, self.samples * players).reshape(self.samples, players) == 1
        else:
            sizes = random.randint(0, players + 1, (self.samples, 1))
            ranks = random.random_sample((self.samples, players)).argsort(1).argsort(1)
            masks = ranks < sizes
        masks[0] = True
        # As numbers they would take as much memory as a volume while the network runs.
        return masks

    def _fit(self, kept: Coalitions, distances: Float, scores: Float) -> _Fit:
        masks, players = kept.astype(np.int64), kept.shape[1]
        if scores.min() == scores.max():
            # Nothing to fit, and rounding would look like weights.
            return _Fit(np.zeros(players), np.zeros(players), {"r2": None, "intercept": float(scores[0])}, ())
        from lime.lime_base import LimeBase

        base = LimeBase(self._kernel, random_state=self.seed % SEEDS)
        intercept, pairs, r2, predicted = base.explain_instance_with_data(
            masks, scores[:, None], distances, 0, self.features or players, self.feature_selection
        )
        weights, errors = np.zeros(players), np.full(players, np.nan)
        chosen = np.array([segment for segment, _ in pairs])
        weights[chosen] = [weight for _, weight in pairs]
        errors[chosen] = _errors(masks[:, chosen], scores - intercept - masks @ weights, self._kernel(distances))
        facts = {"r2": float(r2), "intercept": float(intercept), "local_prediction": float(predicted[0])}
        notices = (_POOR_FIT.format(max(r2, 0.0), r2),) if r2 < _GOOD_FIT else ()
        counted = self._kernel(distances)
        if counted[distances > 0].sum() < _COUNTED * counted.sum():
            notices = (_UNCOUNTED.format(self.kernel_width),)
        return _Fit(weights, errors, facts, notices)

    def _spread(self, masks: Coalitions, distances: Float, scores: Float) -> Float:
        """How much weights with selected segments differ from seed to seed, (T, players): a bootstrap of samples."""
        random = np.random.default_rng(self.seed)
        runs = []
        for _ in range(_RESAMPLED):
            # The image itself is among all samples.
            rows = np.append(0, random.integers(1, len(masks), len(masks) - 1))
            runs.append([self._fit(masks[rows], distances[rows], column[rows]).weights for column in scores.T])
        return np.asarray(np.std(runs, 0, ddof=1))

    def _kernel(self, distances: Float) -> Float:
        """What samples count, as in lime_image."""
        return np.asarray(np.sqrt(np.exp(-(distances**2) / self.kernel_width**2)))


def _errors(masks: NDArray[np.int64], residuals: Float, weights: Float) -> Float:
    """Standard errors of a weighted ridge regression with an intercept, by the HC3 sandwich.

    Parameters
    ----------
    masks : ndarray, shape (K, players)
    residuals, weights : ndarray, shape (K,)
    """
    mean = np.average(masks, axis=0, weights=weights)
    scatter = (masks.T * weights) @ masks - weights.sum() * np.outer(mean, mean)
    inverse = np.linalg.inv(scatter + _ALPHA * np.eye(len(mean)))
    variances = np.zeros(len(mean))
    # In parts: samples times segments are many numbers, and the volume that is explained fills the memory.
    for k in range(0, len(masks), _PART):
        part = slice(k, k + _PART)
        centred = masks[part] - mean
        pull = (centred * weights[part, None]) @ inverse
        leverage = (pull * centred).sum(1) + weights[part] / weights.sum()
        variances += np.square(pull * (residuals[part] / np.maximum(1 - leverage, 1e-6))[:, None]).sum(0)
    return np.sqrt(variances)
