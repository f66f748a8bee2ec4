"""Choosing several layers of the viewer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import napari
from napari.layers import Layer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QListWidget, QListWidgetItem

_ROWS = 4

BOXES = "QAbstractItemView::indicator:unchecked { border: 1px solid #8a919c; border-radius: 2px; }"
"""Boxes of lists that can be seen in all of napari's themes, whose dark one draws them nearly as dark as the paper."""


class LayerChecks(QListWidget):
    """Layers of one kind, each with a box to check.

    Parameters
    ----------
    viewer : napari.Viewer
    find : callable
        Gives the layers to choose from.
    """

    def __init__(self, viewer: napari.Viewer, find: Callable[[], Sequence[Layer]]) -> None:
        super().__init__()
        self._find = find
        self._layers: list[Layer] = []
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setStyleSheet(BOXES)
        self.setMaximumHeight(_ROWS * self.fontMetrics().lineSpacing() + 2 * self.frameWidth() + _ROWS)
        events = viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.connect(self.fill)
        self.fill()

    def fill(self, *_: Any) -> None:
        """Offer the layers that there are now; those that were chosen stay so."""
        chosen = self.layers()
        self.clear()
        self._layers = list(self._find())
        for layer in self._layers:
            item = QListWidgetItem(layer.name)
            item.setToolTip(layer.name)
            item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
            item.setCheckState(Qt.CheckState.Checked if layer in chosen else Qt.CheckState.Unchecked)
            self.addItem(item)

    def layers(self) -> list[Layer]:
        """The chosen layers, in the viewer's order."""
        return [layer for k, layer in enumerate(self._layers) if self.item(k).checkState() == Qt.CheckState.Checked]

    def choose(self, layers: Sequence[Layer]) -> None:
        """Choose these layers and no others."""
        for k, layer in enumerate(self._layers):
            self.item(k).setCheckState(Qt.CheckState.Checked if layer in layers else Qt.CheckState.Unchecked)
