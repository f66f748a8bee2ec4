"""Looking at the best segments of a heatmap only."""

from __future__ import annotations

from napari.layers import Image as ImageLayer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QFormLayout, QLabel, QPushButton, QSlider, QSpinBox, QWidget

from napari_xai_med.layers import METADATA_KEY
from napari_xai_med.segments.best import Best
from napari_xai_med.widgets.controls import row
from napari_xai_med.widgets.results import show_best

_WHICH = {Best.LARGEST: "largest", Best.SUPPORTING: "supporting", Best.AGAINST: "against"}

_MOST, _USUAL = 10_000, 5
"""Segments of a mask."""


class BestSegments(QWidget):
    """How many segments of a heatmap are shown, and a button for a mask of the best ones."""

    def __init__(self) -> None:
        super().__init__()
        self._layer: ImageLayer | None = None
        self.shown, self._text = QSlider(Qt.Orientation.Horizontal), QLabel()
        self.shown.setToolTip("Show only so many segments, those that contribute most; the stored values stay.")
        self.count, self.which, self.mask_button = QSpinBox(), QComboBox(), QPushButton("Add the best as labels")
        self.count.setRange(1, _MOST)
        self.count.setValue(_USUAL)
        for which, text in _WHICH.items():
            self.which.addItem(text, which)
        self.which.setToolTip("By absolute value, or only those that speak for the class, or against it.")
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Best segments", row(self.shown, self._text))
        form.addRow("The best", row(self.count, self.which))
        form.addRow(self.mask_button)
        self.shown.valueChanged.connect(self._show)
        self.set_layer(None)

    def set_layer(self, layer: ImageLayer | None) -> None:
        """Control a heatmap layer; hidden if it is none of segments."""
        own = {} if layer is None else layer.metadata[METADATA_KEY]
        segments = own.get("segments")
        self.setVisible(segments is not None)
        self._layer = None
        if segments is None:
            return
        best = own["look"]["best"]
        self.shown.setRange(1, segments.count)
        self.shown.setValue(segments.count if best is None else best)
        self.count.setMaximum(segments.count)
        self._layer = layer
        self._tell()

    def wanted(self) -> tuple[int, Best]:
        """How many segments the mask is to hold, and what makes them the best."""
        return self.count.value(), self.which.currentData()

    def _tell(self) -> None:
        self._text.setText(f"{self.shown.value()} of {self.shown.maximum()}")

    def _show(self, count: int) -> None:
        self._tell()
        if self._layer is not None:
            show_best(self._layer, None if count == self.shown.maximum() else count)
