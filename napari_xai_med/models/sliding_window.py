"""How a classifier of patches looks at a larger image: windows, and one answer from all of theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from math import log
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from napari_xai_med.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor


class Aggregate(StrEnum):
    """How the logits of all windows become those of the image, each logit by itself.

    With one logit z the same number serves both classes: by `MAX` the window with the largest z decides. It is
    the most suspicious place, so that class 1 is found anywhere and class 0 needs every window to be free of it.
    """

    MAX = "max"
    """The largest one: one window decides. With several logits each may come from another window."""
    MEAN = "mean"
    """The mean: all windows decide alike."""
    LOGSUMEXP = "logsumexp"
    """A smooth maximum, log(mean(exp(z))): at most the largest, at least the mean."""

    def combine(self, logits: Tensor) -> Tensor:
        """Logits of the image, shape (number of logits,), from those of n windows, (n, number of logits)."""
        if self is Aggregate.MAX:
            # Of several equal ones it is the one at one index that the gradient leads to.
            return logits.max(0).values
        if self is Aggregate.MEAN:
            return logits.mean(0)
        return logits.logsumexp(0) - log(len(logits))


@dataclass(frozen=True)
class SlidingWindow:
    """The windows through which a classifier of patches looks at an image.

    Parameters
    ----------
    roi_size : tuple of int
        Size of a window along each axis of the network's input, in voxels behind the preprocessing. A smaller
        input is padded with zeros on all sides, as MONAI does.
    aggregate : Aggregate or str
        How the windows' logits become one answer; without a default, since it decides what the answer means.
    overlap : float
        Share of a window that it has in common with the next one, from 0 to less than 1.
    batch_size : int
        How many windows are computed at once; fewer if the memory is not enough.

    Raises
    ------
    ModelError
        If one of these can't be.
    """

    roi_size: tuple[int, ...]
    aggregate: Aggregate
    overlap: float = 0.5
    batch_size: int = 4

    def __post_init__(self) -> None:
        size = self.roi_size
        if isinstance(size, str) or not isinstance(size, Sequence) or not all(_is_count(n) for n in size):
            raise ModelError(f"The roi_size of a sliding window has to be whole numbers above 0, not {size!r}.")
        if self.aggregate not in list(Aggregate):
            raise ModelError(
                f"A sliding window has no aggregate {self.aggregate!r}; choose one of {', '.join(Aggregate)}."
            )
        if isinstance(self.overlap, bool) or not isinstance(self.overlap, Real) or not 0 <= self.overlap < 1:
            raise ModelError(
                f"The overlap of a sliding window has to be from 0 to less than 1, such as 0.5, not {self.overlap!r}."
            )
        if not _is_count(self.batch_size):
            raise ModelError(
                f"The batch_size of a sliding window has to be a whole number above 0, not {self.batch_size!r}."
            )
        object.__setattr__(self, "roi_size", tuple(int(n) for n in size))
        object.__setattr__(self, "aggregate", Aggregate(self.aggregate))

    @classmethod
    def from_dict(cls, values: Any) -> SlidingWindow:
        """The sliding window that a bundle or a script describes by its fields.

        Raises
        ------
        ModelError
            If a field is missing, unknown or can't be.
        """
        known = [item.name for item in fields(cls)]
        if not isinstance(values, Mapping) or not {"roi_size", "aggregate"} <= values.keys():
            raise ModelError("A sliding_window needs at least a roi_size and an aggregate; add them.")
        if unknown := [str(key) for key in values if key not in known]:
            raise ModelError(f"A sliding_window has no {', '.join(unknown)}; it has {', '.join(known)}.")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, for a record."""
        return asdict(self) | {"roi_size": list(self.roi_size), "aggregate": str(self.aggregate)}

    def starts(self, shape: Sequence[int]) -> list[tuple[int, ...]]:
        """First voxels of the windows that cover an input, the same as those of MONAI's `sliding_window_inference`.

        Parameters
        ----------
        shape : sequence of int
            Spatial, and at least as large as a window.
        """
        from monai.data.utils import dense_patch_slices

        steps = [max(int(n * (1 - self.overlap)), 1) for n in self.roi_size]
        return [
            tuple(int(axis.start) for axis in place) for place in dense_patch_slices(tuple(shape), self.roi_size, steps)
        ]


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) > 0
