"""What a metric says: scores, what can be drawn of them, and a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import isnan, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

EXPLANATION = "explanation"
"""The subject of scores that are about the explanation itself, and not about a control."""


class Better(StrEnum):
    """Which way a score is better."""

    HIGHER = "higher"
    LOWER = "lower"
    NEITHER = ""


@dataclass(frozen=True)
class Score:
    """One number about an explanation, or about a control that was computed the same way.

    Parameters
    ----------
    name : str
        The quantity, such as ``"dice"``.
    value : float
        NaN where it is not defined; never 0 or 1 in place of that.
    reason : str
        Why the value is NaN, in one sentence; empty if it is not.
    unit : str
        Such as ``"mm"`` or ``"mL"``; empty for pure numbers.
    subject : str
        What it is about: ``"explanation"``, or the control's name.
    of : str
        What else it belongs to: the name of a mask, a region, a layer, or another method.
    at : str
        At which setting: a threshold, a share of the voxels, a level of noise.
    better : Better
    low, high : float
        Confidence interval of 95 %, NaN if there is none.

    Raises
    ------
    ValueError
        If a value that is NaN has no reason.
    """

    name: str
    value: float
    reason: str = ""
    unit: str = ""
    subject: str = EXPLANATION
    of: str = ""
    at: str = ""
    better: Better = Better.NEITHER
    low: float = nan
    high: float = nan

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", float(self.value))
        if isnan(self.value) and not self.reason:
            raise ValueError(f"{self.name} is NaN without a reason")


@dataclass(frozen=True, eq=False)
class Line:
    """One line of a plot.

    Parameters
    ----------
    name : str
    x, y : ndarray of float64, shape (points,)
    subject : str
        As of `Score`; controls are drawn paler.
    panel : str
        Title of the panel that it belongs to; all lines have one without titles.
    """

    name: str
    x: Float
    y: Float
    subject: str = EXPLANATION
    panel: str = ""


@dataclass(frozen=True, eq=False)
class Curves:
    """Lines over one axis, in one panel or, by the lines' panels, in several of one scale.

    Parameters
    ----------
    title, x_label, y_label : str
    lines : tuple of Line
    best : float, optional
        A place on the x axis to be marked.
    ticks : tuple of str
        What the places 0, 1, ... on the x axis are called, where it has names in place of numbers.
    """

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    best: float | None = None
    ticks: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Violins:
    """How values are distributed in groups.

    Parameters
    ----------
    title, y_label : str
    groups : mapping of str to ndarray, shape (values,)
    """

    title: str
    y_label: str
    groups: Mapping[str, Float]


@dataclass(frozen=True, eq=False)
class Matrix:
    """A value for each pair of named things.

    Parameters
    ----------
    title, value_label : str
    rows, columns : sequence of str
    values : ndarray of float64, shape (len(rows), len(columns))
    """

    title: str
    value_label: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Float


Plot = Curves | Violins | Matrix


@dataclass(frozen=True)
class Verdict:
    """What a metric's numbers mean, in words.

    Parameters
    ----------
    sentence : str
        With the number and that of its control.
    good : bool or None
        None where it can't be said.
    """

    sentence: str
    good: bool | None = None

    @classmethod
    def undefined(cls, title: str, reason: str) -> Verdict:
        """That a metric of that title has no numbers, and why in one sentence."""
        return cls(f"{title} is not defined: {reason}")


@dataclass(frozen=True, eq=False)
class Outcome:
    """All that a metric found.

    Parameters
    ----------
    scores : tuple of Score
    verdicts : tuple of Verdict
        One line each; none where nobody could agree on what is good.
    plots : tuple of Curves, Violins or Matrix
    notices : tuple of str
        Sentences that the user should read.
    facts : mapping
        What belongs in the record, such as the number of passes through the network.
    """

    scores: tuple[Score, ...]
    verdicts: tuple[Verdict, ...] = ()
    plots: tuple[Plot, ...] = ()
    notices: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
