"""Work in the background, with progress and cancelling, one piece at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from threading import Event, Lock
from typing import Any

from napari.qt.threading import create_worker
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QObject, QTimer, Signal

from napari_xai_med.errors import Cancelled, XAIMedError
from napari_xai_med.job import Job

Work = Callable[[Job], Any]
Show = Callable[[Any], None]

_SHOW_EVERY_MS = 25


class _News:
    """Where the worker leaves its progress and its results so far.

    It must not touch a Qt object, which may be gone any moment.
    """

    def __init__(self) -> None:
        self.progress: tuple[float, str] = (0.0, "")
        # Only the newest counts, and a deque is safe between threads.
        self.found: deque[Any] = deque(maxlen=1)

    def tell(self, done: float, text: str) -> None:
        self.progress = (done, text)


class Task(QObject):
    """Runs one piece of work at a time in a thread of napari's.

    Parameters
    ----------
    parent : QObject, optional
    turn : Lock, optional
        Shared by tasks that must not work at the same time, such as with the same network.
    quiet : bool
        Whether `failed` alone tells of errors, and no notification.

    Attributes
    ----------
    progressed : Signal(float, str)
        Share done, 0 to 1, and what is going on.
    running_changed : Signal(bool)
        Whether work is going on.
    failed : Signal(object)
        The exception, after the user was told.
    """

    progressed = Signal(float, str)
    running_changed = Signal(bool)
    failed = Signal(object)

    def __init__(self, parent: QObject | None = None, turn: Lock | None = None, *, quiet: bool = False) -> None:
        super().__init__(parent)
        self.turn, self._quiet = turn or Lock(), quiet
        self._cancel, self._news = Event(), _News()
        self._done: Show = lambda _: None
        self._partial: Show = lambda _: None
        self._stopped: Callable[[], str] | None = None
        self._worker: Any = None
        self._timer = QTimer(self)
        self._timer.setInterval(_SHOW_EVERY_MS)
        self._timer.timeout.connect(self._show_news)

    @property
    def running(self) -> bool:
        """Whether work is going on."""
        return self._worker is not None

    def start(
        self, work: Work, done: Show, partial: Show | None = None, stopped: Callable[[], str] | None = None
    ) -> None:
        """Start work, unless some is going on.

        Parameters
        ----------
        work : callable
            Of a job; runs in another thread.
        done : callable
            Gets its result in the viewer's own thread, if the viewer is still there.
        partial : callable, optional
            Gets the newest of its results so far, likewise.
        stopped : callable, optional
            Called where it ends without a result; gives the sentence for a user who cancelled the work.
        """
        if self.running:
            return
        self._cancel, self._news, self._done = Event(), _News(), done
        self._partial, self._stopped = partial or (lambda _: None), stopped
        self.destroyed.connect(self._cancel.set)
        job = Job(self._news.tell, self._cancel, partial=None if partial is None else self._news.found.append)
        self._worker = create_worker(_keep_a_core, work, job, self.turn, _start_thread=False, _ignore_errors=True)
        self._worker.returned.connect(self._succeed)
        self._worker.errored.connect(self._fail)
        self._worker.finished.connect(self._finish)
        self._timer.start()
        self.running_changed.emit(True)
        self._worker.start()

    def cancel(self) -> None:
        """Ask the running work to stop at its next step."""
        self._cancel.set()

    def _show_news(self) -> None:
        if self._news.found:
            self._partial(self._news.found.pop())
        self.progressed.emit(*self._news.progress)

    def _succeed(self, result: Any) -> None:
        # Not all work tells its end.
        self._news.found.clear()
        self._news.tell(1.0, "Done")
        self._done(result)
        # Behind it, since what is told of the end can depend on the result.
        self._show_news()

    def _finish(self) -> None:
        self._timer.stop()
        self._worker = None
        self.running_changed.emit(False)

    def _fail(self, error: Exception) -> None:
        self._show_news()
        told = "" if self._stopped is None else self._stopped()
        if told and isinstance(error, Cancelled):
            # So that all who tell of it say the same.
            error = Cancelled(told)
        if isinstance(error, XAIMedError) and not self._quiet:
            show_info(str(error)) if isinstance(error, Cancelled) else show_error(str(error))
        self.failed.emit(error)
        if not isinstance(error, XAIMedError):
            # A defect of ours: napari shows it with its traceback.
            raise error


class _Core:
    """One core that is left to the viewer, until the last of several widgets' work ends."""

    def __init__(self) -> None:
        self._lock, self._users, self._before = Lock(), 0, 1

    def keep(self) -> None:
        """Let torch compute in one thread less than there are cores."""
        import torch

        with self._lock:
            if not self._users:
                self._before = torch.get_num_threads()
            # Each thread keeps the number by itself.
            torch.set_num_threads(max(1, min(self._before, (os.cpu_count() or 2) - 1)))
            self._users += 1

    def give(self) -> None:
        """Let it have all of them again, if nobody else keeps one."""
        import torch

        with self._lock:
            self._users -= 1
            if not self._users:
                torch.set_num_threads(self._before)


_core = _Core()


def _keep_a_core(work: Work, job: Job, turn: Lock) -> Any:
    """Leave one core to the viewer while torch computes."""
    with turn:
        _core.keep()
        try:
            return work(job)
        finally:
            _core.give()
