"""What methods share that tell how much each segment of an image contributes to what a classifier says."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import floor
from typing import Any, ClassVar

import numpy as np
import torch

from napari_xai_med.errors import InputError
from napari_xai_med.explainers.base import Parts, Question, RawMap
from napari_xai_med.explainers.baselines import BASELINES, spacing_of
from napari_xai_med.explainers.masked import MaskedExplainer, Play, told_of
from napari_xai_med.explainers.segment_baselines import inpainted, segment_means
from napari_xai_med.games.agreement import expected_rank_correlation
from napari_xai_med.games.base import Estimate, Float
from napari_xai_med.games.engine import Composer, ImageGame
from napari_xai_med.job import Job
from napari_xai_med.models.head import Answer
from napari_xai_med.options import option
from napari_xai_med.segments.base import Segments
from napari_xai_med.segments.tree import partition_tree

_OF_SEGMENTS = ("segment_mean", "inpainting")
"""Baselines that only these methods have."""
_GOOD_RANKS = 0.95
_POOR_RANKS = (
    "With another seed, {} would rank the segments differently (rank correlation {:.2f}); let more masked images be "
    "asked about, or make fewer segments."
)


@dataclass(frozen=True)
class SegmentExplainer(MaskedExplainer):
    """A method that asks about the image with segments replaced by a baseline.

    Attributes
    ----------
    additive : bool
        Whether it promises contributions that sum up to what the whole image has above the baseline.
    """

    uses_segments: ClassVar[bool] = True
    additive: ClassVar[bool] = False

    baseline: str = option(
        "zero",
        "What hidden segments are replaced by, behind the preprocessing: zero, each channel's minimum or mean, the "
        "image blurred, a constant, noise with each channel's mean and standard deviation, each segment's own mean "
        "(lime's hide colour), what its surroundings let one expect (inpainting), or another image.",
        choices=(*BASELINES, *_OF_SEGMENTS),
    )

    @abstractmethod
    def estimates(self, game: ImageGame) -> Iterator[Estimate]:
        """What each segment contributes, as far as it is known by and by.

        Parameters
        ----------
        game : ImageGame
            Tell its `expected` before it is asked.

        Yields
        ------
        Estimate
            The last one is the result.
        """

    def ranked(self, estimate: Estimate, errors: Float | None = None) -> Estimate:
        """The same with how alike another seed would rank the segments, where that is known.

        Parameters
        ----------
        estimate : Estimate
        errors : ndarray of float64, shape (T, players), optional
            By how much the values differ from seed to seed; the standard errors by default.
        """
        found = expected_rank_correlation(
            estimate.values, estimate.errors if errors is None else errors, self.seed
        ).tolist()
        facts = estimate.target_facts or ({},) * len(found)
        notices = estimate.target_notices or ((),) * len(found)
        # Comparisons with NaN, where nothing is known, are false.
        # Rounded down, so that what is below the limit reads so.
        poor = [
            (_POOR_RANKS.format(self.title, floor(100 * each) / 100),) if each < _GOOD_RANKS else () for each in found
        ]
        known = [{"expected_rank_correlation": each} if each == each else {} for each in found]
        return replace(
            estimate,
            target_facts=tuple({**a, **b} for a, b in zip(facts, known, strict=True)),
            target_notices=tuple((*a, *b) for a, b in zip(notices, poor, strict=True)),
        )

    def baselines(self, question: Question) -> torch.Tensor:
        """The baseline of each row; see `WithBaseline`."""
        if self.baseline not in _OF_SEGMENTS or self.baseline_image:
            return super().baselines(question)
        spacing = spacing_of(question)
        rows = []
        for image, segments in zip(question.inputs, question.segments, strict=True):
            data, labels = image.cpu().numpy(), segments.labels
            inpainting = self.baseline == "inpainting"
            found = inpainted(data, labels, spacing) if inpainting else segment_means(data, labels)
            rows.append(torch.from_numpy(found).to(image))
        return torch.stack(rows)[:, None].to(question.classifier.device)

    def attribute(self, question: Question, job: Job) -> tuple[list[RawMap], Answer]:
        """Play a game for each row, which all its targets share; see `Explainer`."""
        if len(question.segments) != len(question.inputs):
            raise InputError(f"{self.title} explains by segments; give the question those of each image.")
        for segments in question.segments:
            _check(segments)
        return super().attribute(question, job)

    def maps(self, play: Play) -> Iterator[Callable[[], list[RawMap]]]:
        """A map for each target, of each estimate; see `MaskedExplainer`."""
        segments, image = play.question.segments[play.row], play.image
        compose = Composer(image, play.baseline.to(image), torch.from_numpy(segments.labels).to(image.device))
        tree = partial(partition_tree, segments.labels, image.cpu().numpy(), spacing_of(play.question))
        game = play.game(compose, segments.count, self.batch_size, tree=tree)
        ends = game(np.array([[False] * game.players, [True] * game.players]))
        for estimate in self.estimates(game):
            yield partial(self._maps, segments, game, estimate, ends)

    def _maps(
        self, segments: Segments, game: ImageGame, estimate: Estimate, ends: np.ndarray[Any, Any]
    ) -> list[RawMap]:
        """A map for each target of a row."""
        told, fewer = told_of(game)
        shared = {
            "segments": dict(segments.facts) | {"made": segments.count},
            **told,
            "exact": estimate.exact,
            **estimate.facts,
        }
        notices = (*segments.notices, *estimate.notices, *fewer)
        maps = []
        for k, (values, errors) in enumerate(zip(estimate.values, estimate.errors, strict=True)):
            empty, full = ends[:, k].tolist()
            facts = {**shared, "of_baseline": empty, "of_image": full}
            if self.additive:
                facts["additivity_residual"] = full - empty - float(values.sum())
            said = notices
            if estimate.target_facts:
                facts |= estimate.target_facts[k]
            if estimate.target_notices:
                said = (*notices, *estimate.target_notices[k])
            parts = Parts(segments.labels, values, errors)
            maps.append(RawMap(parts.painted(), np.eye(segments.labels.ndim + 1), facts, said, parts))
        return maps


def _check(segments: Segments) -> None:
    if not segments.count:
        raise InputError("There is no segment in the part of the image that is asked about; choose another mask.")
    empty = np.flatnonzero(np.bincount(segments.labels.ravel())[1:] == 0) + 1
    if len(empty):
        raise InputError(f"Segment {empty[0]} has no voxel; number segments from 1 on without gaps.")
