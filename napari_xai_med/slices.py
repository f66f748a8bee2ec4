"""Which slices of a volume to look at: those where most of something is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.errors import InputError
from napari_xai_med.options import option, with_options
from napari_xai_med.segments.body import body_mask

Float = NDArray[np.float64]


@dataclass(frozen=True)
class _Given:
    """What a rule looks at, checked and turned so that slices lie across the first spatial axis."""

    volume: NDArray[np.float32]
    map: NDArray[Any] | None
    mask: NDArray[np.bool_] | None


class SliceRule(ABC):
    """One way of giving each slice a score. A subclass is a frozen dataclass whose fields are its options.

    Attributes
    ----------
    name : str
        How scripts and the command line call it.
    title : str
        How people call it.
    needs : "map", "mask" or None
        What it looks at besides the volume.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    needs: ClassVar[Literal["map", "mask"] | None] = None

    def scores(
        self,
        volume: NDArray[np.float32],
        map: NDArray[np.floating] | None = None,
        mask: NDArray[np.bool_] | None = None,
        axis: int = 0,
    ) -> Float:
        """How much of what the rule looks for is in each slice.

        Parameters
        ----------
        volume : ndarray of float32, shape (C, Z, Y, X)
            In display orientation; see `napari_xai_med.grid.DISPLAY_ORIENTATION`.
        map : ndarray of float, shape (Z, Y, X), optional
            A heatmap on the volume's grid.
        mask : ndarray of bool, shape (Z, Y, X), optional
            Where to look.
        axis : int
            0 for axial slices, 1 for coronal and 2 for sagittal ones.

        Returns
        -------
        ndarray of float64, shape (n_slices,)
            Not negative; 0 where there is nothing.

        Raises
        ------
        InputError
            If what the rule needs is missing, or something does not fit the volume.
        """
        if volume.ndim != 4:
            raise InputError(f"Slices are chosen of 3D images, and this one is {volume.ndim - 1}D; choose a volume.")
        if axis not in (0, 1, 2):
            raise InputError(f"There is no axis {axis} of a volume; choose 0 (axial), 1 (coronal) or 2 (sagittal).")
        for what, each in (("map", map), ("mask", mask)):
            if each is None and self.needs == what:
                raise InputError(f"{self.title} needs a {'heatmap' if what == 'map' else 'mask'}; choose one.")
            if each is not None and each.shape != volume.shape[1:]:
                raise InputError(f"A {what} of shape {each.shape} does not fit a volume of shape {volume.shape[1:]}.")
        given = _Given(np.moveaxis(volume, axis + 1, 1), _across(map, axis), _across(mask, axis))
        return np.asarray(self._scores(given), np.float64)

    @abstractmethod
    def _scores(self, given: _Given) -> NDArray[np.number]:
        """Scores of slices across the first spatial axis."""


def _across(values: NDArray[Any] | None, axis: int) -> NDArray[Any] | None:
    return None if values is None else np.moveaxis(values, axis, 0)


@dataclass(frozen=True)
class Activation(SliceRule):
    """Where a heatmap speaks for its target; inside of the mask, if there is one."""

    name: ClassVar[str] = "activation"
    title: ClassVar[str] = "Highest activation"
    needs: ClassVar[Literal["map", "mask"] | None] = "map"

    by: str = option(
        "sum",
        "Whether a slice counts by the sum of its positive values or by the largest one.",
        choices=("sum", "max"),
    )

    def _scores(self, given: _Given) -> NDArray[np.number]:
        assert given.map is not None
        positive = np.maximum(given.map if given.mask is None else np.where(given.mask, given.map, 0), 0)
        return positive.sum((1, 2), dtype=np.float64) if self.by == "sum" else positive.max((1, 2))


@dataclass(frozen=True)
class MaskArea(SliceRule):
    """Where a mask has most voxels."""

    name: ClassVar[str] = "mask"
    title: ClassVar[str] = "Largest area of a mask"
    needs: ClassVar[Literal["map", "mask"] | None] = "mask"

    def _scores(self, given: _Given) -> NDArray[np.number]:
        assert given.mask is not None
        return np.count_nonzero(given.mask, (1, 2))


