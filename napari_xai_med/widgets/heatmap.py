"""How a heatmap layer looks: colormap, opacity, threshold and colour bar."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Image as ImageLayer
from napari.utils.colormaps import Colormap, ensure_colormap
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QComboBox, QFormLayout, QGroupBox, QHBoxLayout, QLabel, QSlider

from napari_xai_med.layers import METADATA_KEY

COLORMAPS = ("turbo", "inferno", "magma", "plasma", "viridis", "hot")
SIGNED_COLORMAPS = ("PiYG", "PRGn", "RdYlGn", "BrBG")
DEFAULT_THRESHOLD = 20


def thresholded(name: str, percent: int, *, signed: bool) -> Colormap:
    """A colormap that is transparent below a share of the maximum; the other colours stay where they are."""
    position = np.linspace(0, 1, 256)
    colours = np.array(ensure_colormap(name).map(position))
    strength = np.abs(2 * position - 1) if signed else position
    colours[(strength < percent / 100) | (strength == 0), 3] = 0
    return Colormap(colours, name=f"{name} from {percent} %")


class HeatmapControls(QGroupBox):
    """Controls of the heatmap layer that was made or selected last."""

    def __init__(self) -> None:
        super().__init__("Heatmap")
        self._layer: ImageLayer | None = None
        self.colormap = QComboBox()
        self.opacity, self._opacity_text = _slider()
        self.threshold, self._threshold_text = _slider()
        self.colour_bar = QCheckBox("Colour bar")
        form = QFormLayout(self)
        form.addRow("Colormap", self.colormap)
        form.addRow("Opacity", _beside(self.opacity, self._opacity_text))
        form.addRow("Threshold", _beside(self.threshold, self._threshold_text))
        form.addRow(self.colour_bar)
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

    def set_layer(self, layer: ImageLayer | None) -> None:
        """Show and control a heatmap layer, or none."""
        self._layer = None
        self.setEnabled(layer is not None)
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


def _beside(*widgets: Any) -> QHBoxLayout:
    row = QHBoxLayout()
    for widget in widgets:
        row.addWidget(widget)
    return row
