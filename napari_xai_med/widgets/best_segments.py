"""Looking at some segments of a heatmap only: the best ones, or one after the other."""

from __future__ import annotations

from napari.layers import Image as ImageLayer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QFormLayout, QLabel, QPushButton, QSpinBox, QToolButton, QWidget
from superqt import QRangeSlider

from napari_xai_med.layers import METADATA_KEY
from napari_xai_med.segments.best import Best
from napari_xai_med.widgets.controls import row
from napari_xai_med.widgets.results import show_ranks

_WHICH = {Best.LARGEST: "largest", Best.SUPPORTING: "supporting", Best.AGAINST: "against"}

_MOST, _USUAL = 10_000, 5
"""Segments of a mask."""


class BestSegments(QWidget):
    """From which rank to which the segments of a heatmap are shown, and a button for a mask of the best ones."""

    def __init__(self) -> None:
        super().__init__()
        self._layer: ImageLayer | None = None
        self.shown, self._text = QRangeSlider(Qt.Orientation.Horizontal), QLabel()
        self.shown.setToolTip(
            "Show only segments from one rank to another, 1 for what contributes most; the stored values stay."
        )
        self.previous, self.next = QToolButton(), QToolButton()
        for button, arrow, told, by in (
            (self.previous, Qt.ArrowType.LeftArrow, "One rank up; the least one if all are shown.", -1),
            (self.next, Qt.ArrowType.RightArrow, "One rank down; the best one if all are shown.", 1),
        ):
            button.setArrowType(arrow)
            button.setToolTip(told)
            button.clicked.connect(lambda _, by=by: self.step(by))
        self.count, self.which, self.mask_button = QSpinBox(), QComboBox(), QPushButton("Add the best as labels")
        self.count.setRange(1, _MOST)
        self.count.setValue(_USUAL)
        for which, text in _WHICH.items():
            self.which.addItem(text, which)
        self.which.setToolTip("By absolute value, or only those that speak for the class, or against it.")
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Segments", row(self.previous, self.shown, self.next))
        form.addRow("", self._text)
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
        first, last = own["look"]["ranks"] or (1, segments.count)
        self.shown.setRange(1, segments.count)
        self.shown.setValue((min(first, segments.count), min(last, segments.count)))
        self.count.setMaximum(segments.count)
        self._layer = layer
        self._tell()

    def wanted(self) -> tuple[int, Best]:
        """How many segments the mask is to hold, and what makes them the best."""
        return self.count.value(), self.which.currentData()

    def step(self, by: int) -> None:
        """Move what is shown by so many ranks; where all are shown, begin with the best or the least one."""
        (first, last), most = self.shown.value(), self.shown.maximum()
        if (first, last) == (1, most):
            first = last = 1 if by > 0 else most
        elif first + by >= 1 and last + by <= most:
            first, last = first + by, last + by
        self.shown.setValue((first, last))

    def _tell(self) -> None:
        first, last = self.shown.value()
        self._text.setText(f"{first if first == last else f'{first} to {last}'} of {self.shown.maximum()}")

    def _show(self, ranks: tuple[int, int]) -> None:
        self._tell()
        if self._layer is not None:
            show_ranks(self._layer, None if ranks == (1, self.shown.maximum()) else ranks)
