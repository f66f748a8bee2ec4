"""What a classifier's outputs mean, and which number an explanation is about."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from napari_xai_med.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor


class Head(StrEnum):
    """The kind of a classifier's last layer."""

    SOFTMAX = "softmax"
    """One logit for each of two or more classes that exclude each other."""
    ONE_LOGIT = "one_logit"
    """One logit z for two classes: class 1 has probability sigmoid(z)."""
    MULTI_LABEL = "multi_label"
    """One logit for each finding, each independent of the others."""

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities, shape (N, number of classes), of logits, shape (N, number of logits)."""
        import torch

        if self is Head.SOFTMAX:
            return logits.softmax(1)
        if self is Head.MULTI_LABEL:
            return logits.sigmoid()
        one = logits.sigmoid()
        return torch.cat([1 - one, one], 1)

    def scores(self, logits: Tensor) -> Tensor:
        """The logit that speaks for each class, shape (N, number of classes).

        One logit z speaks for class 1 with +z and for class 0 with -z. No probability is on the path:
        its gradient vanishes where the classifier is sure.
        """
        import torch

        return torch.cat([-logits, logits], 1) if self is Head.ONE_LOGIT else logits

    def check(self, logits: int, classes: int) -> None:
        """Raise a `ModelError` if the number of logits and of class names do not fit this head."""
        expected = 1 if self is Head.ONE_LOGIT else classes
        if logits != expected or (self is Head.ONE_LOGIT and classes != 2):
            raise ModelError(
                f"The network gives {logits} numbers, but its bundle names {classes} classes with a {self} head; "
                "correct the class names or the head in metadata.json."
            )
