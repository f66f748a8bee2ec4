"""What every way of cutting an image into segments is, and how they are found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.registry import Registry

Labels = NDArray[np.int32]


@dataclass(frozen=True)
class Segments:
    """A label map.

    Parameters
    ----------
    labels : ndarray of int32, shape (*spatial)
        0 outside of all segments, and 1 to the number of segments, without gaps.
    facts : mapping
        What belongs in the record, such as the number that was asked for and the number that was made.
    notices : tuple of str
        Sentences that the user should read.
    """

    labels: Labels
    facts: Mapping[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self.labels.max(initial=0))


class Segmenter(ABC):
    """One way of cutting an image into segments. A subclass is a frozen dataclass whose fields are its options.

    Attributes
    ----------
    name : str
        How scripts and the command line call it.
    title : str
        How people call it.
    paper : str
        The publication that describes it; empty where there is none.
    dims : frozenset of int
        For images of how many spatial axes.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str] = ""
    dims: ClassVar[frozenset[int]] = frozenset({2, 3})

    @abstractmethod
    def segments(
        self, data: NDArray[np.float32], spacing: Sequence[float], mask: NDArray[np.bool_] | None = None
    ) -> Segments:
        """Cut an image.

        Parameters
        ----------
        data : ndarray of float32, shape (C, *spatial)
            In any unit.
        spacing : sequence of float
            Millimetres between voxels along each spatial axis; 1 for pictures without one.
        mask : ndarray of bool, shape (*spatial), optional
            Where segments may be; everywhere by default.

        Raises
        ------
        InputError
            If it can't be done, such as with an empty mask.
        """


_registry = Registry("napari_xai_med.segments")
register = _registry.register


def segmenters() -> Mapping[str, type[Segmenter]]:
    """All registered segmenters by name."""
    return _registry.all()


def make_segmenter(name: str, options: Mapping[str, Any]) -> Segmenter:
    """A segmenter by name with its options.

    Raises
    ------
    InputError
        If there is no such segmenter or option.
    """
    made: Segmenter = _registry.make("segmenter", name, options)
    return made
