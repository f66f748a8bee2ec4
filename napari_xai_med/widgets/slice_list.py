"""The slices that were chosen, with what the classifier says of them."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHeaderView, QTreeWidget, QTreeWidgetItem

from napari_xai_med.attribution import Attribution
from napari_xai_med.slice_pipeline import Slices

_ROWS_SHOWN = 6


class SliceList(QTreeWidget):
    """A row for each slice, the best one first.

    Attributes
    ----------
    chosen : Signal(int)
        The user clicked on the slice of this number.
    """

    chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.setRootIsDecorated(False)
        self.setToolTip("A click shows the slice.")
        self.header().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        # Also by the arrow keys.
        self.currentItemChanged.connect(self._emit)
        self.itemClicked.connect(self._emit)
        self.show_slices(None)

    def _emit(self, item: QTreeWidgetItem | None, *_: object) -> None:
        if item is not None:
            self.chosen.emit(item.data(0, Qt.ItemDataRole.UserRole))

    def show_slices(self, slices: Slices | None, attributions: Sequence[Attribution] = ()) -> None:
        """Show slices with their scores, and with the most probable class of those that were explained."""
        self.blockSignals(True)
        self.clear()
        quantity = attributions[0].prediction.quantity.capitalize() if attributions else ""
        labels = ["Slice", "Score", *(["Class", quantity] if attributions else [])]
        self.setColumnCount(len(labels))
        self.setHeaderLabels(labels)
        self.setVisible(slices is not None)
        for k, (index, score) in enumerate(zip(slices.indices, slices.scores, strict=True) if slices else ()):
            told = [f"{slices.plane} {index}", f"{score:.4g}"] if slices else []
            if k < len(attributions):
                name, value = attributions[k].prediction.ranked[0]
                told += [name, f"{value:.4f}"]
            item = QTreeWidgetItem(self, told)
            item.setData(0, Qt.ItemDataRole.UserRole, index)
            if k < len(attributions):
                ranked = attributions[k].prediction.ranked
                item.setToolTip(3, "\n".join(f"{name}: {value:.4f}" for name, value in ranked))
        height = self.sizeHintForRow(0) * min(self.topLevelItemCount(), _ROWS_SHOWN)
        self.setFixedHeight(max(height, 0) + self.header().sizeHint().height() + 8)
        self.blockSignals(False)

    def show_current(self, place: int, *, tell: bool) -> None:
        """Mark a row as the chosen one, and emit `chosen` or not."""
        self.blockSignals(not tell)
        self.setCurrentItem(self.topLevelItem(place))
        self.blockSignals(False)

    def rows(self) -> list[list[str]]:
        """What is shown."""
        items = [self.topLevelItem(k) for k in range(self.topLevelItemCount())]
        return [[item.text(column) for column in range(self.columnCount())] for item in items]