@dataclass(frozen=True)
class Intensity(SliceRule):
    """Which share of a slice's voxels lies in a range of intensities; only those inside of the mask, if there is one.

    Of the first channel. A share of the slice and not of the mask, so that slices with a few voxels of it don't win.
    """

    name: ClassVar[str] = "intensity"
    title: ClassVar[str] = "Intensities in a range"

    low: float = option(-750.0, "Smallest intensity; that of ground glass in Hounsfield units by default.")
    high: float = option(-300.0, "Largest intensity.")

    def _scores(self, given: _Given) -> NDArray[np.number]:
        if self.low > self.high:
            raise InputError(f"No intensity is from {self.low:g} to {self.high:g}; exchange them.")
        first = given.volume[0]
        inside = (first >= self.low) & (first <= self.high)
        if given.mask is not None:
            inside &= given.mask.astype(bool)
        return np.count_nonzero(inside, (1, 2)) / prod(first.shape[1:])


@dataclass(frozen=True)
class BodyArea(SliceRule):
    """Where the body is largest, as `body_mask` finds it."""

    name: ClassVar[str] = "body"
    title: ClassVar[str] = "Largest area of the body"

    def _scores(self, given: _Given) -> NDArray[np.number]:
        if given.mask is not None:
            raise InputError(f"{self.title} looks at no mask; leave it out, or choose another rule.")
        return np.count_nonzero(body_mask(given.volume), (1, 2))


_RULES: dict[str, type[SliceRule]] = {rule.name: rule for rule in (Activation, MaskArea, Intensity, BodyArea)}


def slice_rules() -> Mapping[str, type[SliceRule]]:
    """All rules by name."""
    return _RULES


def make_slice_rule(name: str, options: Mapping[str, Any]) -> SliceRule:
    """A rule by name with its options.

    Raises
    ------
    InputError
        If there is no such rule or option.
    """
    if name not in _RULES:
        raise InputError(f"There is no rule {name!r} for slices; choose one of {', '.join(_RULES)}.")
    return with_options(_RULES[name], _RULES[name].title, options)


@dataclass(frozen=True)
class ChosenSlices:
    """Slices in the order of their scores.

    Parameters
    ----------
    indices : tuple of int
        The best one first.
    notices : tuple of str
        Sentences that the user should read.
    """

    indices: tuple[int, ...]
    notices: tuple[str, ...] = ()


def top_slices(scores: Float, count: int, minimum_distance: float = 0.0, spacing: float = 1.0) -> ChosenSlices:
    """The best slices that are not too near to each other.

    The best one is taken first, then the best of those that are far enough from all that were taken; of equal ones the
    one with the lower index.

    Parameters
    ----------
    scores : ndarray of float, shape (n_slices,)
        Slices whose score is not above 0 are never taken.
    count : int
        How many at most.
    minimum_distance : float
        In millimetres. Two slices exactly this far from each other can both be taken; nearer ones can't.
    spacing : float
        Millimetres from one slice to the next.

    Raises
    ------
    InputError
        If the count, the distance or the spacing is not one that can be.
    """
    if count < 1 or minimum_distance < 0 or spacing <= 0:
        raise InputError(
            f"{count} slices at least {minimum_distance:g} mm apart can't be chosen where the next is {spacing:g} mm "
            "away; give at least one slice, a distance that is not negative and a positive spacing."
        )
    # Distances in slices: 3 times 0.1 mm must not be nearer than 0.3 mm by what floats round.
    apart = minimum_distance / spacing * (1 - 1e-9)
    indices: list[int] = []
    for index in np.argsort(-np.asarray(scores, np.float64), kind="stable").tolist():
        if len(indices) == count or not scores[index] > 0:
            break
        if all(abs(index - other) >= apart for other in indices):
            indices.append(index)
    if len(indices) == count:
        return ChosenSlices(tuple(indices))
    few = f"{len(indices)} of {count} slices could be chosen: the others score 0 or are nearer to these than "
    return ChosenSlices(tuple(indices), (f"{few}{minimum_distance:g} mm.",))
