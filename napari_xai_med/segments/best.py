"""Those segments that contribute most."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_xai_med.errors import InputError
from napari_xai_med.segments.base import Labels


class Best(StrEnum):
    """What makes a segment one of the best."""

    LARGEST = "largest"
    """The absolute value of its contribution."""
    SUPPORTING = "supporting"
    """How much it speaks for the class; those that don't are none."""
    AGAINST = "against"
    """How much it speaks against the class; those that don't are none."""


def best_segments(contributions: NDArray[np.float64], count: int, which: Best = Best.LARGEST) -> NDArray[np.intp]:
    """Numbers of the segments that contribute most, the best first.

    Parameters
    ----------
    contributions : ndarray of float64, shape (n,)
        Of segments 1 to n.
    count : int
        How many; there may be fewer.
    which : Best
    """
    strength = np.abs(contributions) if which is Best.LARGEST else contributions
    strength = -strength if which is Best.AGAINST else strength
    order = np.argsort(-strength, kind="stable")
    if which is not Best.LARGEST:
        order = order[strength[order] > 0]
    return order[:count] + 1


def only(labels: Labels, chosen: NDArray[np.intp]) -> Labels:
    """A label map with 0 in place of all segments but some."""
    kept = np.zeros(1 + max(int(labels.max(initial=0)), int(chosen.max(initial=0))), np.int32)
    kept[chosen] = chosen
    return kept[labels]


def best_of(labels: Labels, table: pd.DataFrame, count: int, which: str) -> Labels:
    """A label map with 0 in place of all segments but the best.

    Parameters
    ----------
    labels : ndarray of int32
    table : DataFrame
        Of `napari_xai_med.segments.table.contributions_table`.
    count : int
        How many; there may be fewer.
    which : str
        A `Best`.

    Raises
    ------
    InputError
        If there is no such number or word.
    """
    if count < 1:
        raise InputError(f"The best {count} segments are none; give at least 1.")
    if which not in list(Best):
        raise InputError(f"No segments are the best by {which!r}; choose one of {', '.join(Best)}.")
    return only(labels, best_segments(table["contribution"].to_numpy()[1:], count, Best(which)))


def fewer_segments(table: pd.DataFrame, count: int, which: str) -> str:
    """That there are not as many best segments; empty if there are. Parameters as for `best_of`."""
    found = len(best_segments(table["contribution"].to_numpy()[1:], count, Best(which)))
    told = {Best.LARGEST: "", Best.SUPPORTING: " that speak for the class", Best.AGAINST: " that speak against it"}
    there = "is 1 segment" if found == 1 else f"are {found} segments"
    return f"There {there}{told[Best(which)]}, and not {count}." if found < count else ""


def painted(labels: Labels, table: pd.DataFrame, ranks: tuple[int, int] | None = None) -> NDArray[np.float32]:
    """Each voxel with the contribution of its segment, 0 outside of all, or of some ranks only.

    Parameters
    ----------
    labels : ndarray of int32
    table : DataFrame
        Of `napari_xai_med.segments.table.contributions_table`.
    ranks : (int, int), optional
        The first and the last rank to show, 1 for the largest absolute contribution; all by default.
    """
    values = np.nan_to_num(table["contribution"].to_numpy()).astype(np.float32)
    if ranks is not None:
        values = np.where(table["rank"].between(*ranks).to_numpy(), values, np.float32(0))
    return values[labels]
