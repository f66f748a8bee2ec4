"""Sampling SHAP of the package shap, on segments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from napari_xai_med.errors import InputError
from napari_xai_med.explainers.base import register
from napari_xai_med.explainers.library_shap import LibraryShap, Model
from napari_xai_med.games.base import Estimate, Float
from napari_xai_med.options import option

_LEAST = 2
"""Samples that each segment gets at least."""


@register
@dataclass(frozen=True)
class SamplingSHAP(LibraryShap):
    """Sampling SHAP (shap): what each segment adds to random coalitions of the others, each segment by itself.

    shap corrects the sum afterwards, by most where a segment's contributions vary most; the standard errors are those
    behind that correction.

    References
    ----------
    Strumbelj & Kononenko 2010, An efficient explanation of individual classifications using game theory, JMLR 11.
    """

    name: ClassVar[str] = "samplingshap"
    title: ClassVar[str] = "Sampling SHAP (shap)"
    paper: ClassVar[str] = "Strumbelj & Kononenko 2010, JMLR 11"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "shap": {"samples": 2000, "adaptive": True, "baseline": "zero"},
    }

    samples: int = option(
        2000,
        "Coalitions to draw for all segments together, each of which takes an image with and one without the segment.",
        limits=(2, 1_000_000),
    )
    adaptive: bool = option(
        False,
        "Whether, from 100 samples for each segment on, the others go to segments whose contributions vary most, over "
        "all classes that are asked for together.",
    )

    def played(self, model: Model) -> Iterator[Estimate]:
        """One estimate; see `LibraryShap`."""
        game = model.game
        if self.samples < _LEAST * game.players:
            raise InputError(
                f"Sampling SHAP needs at least {_LEAST * game.players} samples for {game.players} segments; take more "
                "samples, or fewer segments."
            )
        game.expected = 2 + 2 * self.samples
        spreads = _Spreads()
        with model.random.lent():
            explainer = _explainer(model, spreads)
            least = {} if self.adaptive else {"min_samples_per_feature": self.samples}
            values = explainer.explain(model.everything, nsamples=self.samples, **least)
        errors = np.stack([spreads.errors(j) for j in range(game.players)], -1)
        yield self.ranked(Estimate(values.reshape(game.players, -1).T, _corrected(errors), game.evaluations))


@dataclass
class _Spreads:
    """Numbers of samples and variances of each player's contributions, round by round."""

    rounds: dict[int, list[tuple[int, Float]]] = field(default_factory=dict)

    def errors(self, player: int) -> Float:
        """Standard errors of the mean of all rounds, shape (T,)."""
        rounds = self.rounds[player]
        count = sum(n for n, _ in rounds)
        squares = sum((n * variance for n, variance in rounds), np.zeros(1))
        return np.asarray(np.sqrt(squares / (count - 1) / count))


def _explainer(model: Model, spreads: _Spreads) -> Any:
    """Shap's explainer, which also tells the variances that it finds and keeps to itself."""
    import shap

    class Telling(shap.SamplingExplainer):
        def sampling_estimate(self, j: int, *args: Any, **options: Any) -> tuple[Float, Float]:
            mean, variance = super().sampling_estimate(j, *args, **options)
            spreads.rounds.setdefault(int(j), []).append((int(options["nsamples"]), variance))
            # shap divides by the largest variance of a class, which is 0 where the network does not react.
            return mean, np.maximum(variance, np.finfo(float).tiny)

    return Telling(model, model.nothing)


def _corrected(errors: Float) -> Float:
    """Standard errors, (T, players), behind the correction of the sum, of which each bears its share of variance."""
    squares = errors**2
    total = squares.sum(1, keepdims=True)
    share = np.divide(squares, total, out=np.zeros_like(squares), where=total > 0)
    return np.asarray(np.sqrt(squares * (1 - share)))
