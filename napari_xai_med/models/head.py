"""What a network's outputs mean, and which number an explanation is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from napari_xai_med.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Answer:
    """What a network says about a batch of images.

    Parameters
    ----------
    logits : Tensor, shape (N, number of logits)
        The output before sigmoid or softmax; of a segmentation its mean over each class's region.
    scores : Tensor, shape (N, number of classes)
        The number that speaks for each class, with its gradient: what an explanation is about.
    probabilities : Tensor, shape (N, number of classes)
        See `Head.quantity` for what these are without a classification.
    top : Tensor of int, shape (N,)
        The class that is explained if none is asked for.
    head : Head
        The kind of the network's last layer, by which this was read.
    ending : str
        The function that the network itself ends in and that was taken off, such as "softmax", or nothing.
    notices : tuple of str
        Sentences that the user should read.
    voxels : Tensor, shape (N, number of logits, voxels), optional
        Of a segmentation the logits of each voxel.
    """

    logits: Tensor
    scores: Tensor
    probabilities: Tensor
    top: Tensor
    head: Head
    ending: str = ""
    notices: tuple[str, ...] = ()
    voxels: Tensor | None = None

    def region(self, row: int, index: int) -> Tensor | None:
        """Where a segmentation predicts a class in one row, of voxels; everywhere if nowhere, None if it is none."""
        if self.voxels is None:
            return None
        found: Tensor = _regions(self.voxels[row : row + 1].detach(), self.ending, index)[0]
        return found if bool(found.any()) else found.logical_not()

    def mean_over(self, region: Tensor, index: int) -> Tensor:
        """Mean of a class's logit over a region of a segmentation, shape (N,), with its gradient."""
        assert self.voxels is not None
        return _logits_of(self.voxels, index)[:, region].mean(1)


