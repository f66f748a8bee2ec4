"""A map that says where a classifier's answer comes from, on the grid of its image."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.errors import InputError
from napari_xai_med.grid import Float, Grid, Reorientation

if TYPE_CHECKING:
    import pandas as pd

    from napari_xai_med.models.classifier import Prediction
    from napari_xai_med.record import Record
    from napari_xai_med.segmenting import Regions

DISCLAIMER = "Research use only. Not for diagnosis."


@dataclass(frozen=True, eq=False)
class SegmentMap:
    """The segments that an explanation is made of.

    Parameters
    ----------
    labels : ndarray of int32, shape `Attribution.grid.shape`
        0 outside of all segments, then 1 to their number.
    table : DataFrame
        Row k is about label k: its size, its mean intensity, its contribution with the standard error, and its rank
        by the contribution's absolute value, 1 for the largest; see `napari_xai_med.segments.table`.
    """

    labels: NDArray[np.int32]
    table: pd.DataFrame


@dataclass(frozen=True)
class Attribution:
    """An explanation of one answer. Research use only. Not for diagnosis.

    Parameters
    ----------
    values : ndarray of float32, shape `grid.shape`
        The method's own values, linearly resampled to the image; neither clipped nor normalised. An
        explanation of one slice keeps the axis across it with length 1.
    grid : Grid
        The image's grid, or the slab of it that holds the explained slice.
    raw : ndarray of float32
        The map on the grid where the method made it.
    raw_to_image : ndarray, shape (raw.ndim + 1, raw.ndim + 1)
        Index of `raw` to index of the image, or of the slice that was explained.
    class_name : str
        The class that the map speaks for.
    about : str
        What the map explains, in words: the class, or its probability, or the class rather than another.
    title : str
        The method, as people call it.
    signed : bool
        Whether values below zero speak against the class.
    prediction : Prediction
    record : Record
    notices : tuple of str
        Sentences that the user should read.
    segments : SegmentMap, optional
        For methods that explain by segments.
    regions : Regions, optional
        Label maps in memory that the record's request means, so that others can be explained the same way.
    """

    values: NDArray[np.float32]
    grid: Grid
    raw: NDArray[np.float32] = field(repr=False)
    raw_to_image: Float = field(repr=False)
    class_name: str
    about: str
    title: str
    signed: bool
    prediction: Prediction
    record: Record = field(repr=False)
    notices: tuple[str, ...] = ()
    segments: SegmentMap | None = field(default=None, repr=False)
    regions: Regions | None = field(default=None, repr=False)

    @property
    def is_zero(self) -> bool:
        """Whether the map is zero everywhere: the method found nothing that speaks for the class."""
        return not self.raw.any()

    @property
    def display_limits(self) -> tuple[float, float]:
        """Contrast limits: zero to the maximum, or both sides of zero for a signed map."""
        top = float(np.abs(self.values).max()) or 1.0
        return (-top if self.signed else 0.0, top)

    @staticmethod
    def peak_of(values: NDArray[np.float32]) -> tuple[int, ...]:
        """Index of what speaks most for the class; of what speaks most against it where nothing does."""
        where = values.argmax() if values.max() > 0 else np.abs(values).argmax()
        return tuple(int(n) for n in np.unravel_index(int(where), values.shape))

    def offset_in(self, grid: Grid) -> tuple[int, ...]:
        """Index of this map's first voxel on the grid of the whole image: zeros, but for a slice."""
        return tuple(int(n) for n in np.rint(grid.to_index(self.grid.affine[:-1, -1])))

    @property
    def full_title(self) -> str:
        """The method, with the layer that was chosen if one was."""
        return f"{self.title} at {self.layers}" if self.layers else self.title

    @property
    def layers(self) -> str:
        """The network's layer that was chosen, or how many of them were; empty if it was left to the method."""
        chosen = self.record.request["options"].get("layers", ())
        return chosen[0] if len(chosen) == 1 else f"{len(chosen)} layers" if chosen else ""

    def best_segments(self, count: int, which: str = "largest") -> NDArray[np.int32]:
        """A mask of the segments that contribute most, each with its number, 0 elsewhere.

        Parameters
        ----------
        count : int
            How many; there may be fewer.
        which : {"largest", "supporting", "against"}
            By the absolute value of their contributions, or only those that speak for the class, or against it.

        Returns
        -------
        ndarray of int32, shape `grid.shape`

        Raises
        ------
        InputError
            If the method does not explain by segments, or the count or the word is not one that can be.
        """
        from napari_xai_med.segments.best import best_of

        if self.segments is None:
            raise InputError(f"{self.title} does not explain by segments, so that there are no best ones.")
        return best_of(self.segments.labels, self.segments.table, count, which)

    def stopped(self) -> Attribution:
        """The same as an estimate that was not finished, which its record tells."""
        return replace(self, record=replace(self.record, method={**self.record.method, "stopped": True}))

    def reoriented(self, turn: Reorientation) -> Attribution:
        """The same map with axes in another order or direction, such as that of its file."""
        values = cast("NDArray[np.float32]", turn.array(self.values))
        segments = self.segments
        if segments is not None:
            segments = replace(segments, labels=cast("NDArray[np.int32]", turn.array(segments.labels)))
        return replace(self, values=values, grid=turn.grid(self.grid), segments=segments)


def zero_sentence(title: str, about: str) -> str:
    """What to tell the user of a map that is zero everywhere."""
    return (
        f"{title} is zero everywhere: as this method sees it, nothing speaks for {about}; try another layer, class or "
        "method."
    )


def values_sha256(values: NDArray[np.floating]) -> str:
    """Hash of a map's values and shape."""
    digest = hashlib.sha256(np.ascontiguousarray(values).tobytes())
    digest.update(repr(values.shape).encode())
    return digest.hexdigest()
