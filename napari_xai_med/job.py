"""Progress and cancelling of long work, without threads: whoever calls decides what runs where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from napari_xai_med.errors import Cancelled

Progress = Callable[[float, str], None]
"""Called with the share of work done, 0 to 1, and what is going on."""


class CancelToken(Protocol):
    """Anything with `is_set`, such as a `threading.Event`."""

    def is_set(self) -> bool:
        """Whether the work has to stop."""


@dataclass(frozen=True)
class Job:
    """What long work reports to.

    Parameters
    ----------
    progress : callable, optional
    cancel : CancelToken, optional
    start, stop : float
        The part of the whole that this work is.
    partial : callable, optional
        Called with the result so far, of work that comes to its result by and by.
    due : callable, optional
        Whether a result so far is wanted now; always by default.
    """

    progress: Progress | None = None
    cancel: CancelToken | None = None
    start: float = 0.0
    stop: float = 1.0
    partial: Callable[[Any], None] | None = None
    due: Callable[[], bool] | None = None

    def step(self, done: float, text: str) -> None:
        """Report that the share `done` of this part is finished; raise `Cancelled` if the user stopped it."""
        if self.cancel is not None and self.cancel.is_set():
            raise Cancelled("Stopped; nothing was changed.")
        if self.progress is not None:
            self.progress(self.start + min(done, 1.0) * (self.stop - self.start), text)

    def part(self, start: float, stop: float) -> Job:
        """The job of one part of this work, from share `start` to share `stop`."""
        length = self.stop - self.start
        return replace(self, start=self.start + start * length, stop=self.start + stop * length)

    def show(self, make: Callable[[], Any]) -> None:
        """Report the result so far, which is made only if somebody wants it."""
        if self.partial is not None and (self.due is None or self.due()):
            self.partial(make())
