"""What methods share that tell how much each segment of an image contributes to what a classifier says."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch

from napari_xai_med.errors import InputError
from napari_xai_med.explainers.base import Parts, Question, RawMap
from napari_xai_med.explainers.baselines import BASELINES, WithBaseline, spacing_of
from napari_xai_med.explainers.batches import FEWER, batch_size
from napari_xai_med.explainers.segment_baselines import inpainted, segment_means
from napari_xai_med.games.base import Estimate
from napari_xai_med.games.engine import Composer, ImageGame
from napari_xai_med.job import Job
from napari_xai_med.models.batch_sizes import REFERENCE
from napari_xai_med.models.formats.base import Gives
from napari_xai_med.models.head import Answer
from napari_xai_med.models.target import AnyTarget
from napari_xai_med.options import option
from napari_xai_med.segments.tree import partition_tree
from napari_xai_med.windows import asking

_FEW = 0.02
"""Share of the time that the answer about the image itself takes."""
_OF_SEGMENTS = ("segment_mean", "inpainting")
"""Baselines that only these methods have."""


@dataclass(frozen=True)
class SegmentExplainer(WithBaseline):
    """A method that asks about the image with segments replaced by a baseline.

    Attributes
    ----------
    additive : bool
        Whether it promises contributions that sum up to what the whole image has above the baseline.
    """

    signed: ClassVar[bool] = True
    needs: ClassVar[frozenset[Gives]] = frozenset()
    uses_segments: ClassVar[bool] = True
    whole: ClassVar[bool] = True
    additive: ClassVar[bool] = False

    baseline: str = option(
        "zero",
        "What hidden segments are replaced by, behind the preprocessing: zero, each channel's minimum or mean, the "
        "image blurred, a constant, noise with each channel's mean and standard deviation, each segment's own mean "
        "(lime's hide colour), what its surroundings let one expect (inpainting), or another image.",
        choices=(*BASELINES, *_OF_SEGMENTS),
    )
    batch_size: int = option(
        0,
        "Images computed at once at most; the fastest number is found if 0. Only numbers are used that don't change "
        "the answers in their last digits, if the memory is enough.",
        limits=(0, 10_000),
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
        baselines = self.baselines(question)[:, 0]
        with torch.no_grad(), asking(question.classifier) as ask:
            answer = ask(question.inputs.to(question.classifier.device, copy=True), job.part(0.0, _FEW))
            wanted = question.resolved(answer)
            rows = list(dict.fromkeys(row for row, _ in wanted))
            found: dict[int, RawMap] = {}
            for k, row in enumerate(rows):
                places = [place for place, (other, _) in enumerate(wanted) if other == row]
                length = (1 - _FEW) / len(rows)
                part = job.part(_FEW + k * length, _FEW + (k + 1) * length)
                targets = [wanted[place][1] for place in places]
                game = self._game(question, row, targets, baselines[row], ask, part)
                ends = game(np.array([[False] * game.players, [True] * game.players]))
                for estimate in self.estimates(game):
                    maps = self._maps(question, row, game, estimate, ends)
                    found |= dict(zip(places, maps, strict=True))
                    if len(found) == len(wanted):
                        job.show(partial(_in_order, dict(found), answer))
        return _in_order(found, answer)

    def _game(
        self,
        question: Question,
        row: int,
        targets: list[AnyTarget],
        baseline: torch.Tensor,
        ask: Any,
        job: Job,
    ) -> ImageGame:
        device, segments = question.classifier.device, question.segments[row]
        if not segments.count:
            raise InputError("There is no segment in the part of the image that is asked about; choose another mask.")
        empty = np.flatnonzero(np.bincount(segments.labels.ravel())[1:] == 0) + 1
        if len(empty):
            raise InputError(f"Segment {empty[0]} has no voxel; number segments from 1 on without gaps.")
        image = question.inputs[row].to(device)
        compose = Composer(image, baseline.to(image), torch.from_numpy(segments.labels).to(device))
        # What fits the memory is looked at once: by how much changes from moment to moment.
        most = max(REFERENCE, batch_size(question, 0, gradients=False))
        shape = tuple(image.shape)
        tree = partial(partition_tree, segments.labels, question.inputs[row].cpu().numpy(), spacing_of(question))
        sizes = {"limit": self.batch_size, "most": most}
        return ImageGame(question.classifier, ask, compose, shape, segments.count, targets, job, tree=tree, **sizes)

    def _maps(
        self, question: Question, row: int, game: ImageGame, estimate: Estimate, ends: np.ndarray[Any, Any]
    ) -> list[RawMap]:
        """A map for each target of a row."""
        segments = question.segments[row]
        shared = {
            "segments": dict(segments.facts) | {"made": segments.count},
            "evaluations": game.evaluations,
            "images_at_once": game.batch_size,
            "exact": estimate.exact,
            **estimate.facts,
        }
        fewer = (FEWER.format("many", game.smaller),) if game.smaller else ()
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


def _in_order(found: dict[int, RawMap], answer: Answer) -> tuple[list[RawMap], Answer]:
    return [found[place] for place in range(len(found))], answer
