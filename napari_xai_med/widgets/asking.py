"""What the dock widgets share that ask one classifier about an image: inputs, progress, cancelling and notices."""

from __future__ import annotations

from collections.abc import Sequence

import napari
from napari.utils.notifications import show_warning
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QFileDialog, QLabel, QProgressBar, QPushButton, QWidget

from napari_xai_med.errors import UntrustedError, XAIMedError
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.widgets.controls import ControlsWidget
from napari_xai_med.widgets.inputs import Inputs
from napari_xai_med.widgets.loader import Loader


class AskingWidget(ControlsWidget):
    """A dock widget with an image, a classifier, and work that takes a while.

    A subclass lays out its parts, then calls `_connect_asking`.
    """

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__(viewer)
        self.inputs = Inputs(viewer)
        self.image, self.classifier = self.inputs.image, self.inputs.classifier
        self.loader = Loader(self.inputs)
        self.notices = QLabel()
        self.notices.setWordWrap(True)
        self.notices.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.cancel_button, self.save_button = QPushButton("Cancel"), QPushButton("Save results…")
        self.progress, self.progress_text = QProgressBar(), QLabel()
        self.progress_text.setWordWrap(True)
        self._starting: tuple[QPushButton, ...] = ()
        self._wanted: QWidget | None = None

    def _connect_asking(self, *starting: QPushButton) -> None:
        """Connect what is the same everywhere; `starting` are the buttons that begin work."""
        self._starting = starting
        self.cancel_button.clicked.connect(self.task.cancel)
        self.save_button.clicked.connect(self._ask_and_save)
        self.task.progressed.connect(self._show_progress)
        self.task.running_changed.connect(self._show_running)
        self.task.failed.connect(self._show_failure)
        self.classifier.to_pack.connect(lambda: self.open_beside("Pack a classifier"))
        self.inputs.preprocessing_wanted.connect(self._fill_preprocessing)
        self._show_notices(())
        self._show_running(False)

    def can_save(self) -> bool:
        """Whether there is something to save."""
        raise NotImplementedError

    def save(self, folder: str) -> None:
        """Write what is shown into a folder."""
        raise NotImplementedError

    def _show_loaded(self, classifier: Classifier) -> None:
        self.inputs.show_classifier(classifier)

    def _fill_preprocessing(self) -> None:
        """Load the classifier to see its preprocessing."""
        if self.task.running:
            self.inputs.change_box.setChecked(False)
            return
        self.task.start(self.loader.chosen(), self._show_loaded)

    def _ask_and_save(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder for the results")
        if folder:
            self.save(folder)

    def _show_notices(self, notices: Sequence[str]) -> None:
        """Notifications are cut short and go away; the sentences stay as long as the answer that they belong to."""
        told = tuple(dict.fromkeys(notices))
        self.notices.setText("\n\n".join(told))
        self.notices.setVisible(bool(told))
        for notice in told:
            show_warning(notice)

    def _scroll_to(self, part: QWidget) -> None:
        """Show a part of the controls whose size is known only when Qt has laid it out."""
        self._wanted = part
        # A bound method: it is forgotten when the widget goes.
        QTimer.singleShot(0, self._show_wanted)

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
        for button in self._starting:
            button.setEnabled(not running)
        self.save_button.setEnabled(self.can_save() and not running)
        self.cancel_button.setEnabled(running)
        self.progress.setVisible(running)
        if running:
            self.progress.setValue(0)
