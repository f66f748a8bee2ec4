"""Choosing further image layers as the channels of one image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import napari
from napari.layers import Image as ImageLayer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_xai_med.layers import LayerView
from napari_xai_med.widgets.pickers import ImagePicker


class ChannelPickers(QWidget):
    """A row for each further channel, such as T2 and FLAIR beside T1.

    Attributes
    ----------
    changed : Signal
        A row came, went, or has another layer.
    """

    changed = Signal()

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._rows: dict[ImagePicker, QWidget] = {}
        self.add_button = QPushButton("Add a channel")
        self.add_button.setToolTip(
            "For networks of several images, such as T1, T2 and FLAIR: in the network's order, each resampled to the "
            "first by its place in the patient."
        )
        self.add_button.clicked.connect(lambda: self.add())
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.addWidget(self.add_button)

    def add(self) -> ImagePicker:
        """Add a row, and return its picker."""
        picker, remove = ImagePicker(self._viewer, follows_selection=False), QPushButton("✕")
        remove.setToolTip("Remove this channel.")
        # The name of the layer needs the room.
        remove.setFixedWidth(remove.sizeHint().height())
        row = QWidget()
        line = QHBoxLayout(row)
        line.setContentsMargins(0, 0, 0, 0)
        for widget in (QLabel(f"{len(self._rows) + 2}."), picker, picker.axes, remove):
            line.addWidget(widget)
        line.setStretch(1, 1)
        remove.clicked.connect(partial(self._remove, picker))
        picker.changed.connect(self.changed)
        self._rows[picker] = row
        self._column.insertWidget(self._column.count() - 1, row)
        self.changed.emit()
        return picker

    def _remove(self, picker: ImagePicker) -> None:
        row = self._rows.pop(picker)
        picker.disconnect_viewer()
        row.hide()
        self._column.removeWidget(row)
        row.deleteLater()
        for number, each in enumerate(self._rows.values(), start=2):
            each.layout().itemAt(0).widget().setText(f"{number}.")
        self.changed.emit()

    def choose(self, layers: Sequence[tuple[ImageLayer, str]]) -> None:
        """Choose these layers, with what their axes mean, and no others."""
        for picker in self.pickers():
            self._remove(picker)
        for layer, axes in layers:
            self.add().choose(layer, axes)

    def pickers(self) -> tuple[ImagePicker, ...]:
        """The pickers in order."""
        return tuple(self._rows)

    def views(self) -> tuple[LayerView, ...]:
        """The chosen layers; see `ImagePicker.view`."""
        return tuple(picker.view() for picker in self._rows)
