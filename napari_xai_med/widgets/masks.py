"""Choosing a mask: a labels layer, the body, or none."""

from __future__ import annotations

from typing import Any

import napari
from napari.layers import Labels
from qtpy.QtWidgets import QComboBox

from napari_xai_med.layers import METADATA_KEY, LayerView, possible_axes
from napari_xai_med.segments.choice import BODY, GIVEN

_NONE, _BODY = "no mask", "where a body is found"


def labels_layers(viewer: napari.Viewer) -> list[Labels]:
    """The Labels layers that can be meant: those that go with a heatmap change with it."""
    layers = (layer for layer in viewer.layers if isinstance(layer, Labels))
    return [layer for layer in layers if not layer.metadata.get(METADATA_KEY, {}).get("follows")]


class MaskPicker(QComboBox):
    """No mask, the body, and the labels layers of the viewer."""

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._layers: list[Labels] = []
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        events = viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.connect(self._fill)
        self._fill()

    def _fill(self, *_: Any) -> None:
        before, path = self.layer(), self.path()
        self._layers = labels_layers(self._viewer)
        # Other layers come and go without another choice.
        self.blockSignals(True)
        self.clear()
        self.addItem(_NONE, "")
        self.addItem(_BODY, BODY)
        for layer in self._layers:
            self.addItem(layer.name, GIVEN)
        if before in self._layers:
            self.choose(before)
        elif path == BODY:
            self.setCurrentIndex(1)
        self.blockSignals(False)
        if self.layer() != before:
            self.currentIndexChanged.emit(self.currentIndex())

    def choose(self, layer: Labels) -> None:
        """Choose a labels layer of the viewer."""
        self.setCurrentIndex(self._layers.index(layer) + 2)

    def layer(self) -> Labels | None:
        """The chosen labels layer."""
        index = self.currentIndex() - 2
        return self._layers[index] if 0 <= index < len(self._layers) else None

    def path(self) -> str:
        """As a choice of slices has it: ``"given"`` for a layer, ``"body"``, or nothing."""
        return str(self.currentData() or "")

    def view(self, volume: int) -> LayerView | None:
        """The chosen labels layer with its axes; of several volumes the one of that number, if there is one."""
        layer = self.layer()
        if layer is None:
            return None
        axes = possible_axes(layer)[0]
        several = "T" in axes and layer.data.shape[axes.index("T")] > volume
        return LayerView(layer, axes, volume if several else 0)