class Head(StrEnum):
    """The kind of a network's last layer."""

    SOFTMAX = "softmax"
    """One logit for each of two or more classes that exclude each other."""
    ONE_LOGIT = "one_logit"
    """One logit z for two classes: class 1 has probability sigmoid(z)."""
    MULTI_LABEL = "multi_label"
    """One logit for each finding, each independent of the others."""
    REGRESSION = "regression"
    """Numbers that mean something by themselves, such as a diameter; each name is that of a number."""
    SEGMENTATION = "segmentation"
    """Logits for each voxel: one for each class, the background first, or a single one for the foreground.

    If the network ends in a sigmoid for each of several classes there is no background: each class is predicted
    where its own probability is above 0.5. The score of a class is its logit's mean over the region where it is
    predicted (Seg-Grad-CAM, Vinogradova et al. 2020, doi:10.1609/aaai.v34i10.7244), or over the whole image where
    it is predicted nowhere.
    """

    @classmethod
    def of(cls, outputs: int, ending: str = "") -> Head:
        """The head that most networks with so many outputs have, and with this ending."""
        if outputs == 1:
            return cls.ONE_LOGIT
        return cls.MULTI_LABEL if ending == "sigmoid" else cls.SOFTMAX

    @property
    def quantity(self) -> str:
        """What the numbers in `Answer.probabilities` are."""
        others = {Head.REGRESSION: "value", Head.SEGMENTATION: "share of the image"}
        return others.get(self, "probability")

    def answer(self, output: Tensor, classes: int, ending: str = "") -> Answer:
        """Read a network's output.

        Parameters
        ----------
        output : Tensor, shape (N, number of logits), for a segmentation (N, number of logits, *spatial)
            Further axes of length 1 are allowed.
        classes : int
            How many class names there are.
        ending : str
            See `Answer`.

        Raises
        ------
        ModelError
            If the numbers of logits and classes, or the ending, do not fit this head.
        """
        self._check_ending(ending)
        if self is Head.SEGMENTATION:
            return _of_regions(self._checked(output, classes), ending)
        # One row of single numbers may have lost its axis of logits.
        logits = self._checked(output.flatten(1) if output.ndim > 1 else output[:, None], classes)
        scores = self.scores(logits)
        # The top by scores: probabilities of a very sure classifier are all 1 or 0 in floating point.
        probabilities = self.probabilities(logits.detach().cpu().double())
        return Answer(logits, scores, probabilities, scores.argmax(1), self, ending)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities, shape (N, number of classes), of logits, shape (N, number of logits)."""
        import torch

        if self is Head.SOFTMAX:
            return logits.softmax(1)
        if self is Head.MULTI_LABEL:
            return logits.sigmoid()
        if self is Head.REGRESSION:
            return logits
        one = logits.sigmoid()
        return torch.cat([1 - one, one], 1)

    def scores(self, logits: Tensor) -> Tensor:
        """The logit that speaks for each class, shape (N, number of classes).

        One logit z speaks for class 1 with +z and for class 0 with -z. No probability is on the path:
        its gradient vanishes where the classifier is sure.
        """
        import torch

        return torch.cat([-logits, logits], 1) if self is Head.ONE_LOGIT else logits

    def _check_ending(self, ending: str) -> None:
        fitting = _FITTING.get(ending)
        if fitting is not None and self not in fitting:
            raise ModelError(
                f"The network ends in {ending}, which the head {self} does not fit; use {' or '.join(fitting)}."
            )

    def _checked(self, output: Tensor, classes: int) -> Tensor:
        logits = output.shape[1] if output.ndim > 1 else 0
        one_is_two = self is Head.ONE_LOGIT or (self is Head.SEGMENTATION and logits == 1)
        if logits != (1 if one_is_two else classes) or (one_is_two and classes != 2):
            raise ModelError(
                f"The network gives {logits} numbers, but its bundle names {classes} classes with a {self} head; "
                "correct the class names or the head in metadata.json."
            )
        if self is Head.SEGMENTATION and output.ndim < 4:
            raise ModelError("The network gives no number for each voxel; its head can't be segmentation.")
        return output


_FITTING: Mapping[str, tuple[Head, ...]] = {
    "sigmoid": (Head.ONE_LOGIT, Head.MULTI_LABEL, Head.SEGMENTATION),
    "softmax": (Head.SOFTMAX, Head.SEGMENTATION),
}
"""Heads that the function at the end of a network goes with."""


def _of_regions(output: Tensor, ending: str) -> Answer:
    """The answer of a segmentation, from voxels' logits, shape (N, number of logits, *spatial)."""
    import torch

    flat = output.flatten(2)
    each_alone = flat.shape[1] > 1 and ending == "sigmoid"
    scores, shares = [], []
    # Class by class: flags of all classes at once would need more memory than the logits.
    for index in range(max(flat.shape[1], 2)):
        region = _regions(flat.detach(), ending, index)
        size = region.sum(1)
        inside = torch.where(region | (size == 0)[:, None], _logits_of(flat, index), 0).sum(1)
        scores.append(inside / torch.where(size > 0, size, flat.shape[2]))
        shares.append(size.double() / flat.shape[2])
    score, share = torch.stack(scores, 1), torch.stack(shares, 1).cpu()
    if each_alone:
        # Where no class is predicted, the one that comes closest.
        top = torch.where(share.sum(1) > 0, share.argmax(1), score.detach().cpu().argmax(1))
    else:
        # The background is asked about only where there is nothing else.
        foreground = share[:, 1:]
        top = torch.where(foreground.sum(1) > 0, foreground.argmax(1) + 1, 0)
    return Answer(score, score, share, top, Head.SEGMENTATION, ending, voxels=flat)


def _logits_of(flat: Tensor, index: int) -> Tensor:
    """The logit that speaks for a class at each voxel, shape (N, voxels), of (N, number of logits, voxels)."""
    return flat[:, 0] * (2 * index - 1) if flat.shape[1] == 1 else flat[:, index]


def _regions(flat: Tensor, ending: str, index: int) -> Tensor:
    """Where a segmentation predicts a class, shape (N, voxels)."""
    if flat.shape[1] == 1:
        return (flat[:, 0] > 0) == bool(index)
    return flat[:, index] > 0 if ending == "sigmoid" else flat.argmax(1) == index
