"""What explainers share that let the package shap play the game of segments."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.explainers.segmented import SegmentExplainer
from napari_xai_med.games.base import Estimate, Float
from napari_xai_med.games.engine import ImageGame

SEEDS = 1 << 32
"""How many seeds NumPy's old generator knows."""

_LOCK = Lock()
"""Held by whoever uses NumPy's global random numbers here, so that two explanations at once don't share them."""


class GlobalRandom:
    """NumPy's global random numbers, which shap draws from, with a seed of their own and left as they were.

    They are lent for as long as shap's own lines run, which take no time to speak of, and taken back while the network
    answers. Only a thread of someone else that draws from them in between would be noticed.
    """

    def __init__(self, seed: int) -> None:
        self._mine: Any = np.random.RandomState(seed % SEEDS).get_state()
        self._before: Any = None

    def _change(self) -> None:
        self._before = np.random.get_state()  # noqa: NPY002  # what shap draws from
        np.random.set_state(self._mine)  # noqa: NPY002

    def _restore(self) -> None:
        self._mine = np.random.get_state()  # noqa: NPY002
        np.random.set_state(self._before)  # noqa: NPY002

    @contextmanager
    def lent(self) -> Iterator[None]:
        """While shap runs."""
        with _LOCK:
            self._change()
            try:
                yield
            finally:
                self._restore()

    @contextmanager
    def taken_back(self) -> Iterator[None]:
        """While, inside of `lent`, something else runs."""
        self._restore()
        _LOCK.release()
        try:
            yield
        finally:
            _LOCK.acquire()
            self._change()


@dataclass
class Model:
    """A game as shap's model: rows of features that are 0 for a hidden segment and 1 for one that is shown."""

    game: ImageGame
    random: GlobalRandom

    def __call__(self, rows: NDArray[Any]) -> Float:
        """Scores of coalitions, (K, players) of numbers: shape (K, T)."""
        with self.random.taken_back():
            return self.game(np.asarray(rows) > 0.5)

    @property
    def nothing(self) -> Float:
        """Shap's background."""
        return np.zeros((1, self.game.players))

    @property
    def everything(self) -> Float:
        """The instance that shap explains."""
        return np.ones((1, self.game.players))


@dataclass(frozen=True)
class LibraryShap(SegmentExplainer):
    """A method of the package shap, whose features are the segments."""

    additive: ClassVar[bool] = True

    def estimates(self, game: ImageGame) -> Iterator[Estimate]:
        """What shap says; see `SegmentExplainer`."""
        if game.players == 1:
            empty, full = game(np.array([[False], [True]]))
            yield Estimate((full - empty)[:, None], np.zeros((len(full), 1)), 2, exact=True)
        else:
            yield from self.played(Model(game, GlobalRandom(self.seed)))

    @abstractmethod
    def played(self, model: Model) -> Iterator[Estimate]:
        """Estimates for a game of at least two players; see `SegmentExplainer.estimates`."""
