"""The widget that makes a bundle of a network's file, its preprocessing and its class names."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import napari
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QProgressBar,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_xai_med.errors import InputError, XAIMedError
from napari_xai_med.job import Job
from napari_xai_med.models.architectures import architectures
from napari_xai_med.models.bundle_files import format_of
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.formats.base import formats
from napari_xai_med.models.formats.facts import NetworkFacts, sizes
from napari_xai_med.models.head import Head
from napari_xai_med.models.pack import AUTO, Packing, pack
from napari_xai_med.models.sliding_window import Aggregate, SlidingWindow
from napari_xai_med.options import parse
from napari_xai_med.widgets.controls import ControlsWidget, row
from napari_xai_med.widgets.options import OptionsForm
from napari_xai_med.widgets.preprocessing import PreprocessingForm

Number = TypeVar("Number", int, float)

_IN_FILE = "in the file"
_HEADS = {
    AUTO: "what fits the class names",
    Head.SOFTMAX: "softmax: one of the classes",
    Head.ONE_LOGIT: "one logit: the class or not",
    Head.MULTI_LABEL: "multi-label: each class or not",
    Head.REGRESSION: "regression: a number for each name",
    Head.SEGMENTATION: "segmentation: a class for each voxel",
}
_MODALITIES = ("", "CT", "MR", "CR", "DX", "US", "PT", "SM", "OT")


class PathEdit(QWidget):
    """A line for a path with a button that opens a dialog.

    Attributes
    ----------
    changed : Signal
        Another path was entered or chosen.
    """

    changed = Signal()

    def __init__(self, title: str, suffixes: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._title, self._suffixes = title, suffixes
        self.line, button = QLineEdit(), QPushButton("…")
        button.setMaximumWidth(36)
        button.clicked.connect(self._ask)
        self.line.editingFinished.connect(self.changed)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.line)
        row.addWidget(button)

    def _ask(self) -> None:
        if self._suffixes:
            filters = f"Networks ({' '.join(f'*{suffix}' for suffix in self._suffixes)});;All files (*)"
            chosen = QFileDialog.getOpenFileName(self, self._title, filter=filters)[0]
        else:
            chosen = QFileDialog.getSaveFileName(self, self._title)[0]
        if chosen:
            self.set_path(chosen)

    def set_path(self, path: str) -> None:
        """Enter a path."""
        self.line.setText(path)
        self.changed.emit()

    def path(self) -> Path | None:
        """The path, if there is one."""
        text = self.line.text().strip()
        return Path(text).expanduser() if text else None


class PackWidget(ControlsWidget):
    """Make a bundle that can be explained, of weights that somebody trained. Research use only."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        suffixes = tuple(suffix for kind in formats().values() for suffix in kind.suffixes)
        self.file, self.folder = PathEdit("The network's file", suffixes), PathEdit("Folder of the new bundle")
        self.told = QLabel()
        self.told.setWordWrap(True)
        self.architecture, self.options = QComboBox(), OptionsForm()
        self.classes, self.head, self.output = QPlainTextEdit(), QComboBox(), QComboBox()
        self.shape, self.name, self.modality = QLineEdit(), QLineEdit(), QComboBox()
        self.values, self.spacing = QLineEdit(), QLineEdit()
        self.preprocessing = PreprocessingForm()
        self.aggregate, self.window = QComboBox(), QLineEdit()
        self.overlap, self.batch = QDoubleSpinBox(), QSpinBox()
        self.pack_button, self.explain_button = QPushButton("Pack"), QPushButton("Explain with it")
        self.cancel_button = QPushButton("Cancel")
        self.progress, self.result = QProgressBar(), QLabel()
        self.packed: Path | None = None
        self._fill()
        self._lay_out()
        self.file.changed.connect(self._read)
        self.architecture.currentIndexChanged.connect(self._show_architecture)
        self.options.changed.connect(self._show_dims)
        self.aggregate.currentIndexChanged.connect(self._show_windows)
        self.pack_button.clicked.connect(self.pack)
        self.cancel_button.clicked.connect(self.task.cancel)
        self.explain_button.clicked.connect(self._explain)
        self.task.running_changed.connect(self._show_running)
        self.task.progressed.connect(lambda done, _: self.progress.setValue(round(done * 100)))
        self.task.failed.connect(self._show_failure)
        self._show_architecture()
        self._show_windows()
        self._show_running(False)

    def _fill(self) -> None:
        self.architecture.addItem(_IN_FILE, "")
        for name, entry in architectures().items():
            self.architecture.addItem(entry.title, name)
        for head, text in _HEADS.items():
            self.head.addItem(text, str(head))
        self.output.addItem("the only one", "")
        self.output.setEditable(True)
        self.modality.addItems(_MODALITIES)
        self.modality.setEditable(True)
        self.aggregate.addItem("no: the whole image at once", None)
        for aggregate in Aggregate:
            self.aggregate.addItem(f"yes, by {aggregate}", aggregate)
        self.overlap.setRange(0, 0.95)
        self.overlap.setSingleStep(0.05)
        self.overlap.setValue(0.5)
        self.batch.setRange(1, 1024)
        self.batch.setValue(4)
        self.classes.setPlaceholderText("One name a line, in the order of the network's outputs")
        self.classes.setFixedHeight(90)
        self.shape.setPlaceholderText("C, N, N, N; told by the rest if left out")
        self.window.setPlaceholderText("N, N, N in voxels")
        for line in (self.shape, self.window):
            line.setToolTip("In the order of the network's axes, behind the preprocessing.")
        for combo in (self.architecture, self.head, self.output):
            combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.output.setToolTip("For networks with several outputs: which of them the classes belong to.")
        self.values.setPlaceholderText("smallest, largest")
        self.values.setToolTip("Values that the network is meant to see; others get a warning.")
        self.spacing.setPlaceholderText("smallest, largest in mm")
        self.spacing.setToolTip("Between the voxels of images; smaller or larger ones get a warning.")
        self.modality.setToolTip("With CT, images without Hounsfield units get a warning.")

    def _lay_out(self) -> None:
        form, meaning, windows = QFormLayout(), QFormLayout(), QFormLayout()
        form.addRow("File", self.file)
        form.addRow(self.told)
        form.addRow("Architecture", self.architecture)
        form.addRow(self.options)
        meaning.addRow("Classes", self.classes)
        meaning.addRow("Outputs mean", self.head)
        meaning.addRow("Output", self.output)
        meaning.addRow("Input shape", self.shape)
        meaning.addRow("Name", self.name)
        meaning.addRow("Modality", self.modality)
        meaning.addRow("Input values", self.values)
        meaning.addRow("Spacing", self.spacing)
        steps = QGroupBox("Preprocessing")
        QVBoxLayout(steps).addWidget(self.preprocessing)
        windows.addRow("Sliding window", self.aggregate)
        self._window_rows = [("Window", self.window), ("Overlap", self.overlap), ("At once", self.batch)]
        for label, widget in self._window_rows:
            windows.addRow(label, widget)
        self._windows = windows
        self.result.setWordWrap(True)
        end = QFormLayout()
        end.addRow("New folder", self.folder)
        buttons = row(self.pack_button, self.cancel_button, self.explain_button)
        self._show_column(form, meaning, steps, windows, end, below=(self.result, buttons, self.progress))

    # What the file says

    def _read(self) -> None:
        """See what the file says of its network, and ask for the rest only."""
        path = self.file.path()
        if path is None:
            return
        self.told.setText("")
        self.result.setText("")
        try:
            kind = format_of(path)
        except XAIMedError as error:
            self.told.setText(str(error))
            return
        self.architecture.setEnabled(not kind.has_architecture)
        if kind.has_architecture:
            self.architecture.setCurrentIndex(0)
        if self.folder.path() is None:
            self.folder.set_path(str(path.with_name(f"{path.stem}_bundle")))

        def work(job: Job) -> NetworkFacts | None:
            job.step(0.0, "Reading the file")
            return kind().facts(path)

        self.task.start(work, self._show_facts)

    def _show_facts(self, facts: NetworkFacts | None) -> None:
        names = [output.name for output in facts.outputs] if facts else []
        self.output.clear()
        self.output.addItem("the only one", "")
        for name in names if len(names) > 1 else ():
            self.output.addItem(name, name)
        if len(names) > 1:
            self.output.setCurrentIndex(1)
        self.told.setText(_sentence(facts) if facts else "The file holds weights only; choose their architecture.")
        if facts is not None and len(facts.input_shape) > 1:
            self.preprocessing.set_spatial_dims(len(facts.input_shape) - 1)

    def _show_architecture(self) -> None:
        name = self.architecture.currentData()
        self.options.setVisible(bool(name))
        if name:
            entry = architectures()[name]
            # The class names and what the outputs mean tell their number.
            self.options.show_options(entry.options, dict(vars(entry.chosen())), {"num_classes"})
            self._show_dims()

    def _show_dims(self) -> None:
        """Offer the preprocessing of 2D or 3D images, as the architecture takes."""
        entry = architectures()[self.architecture.currentData()]
        try:
            options = self.options.values()
        except XAIMedError:
            # Told when the options are used; while somebody types, much is wrong for a moment.
            return
        self.preprocessing.set_spatial_dims(options.get("spatial_dims", entry.spatial_dims[-1]))

    def _show_windows(self) -> None:
        for _, widget in self._window_rows:
            self._windows.setRowVisible(widget, self.aggregate.currentData() is not None)

    # What the user does

    def packing(self) -> Packing:
        """What the form says.

        Raises
        ------
        InputError
            If something is missing or can't be read.
        """
        path = self.file.path()
        if path is None:
            raise InputError("Choose the network's file first.")
        names = tuple(line.strip() for line in self.classes.toPlainText().splitlines() if line.strip())
        architecture = self.architecture.currentData()
        chosen = self.output.findText(self.output.currentText())
        output = self.output.itemData(chosen) if chosen >= 0 else self.output.currentText().strip()
        return Packing(
            weights=path,
            class_names=names,
            architecture=architecture,
            options=self._options() if architecture else {},
            preprocessing=self.preprocessing.steps(),
            head=self.head.currentData(),
            output=output,
            input_shape=_numbers(self.shape.text(), "input shape"),
            value_range=_numbers(self.values.text(), "input values", (0.0,)),
            spacing=_numbers(self.spacing.text(), "spacing", (0.0,)),
            name=self.name.text().strip(),
            modality=self.modality.currentText().strip(),
            windows=self._sliding_window(),
        )

    def _options(self) -> dict[str, Any]:
        """The options that were changed: the others follow from the class names."""
        default = vars(architectures()[self.architecture.currentData()].chosen())
        return {key: value for key, value in self.options.values().items() if value != default[key]}

    def _sliding_window(self) -> SlidingWindow | None:
        aggregate = self.aggregate.currentData()
        if aggregate is None:
            return None
        size = _numbers(self.window.text(), "window")
        return SlidingWindow(size, aggregate, self.overlap.value(), self.batch.value())

    def pack(self) -> None:
        """Make the bundle."""
        folder = self.folder.path()
        try:
            if folder is None:
                raise InputError("Give the folder of the new bundle.")
            packing = self.packing()
        except XAIMedError as error:
            show_error(str(error))
            self._show_failure(error)
            return
        self.packed = None

        def work(job: Job) -> Classifier:
            return pack(packing, folder, job)

        def done(classifier: Classifier) -> None:
            self.packed = folder
            names = ", ".join(classifier.class_names)
            told = (f"{classifier.name} is packed in {folder}: {names}.", *classifier.range.notices(classifier.name))
            self.result.setText(" ".join(told))
            show_info(self.result.text())

        self.task.start(work, done)

    def _explain(self) -> None:
        self.open_beside("Explain a classifier").classifier.choose(str(self.packed))

    def _show_failure(self, error: Exception) -> None:
        if isinstance(error, XAIMedError):
            self.result.setText(str(error))

    def _show_running(self, running: bool) -> None:
        self.progress.setVisible(running)
        self.cancel_button.setEnabled(running)
        self.pack_button.setEnabled(not running)
        self.explain_button.setEnabled(not running and self.packed is not None)


def _numbers(text: str, what: str, default: tuple[Number, ...] = ()) -> tuple[Number, ...]:
    """The numbers in a line, whole ones unless the default's are not."""
    try:
        numbers: tuple[Number, ...] = parse(text, default)
    except ValueError as error:
        kind = "numbers" if default else "whole numbers"
        raise InputError(f"{text!r} is no list of {kind}; correct the {what}.") from error
    return numbers


def _sentence(facts: NetworkFacts) -> str:
    """What a file says of its network, for people."""
    outputs = ", ".join(f"{each.name} ({each.numbers or 'any number'}, {each.ending})" for each in facts.outputs)
    written = f" Written by {facts.writer}." if facts.writer else ""
    limit = f" Some methods can't be used: {facts.limit}." if facts.limit else ""
    return f"It takes {sizes(facts.input_shape)} and gives {outputs}.{written}{limit}"
