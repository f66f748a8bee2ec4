"""What methods share that ask about an image many times, parts of it replaced by a baseline."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from napari_xai_med.explainers.base import Question, RawMap
from napari_xai_med.explainers.baselines import WithBaseline
from napari_xai_med.explainers.batches import FEWER, batch_size
from napari_xai_med.games.engine import ImageGame
from napari_xai_med.games.threads import one_thread
from napari_xai_med.job import Job
from napari_xai_med.models.formats.base import Gives
from napari_xai_med.models.head import Answer
from napari_xai_med.models.target import AnyTarget
from napari_xai_med.options import option
from napari_xai_med.windows import asking

_FEW = 0.02
"""Share of the time that the answer about the image itself takes."""


def limit_option() -> int:
    """The option of how many images are computed at once at most."""
    limit: int = option(
        0,
        "Images computed at once at most; the fastest number is found if 0. Only numbers are used that don't change "
        "the answers in their last digits, if the memory is enough.",
        limits=(0, 10_000),
    )
    return limit


@dataclass(frozen=True)
class Play:
    """One row of a question, which all its targets share.

    Parameters
    ----------
    question : Question
    row : int
    targets : sequence of Target
    baseline : Tensor, shape (C, *spatial)
    ask : callable
        See `ImageGame`.
    job : Job
    """

    question: Question
    row: int
    targets: Sequence[AnyTarget]
    baseline: Tensor
    ask: Callable[[Tensor, Job], Answer]
    job: Job

    @property
    def image(self) -> Tensor:
        """The row's image on the classifier's device, shape (C, *spatial)."""
        return self.question.inputs[self.row].to(self.question.classifier.device)

    def game(self, compose: Callable[[Tensor], Tensor], players: int, limit: int, **others: Any) -> ImageGame:
        """A game about the row; see `ImageGame`."""
        question = self.question
        shape = tuple(question.inputs.shape[1:])
        most = batch_size(question, 0, gradients=False)
        return ImageGame(
            question.classifier,
            self.ask,
            compose,
            shape,
            players,
            self.targets,
            self.job,
            limit=limit,
            most=most,
            **others,
        )


@dataclass(frozen=True)
class MaskedExplainer(WithBaseline):
    """A method that asks about the image with parts of it replaced by a baseline."""

    signed: ClassVar[bool] = True
    needs: ClassVar[frozenset[Gives]] = frozenset()
    whole: ClassVar[bool] = True

    batch_size: int = limit_option()

    @abstractmethod
    def maps(self, play: Play) -> Iterator[Callable[[], list[RawMap]]]:
        """What makes the maps of a row's targets, as far as they are known by and by; the last one makes the result.

        Each of the others is called before the next, or never.
        """

    def attribute(self, question: Question, job: Job) -> tuple[list[RawMap], Answer]:
        """Ask about each row, which all its targets share; see `Explainer`."""
        baselines = self.baselines(question)[:, 0]
        with torch.no_grad(), one_thread(), asking(question.classifier) as ask:
            answer = ask(question.inputs.to(question.classifier.device, copy=True), job.part(0.0, _FEW))
            wanted = question.resolved(answer)
            rows = list(dict.fromkeys(row for row, _ in wanted))
            found: dict[int, RawMap] = {}
            for k, row in enumerate(rows):
                places = [place for place, (other, _) in enumerate(wanted) if other == row]
                length = (1 - _FEW) / len(rows)
                part = job.part(_FEW + k * length, _FEW + (k + 1) * length)
                play = Play(question, row, [wanted[place][1] for place in places], baselines[row], ask, part)
                for make in self.maps(play):
                    if k == len(rows) - 1:
                        job.show(partial(_so_far, found, places, make, answer))
                found |= dict(zip(places, make(), strict=True))
        return [found[place] for place in range(len(found))], answer


def told_of(game: ImageGame) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Facts and notices about how a game was played."""
    facts = {"evaluations": game.evaluations, "images_at_once": game.batch_size}
    return facts, (FEWER.format("many", game.smaller),) if game.smaller else ()


def _so_far(
    found: dict[int, RawMap], places: list[int], make: Callable[[], list[RawMap]], answer: Answer
) -> tuple[list[RawMap], Answer]:
    """All rows' maps, of which those of one row are made now."""
    maps = found | dict(zip(places, make(), strict=True))
    return [maps[place] for place in range(len(maps))], answer
