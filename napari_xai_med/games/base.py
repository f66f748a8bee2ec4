"""What a game is, and what an estimate of its players' contributions says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Coalitions = NDArray[np.bool_]


class Game(Protocol):
    """Players, such as the segments of an image, and what each coalition of them is worth."""

    @property
    def players(self) -> int:
        """How many there are."""

    def __call__(self, coalitions: Coalitions) -> Float:
        """What coalitions are worth.

        Parameters
        ----------
        coalitions : ndarray of bool, shape (K, players)
            Who takes part. A coalition that was asked before costs nothing.

        Returns
        -------
        ndarray of float64, shape (K, T)
            For each of T targets, such as classes.
        """


@dataclass(frozen=True)
class Estimate:
    """What each player contributes, as far as it is known.

    Parameters
    ----------
    values : ndarray of float64, shape (T, players)
        For each target.
    errors : ndarray of float64, shape (T, players)
        Standard errors; 0 where the values are exact, NaN where nothing is known of them.
    evaluations : int
        Distinct coalitions that it rests on.
    exact : bool
        Whether all coalitions were asked.
    settled : bool
        Whether what the stop rule asks for is reached.
    facts : mapping
        What belongs in the record.
    notices : tuple of str
        Sentences that the user should read.
    target_facts, target_notices : tuple of mapping, tuple of tuple of str
        The same about one target each, if there are such.
    """

    values: Float
    errors: Float
    evaluations: int
    exact: bool = False
    settled: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    target_facts: tuple[Mapping[str, Any], ...] = ()
    target_notices: tuple[tuple[str, ...], ...] = ()
