"""Small pictures of a layer's feature maps, to look at and to choose from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import QListWidget, QListWidgetItem

from napari_xai_med.image import Image
from napari_xai_med.inside import by_strength, central_slices, strengths

_SIDE = 64
_HEIGHT = 260


class Thumbnails(QListWidget):
    """The central slices of all channels, the most active first, each in its own range of greys.

    Attributes
    ----------
    chosen : Signal(int)
        A click on a channel, without a key that selects several.
    """

    chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.setViewMode(QListWidget.ViewMode.IconMode)
        self.setResizeMode(QListWidget.ResizeMode.Adjust)
        self.setMovement(QListWidget.Movement.Static)
        self.setSelectionMode(QListWidget.SelectionMode.ExtendedSelection)
        self.setIconSize(QSize(_SIDE, _SIDE))
        self.setUniformItemSizes(True)
        self.setMinimumHeight(_HEIGHT)
        self.setToolTip("The most active first. A click adds one as a layer; Ctrl and Shift select several.")
        self.itemPressed.connect(self._pressed)

    def show_maps(self, maps: Image | None) -> None:
        """Show all channels of feature maps, or none."""
        self.clear()
        if maps is None:
            return
        (slices, aspect), active = central_slices(maps), strengths(maps)
        for channel in by_strength(maps):
            item = QListWidgetItem(QIcon(_picture(slices[channel], aspect)), str(channel))
            item.setData(Qt.ItemDataRole.UserRole, channel)
            item.setToolTip(f"Channel {channel}: mean size of its values {active[channel]:.4g}")
            self.addItem(item)

    def channels(self) -> list[int]:
        """All channels in the order in which they are shown."""
        return [self.item(k).data(Qt.ItemDataRole.UserRole) for k in range(self.count())]

    def selected(self) -> list[int]:
        """The selected channels in that order."""
        return [self.item(k).data(Qt.ItemDataRole.UserRole) for k in range(self.count()) if self.item(k).isSelected()]

    def _pressed(self, item: QListWidgetItem) -> None:
        if len(self.selectedItems()) == 1:
            self.chosen.emit(item.data(Qt.ItemDataRole.UserRole))


def _picture(values: NDArray[np.float32], aspect: float) -> QPixmap:
    low, high = float(values.min()), float(values.max())
    grey = np.ascontiguousarray((values - low) * (255 / ((high - low) or 1)), np.uint8)
    rows, columns = grey.shape
    # The pixmap has its own copy; the image only borrows the array.
    picture = QPixmap.fromImage(QImage(grey.data, columns, rows, columns, QImage.Format.Format_Grayscale8))
    shape = (columns, rows * aspect)
    width, height = (max(1, round(_SIDE * length / max(shape))) for length in shape)
    return picture.scaled(width, height)
