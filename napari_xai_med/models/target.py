"""The number that an explanation is about: what a classifier says of a class, as a logit or in another form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from napari_xai_med.errors import InputError
from napari_xai_med.models.head import Head

if TYPE_CHECKING:
    from torch import Tensor

    from napari_xai_med.models.head import Answer


class Quantity(StrEnum):
    """In which form an answer counts."""

    LOGIT = "logit"
    """What the network gives before sigmoid or softmax; of one logit z class 1 has +z and class 0 has -z."""
    LOG_ODDS = "log_odds"
    """log(p / (1 - p)): of a softmax the logit against all other classes together; else the same as the logit."""
    PROBABILITY = "probability"
    """Behind sigmoid or softmax, where the gradient of a sure classifier vanishes."""


class AnyTarget(Protocol):
    """What an explanation can be about: a `Target`, or a `Direction` for one window of many."""

    def of(self, answer: Answer) -> Tensor:
        """The number for each row of an answer, shape (N,), with its gradient."""


# Regions can't be compared; each target is itself.
@dataclass(frozen=True, eq=False)
class Target:
    """What an explanation is about.

    Parameters
    ----------
    index : int, optional
        The class; the most probable one of each row if None, or that of the rank.
    against : int, optional
        Another class: what counts is by how much the first class's logit is larger.
    quantity : Quantity
    opposite : bool
        Whether to explain what speaks against it: the number times -1.
    rank : int, optional
        Where no class is named: 0 for the most probable one of those that it may stand against, 1 for the next.
    regions : mapping of int to Tensor, shape (voxels,)
        Of a segmentation where it predicts each of the classes in the image itself. The same voxels count in what a
        method makes of the image, as M does in Seg-Grad-CAM (Vinogradova et al. 2020): a covered lesion is lost.
    """

    index: int | None = None
    against: int | None = None
    quantity: Quantity = Quantity.LOGIT
    opposite: bool = False
    rank: int | None = None
    regions: Mapping[int, Tensor] = field(default_factory=dict, repr=False)

    def resolved(self, answer: Answer, row: int) -> Target:
        """The same with the most probable class of a row where none is named, or that of its rank.

        Raises
        ------
        InputError
            If that is the class it should stand against.
        """
        index = self._ranked(answer, row) if self.index is None else self.index
        if index == self.against:
            raise InputError("A class can't be explained against itself; choose two different classes.")
        regions = {k: answer.region(row, k) for k in (index, self.against) if k is not None}
        return replace(self, index=index, regions={k: each for k, each in regions.items() if each is not None})

    def _ranked(self, answer: Answer, row: int) -> int:
        top = int(answer.top[row])
        if self.rank is None:
            return top
        likely, scores = answer.probabilities[row].tolist(), answer.scores[row].tolist()
        # By scores where probabilities of a very sure classifier are all 0 in floating point.
        order = sorted(range(len(scores)), key=lambda k: (k != top, -likely[k], -scores[k]))
        return [k for k in order if k != self.against][self.rank]

    def check(self, head: Head) -> None:
        """Raise an `InputError` if a classifier with this head has no such number."""
        if self.quantity is not Quantity.LOGIT and head in (Head.REGRESSION, Head.SEGMENTATION):
            raise InputError(f"A {head} has no {self.quantity.replace('_', '-')} of a class; explain its logit.")
        if self.quantity is not Quantity.LOGIT and self.against is not None:
            raise InputError(f"A class against another is a difference of logits; leave out {self.quantity}.")

    def of(self, answer: Answer) -> Tensor:
        """The number for each row of an answer, shape (N,), with its gradient; the class has to be named."""
        scores = answer.scores
        assert self.index is not None
        score = self._score(answer, self.index)
        # A single logit is the difference of its two classes already.
        if self.against is not None and answer.head is not Head.ONE_LOGIT:
            score = score - self._score(answer, self.against)
        alone = answer.head is not Head.SOFTMAX
        if self.quantity is Quantity.PROBABILITY:
            score = score.sigmoid() if alone else scores.softmax(1)[:, self.index]
        elif self.quantity is Quantity.LOG_ODDS and not alone:
            others = [k for k in range(scores.shape[1]) if k != self.index]
            score = score - scores[:, others].logsumexp(1)
        return -score if self.opposite else score

    def _score(self, answer: Answer, index: int) -> Tensor:
        return answer.mean_over(self.regions[index], index) if index in self.regions else answer.scores[:, index]

    def words(self, names: Sequence[str]) -> str:
        """What it is, in words with the classes' names."""
        assert self.index is not None
        told = names[self.index]
        if self.against is not None:
            told = f"{told} rather than {names[self.against]}"
        if self.quantity is not Quantity.LOGIT:
            told = f"{self.quantity.replace('_', '-')} of {told}"
        return f"what speaks against {told}" if self.opposite else told


@dataclass(frozen=True)
class Direction:
    """A weighted sum of logits: what the answer about an image changes by with those of one of its windows.

    Parameters
    ----------
    weights : Tensor, shape (number of logits,)
    whole : float
        What is explained of the whole image, for methods that tell shares of it.
    """

    weights: Tensor
    whole: float = 1.0

    def of(self, answer: Answer) -> Tensor:
        """The sum for each row of an answer, shape (N,), with its gradient."""
        return answer.logits @ self.weights.to(answer.logits)
