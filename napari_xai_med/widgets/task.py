"""Work in the background, with progress and cancelling, one piece at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Event
from typing import Any

from napari.qt.threading import create_worker
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QObject, QTimer, Signal

from napari_xai_med.errors import Cancelled, XAIMedError
from napari_xai_med.job import Job

Work = Callable[[Job], Any]


_SHOW_EVERY_MS = 50


class _Progress:
    """Where the worker leaves its progress; it must not touch a Qt object, which may be gone any moment."""

    def __init__(self) -> None:
        self.last: tuple[float, str] = (0.0, "")

    def __call__(self, done: float, text: str) -> None:
        self.last = (done, text)


class Task(QObject):
    """Runs one piece of work at a time in a thread of napari's.

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

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._cancel, self._progress = Event(), _Progress()
        self._done: Callable[[Any], None] = lambda _: None
        self._worker: Any = None
        self._timer = QTimer(self)
        self._timer.setInterval(_SHOW_EVERY_MS)
        self._timer.timeout.connect(self._show_progress)

    @property
    def running(self) -> bool:
        """Whether work is going on."""
        return self._worker is not None

    def start(self, work: Work, done: Callable[[Any], None]) -> None:
        """Start work; `done` gets its result in the viewer's own thread, if the viewer is still there."""
        if self.running:
            return
        self._cancel, self._progress, self._done = Event(), _Progress(), done
        self.destroyed.connect(self._cancel.set)
        job = Job(self._progress, self._cancel)
        self._worker = create_worker(_keep_a_core, work, job, _start_thread=False, _ignore_errors=True)
        self._worker.returned.connect(self._succeed)
        self._worker.errored.connect(self._fail)
        self._worker.finished.connect(self._finish)
        self._timer.start()
        self.running_changed.emit(True)
        self._worker.start()

    def cancel(self) -> None:
        """Ask the running work to stop at its next step."""
        self._cancel.set()

    def _show_progress(self) -> None:
        self.progressed.emit(*self._progress.last)

    def _succeed(self, result: Any) -> None:
        # Not all work tells its end.
        self._progress(1.0, "Done")
        self._show_progress()
        self._done(result)

    def _finish(self) -> None:
        self._timer.stop()
        self._worker = None
        self.running_changed.emit(False)

    def _fail(self, error: Exception) -> None:
        if isinstance(error, Cancelled):
            show_info(str(error))
        elif isinstance(error, XAIMedError):
            show_error(str(error))
        self.failed.emit(error)
        if not isinstance(error, XAIMedError):
            # A defect of ours: napari shows it with its traceback.
            raise error


def _keep_a_core(work: Work, job: Job) -> Any:
    """Leave one core to the viewer while torch computes."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, (os.cpu_count() or 2) - 1)))
    try:
        return work(job)
    finally:
        torch.set_num_threads(before)
