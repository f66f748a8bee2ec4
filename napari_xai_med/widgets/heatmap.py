"""How a heatmap layer looks: colormap, opacity, threshold and colour bar."""

from __future__ import annotations

from typing import Any

from napari.layers import Image as ImageLayer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QGroupBox,
    QLabel,
    QLineEdit,
    QPushButton,
    QSlider,
)

from napari_xai_med.bands import DEFAULT_EDGES
from napari_xai_med.colours import COLORMAPS, SIGNED_COLORMAPS
from napari_xai_med.errors import InputError
from napari_xai_med.layers import METADATA_KEY, LayerTuple
from napari_xai_med.options import parse
from napari_xai_med.widgets.best_segments import BestSegments
from napari_xai_med.widgets.colours import thresholded
from napari_xai_med.widgets.controls import row
from napari_xai_med.widgets.results import bands_to_layer


class HeatmapControls(QGroupBox):
    """Controls of the heatmap layer that was made or selected last."""

    def __init__(self) -> None:
        super().__init__("Heatmap")
        self._layer: ImageLayer | None = None
        self.colormap = QComboBox()
        self.opacity, self._opacity_text = _slider()
        self.threshold, self._threshold_text = _slider()
        self.colour_bar = QCheckBox("Colour bar")
        self.edges, self.bands_button = QLineEdit(", ".join(map(str, DEFAULT_EDGES))), QPushButton("Add as labels")
        self.best = BestSegments()
        form = QFormLayout(self)
        form.addRow("Colormap", self.colormap)
        form.addRow("Opacity", row(self.opacity, self._opacity_text))
        form.addRow("Threshold", row(self.threshold, self._threshold_text))
        form.addRow(self.colour_bar)
        form.addRow("Bands", row(self.edges, self.bands_button))
        form.addRow(self.best)
        self.edges.setToolTip("Shares of the maximum at which a band begins; the last one reaches to the maximum.")
        self.threshold.setToolTip("Values below this share of the maximum are not shown; the stored values stay.")
        self.colormap.currentTextChanged.connect(self._apply_colours)
        self.threshold.valueChanged.connect(self._apply_colours)
        self.opacity.valueChanged.connect(self._apply_opacity)
        self.colour_bar.toggled.connect(self._apply_colour_bar)
        self.set_layer(None)

    @property
    def layer(self) -> ImageLayer | None:
        """The heatmap layer that is controlled."""
        return self._layer

    def bands(self) -> LayerTuple | None:
        """The bands of the controlled heatmap as a labels layer; None if there is no heatmap.

        Raises
        ------
        InputError
            If the line holds no edges of bands.
        """
        if self._layer is None:
            return None
        try:
            edges = parse(self.edges.text(), DEFAULT_EDGES)
        except ValueError as error:
            raise InputError(f"{self.edges.text()!r} is no list of numbers; give shares such as 0.3, 0.7.") from error
        return bands_to_layer(self._layer, edges)

    def set_layer(self, layer: ImageLayer | None) -> None:
        """Show and control a heatmap layer, or none."""
        self._layer = None
        self.setEnabled(layer is not None)
        self.best.set_layer(layer)
        if layer is None:
            return
        look = layer.metadata[METADATA_KEY]["look"]
        self.colormap.clear()
        self.colormap.addItems(SIGNED_COLORMAPS if look["signed"] else COLORMAPS)
        self.colormap.setCurrentText(look["colormap"])
        self.threshold.setValue(look["threshold"])
        self.opacity.setValue(round(layer.opacity * 100))
        self.colour_bar.setChecked(layer.colorbar.visible)
        self._layer = layer
        self._show_numbers()

    def _show_numbers(self) -> None:
        self._opacity_text.setText(f"{self.opacity.value()} %")
        self._threshold_text.setText(f"{self.threshold.value()} %")

    def _apply_colours(self, *_: Any) -> None:
        self._show_numbers()
        if self._layer is None or not self.colormap.currentText():
            return
        look = self._layer.metadata[METADATA_KEY]["look"]
        look |= {"colormap": self.colormap.currentText(), "threshold": self.threshold.value()}
        self._layer.colormap = thresholded(look["colormap"], look["threshold"], signed=look["signed"])

    def _apply_opacity(self, percent: int) -> None:
        self._show_numbers()
        if self._layer is not None:
            self._layer.opacity = percent / 100

    def _apply_colour_bar(self, visible: bool) -> None:
        if self._layer is not None:
            self._layer.colorbar.visible = visible


def _slider() -> tuple[QSlider, QLabel]:
    slider, text = QSlider(Qt.Orientation.Horizontal), QLabel()
    slider.setRange(0, 100)
    text.setMinimumWidth(40)
    return slider, text
