"""What the dock widgets share that ask a classifier: inputs, progress, cancelling, notices and saving."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import napari
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog, QLabel, QProgressBar, QPushButton, QWidget

from napari_xai_med.errors import UntrustedError, XAIMedError
from napari_xai_med.job import Job
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.widgets.controls import ControlsWidget
from napari_xai_med.widgets.inputs import Inputs
from napari_xai_med.widgets.loader import Loader
from napari_xai_med.widgets.notices import Notices
from napari_xai_med.widgets.task import Show

_LAID_OUT_MS = 50
"""What Qt needs to lay out controls whose texts have changed."""


class AskingWidget(ControlsWidget):
    """A dock widget with an image, a classifier, and work that takes a while.

    A subclass lays out its parts, then calls `_connect_asking`.
    """

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__(viewer)
        self.inputs = Inputs(viewer)
        self.image, self.classifier = self.inputs.image, self.inputs.classifier
        self.loader, self.notices = Loader(self.inputs), Notices()
        self.cancel_button = QPushButton("Cancel")
        self.progress, self.progress_text = QProgressBar(), QLabel()
        self.progress_text.setWordWrap(True)
        self._starting: tuple[QWidget, ...] = ()
        self._wanted: QWidget | None = None

    def _connect_asking(self, *starting: QWidget) -> None:
        """Connect what is the same everywhere; `starting` are the controls that begin work."""
        self._starting = starting
        self.cancel_button.clicked.connect(self.task.cancel)
        self.task.progressed.connect(self._show_progress)
        self.task.running_changed.connect(self._show_running)
        self.task.failed.connect(self._show_failure)
        self.classifier.to_pack.connect(lambda: self.open_beside("Pack a classifier"))
        self.classifier.changed.connect(self._classifier_changed)
        self.inputs.preprocessing_wanted.connect(self._fill_preprocessing)
        self._show_running(False)

    def _ask(
        self,
        compute: Callable[[Classifier, Job], Any],
        show: Show,
        show_estimate: Show | None = None,
        stopped: Callable[[], str] | None = None,
    ) -> None:
        """Compute something with the chosen classifier in the background, then show it; see `Task.start`."""
        load = self.loader.chosen()

        def work(job: Job) -> tuple[Classifier, Any]:
            classifier = load(job)
            return classifier, compute(classifier, job.part(0.2, 1.0))

        def done(result: tuple[Classifier, Any]) -> None:
            self._show_loaded(result[0])
            show(result[1])

        self.task.start(work, done, show_estimate, stopped)

    def _show_loaded(self, classifier: Classifier) -> None:
        """Show what is known of the chosen classifier once it is loaded."""
        self.inputs.show_classifier(classifier)

    def _classifier_changed(self) -> None:
        """Forget what was known of another classifier."""
        self.loader.forget()
        self.inputs.forget_classifier()

    def _fill_preprocessing(self) -> None:
        """Load the classifier to see its preprocessing."""
        if self.task.running:
            self.inputs.change_box.setChecked(False)
            return
        self.task.start(self.loader.chosen(), self._show_loaded)

    def _scroll_to(self, part: QWidget) -> None:
        """Show a part of the controls whose size is known only when Qt has laid it out."""
        self._wanted = part
        # A bound method: it is forgotten when the widget goes.
        QTimer.singleShot(_LAID_OUT_MS, self._show_wanted)

    def _show_wanted(self) -> None:
        if self._wanted is not None:
            self._scroll.ensureWidgetVisible(self._wanted)

    def _show_failure(self, error: Exception) -> None:
        if isinstance(error, UntrustedError):
            self.inputs.trust.setFocus()
        if isinstance(error, XAIMedError):
            self.progress_text.setText(str(error))

    def _show_progress(self, done: float, text: str) -> None:
        self.progress.setValue(round(done * 100))
        self.progress_text.setText(text)

    def _show_running(self, running: bool) -> None:
        """Enable what can be done now; also called whenever that changes while work goes on."""
        for part in self._starting:
            part.setEnabled(not running)
        self.cancel_button.setEnabled(running)
        if running and self.progress.isHidden():
            self.progress.setValue(0)
        self.progress.setVisible(running)


class SavingWidget(AskingWidget):
    """An `AskingWidget` whose answers can be saved."""

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__(viewer)
        self.save_button = QPushButton("Save results…")
        self.save_button.clicked.connect(self._ask_and_save)

    def can_save(self) -> bool:
        """Whether there is something to save."""
        raise NotImplementedError

    def save(self, folder: str) -> None:
        """Write what is shown into a folder."""
        raise NotImplementedError

    def _ask_and_save(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder for the results")
        if folder:
            self.save(folder)

    def _show_running(self, running: bool) -> None:
        super()._show_running(running)
        self.save_button.setEnabled(self.can_save() and not running)
