"""The classes with their probabilities, or what else a network says of each, as bars."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHeaderView, QProgressBar, QTreeWidget, QTreeWidgetItem

from napari_xai_med.models.classifier import Prediction

_ROWS_SHOWN = 6


class ProbabilityBars(QTreeWidget):
    """All classes of a prediction, the most probable first, each with its number.

    Attributes
    ----------
    hovered : Signal(object)
        The name of the class under the cursor; None when there is none any more.
    """

    hovered = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._shown: tuple[Any, ...] = ()
        self.setMouseTracking(True)
        self.itemEntered.connect(lambda item, _: self.hovered.emit(item.text(0)))
        self.setColumnCount(2)
        self.setHeaderLabels(["Class", "Probability"])
        self.setRootIsDecorated(False)
        self.setSelectionMode(QTreeWidget.SelectionMode.NoSelection)
        self.header().setSectionResizeMode(0, QHeaderView.ResizeMode.ResizeToContents)
        self.show_nothing()

    def show_nothing(self) -> None:
        """Forget the last prediction."""
        self.clear()
        self._shown = ()
        self.setVisible(False)

    def leaveEvent(self, event: Any) -> None:
        """Tell that no class is under the cursor any more."""
        super().leaveEvent(event)
        self.hovered.emit(None)

    def show_prediction(self, prediction: Prediction) -> None:
        """Show all classes of a prediction."""
        quantity = prediction.quantity
        # What is under the cursor must not be made anew for nothing.
        if self._shown == (shown := (quantity, *prediction.ranked)):
            return
        self.clear()
        self._shown = shown
        self.setHeaderLabels(["Class", quantity.capitalize()])
        for name, value in prediction.ranked:
            item = QTreeWidgetItem(self, [name])
            item.setToolTip(0, name)
            bar = QProgressBar()
            bar.setRange(0, 1000)
            # Values of a regression have no scale that a bar could show.
            bar.setValue(0 if quantity == "value" else round(value * 1000))
            bar.setFormat(f"{value:.4f}")
            # Or the list would not hear of the cursor over it.
            bar.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
            self.setItemWidget(item, 1, bar)
        height = self.sizeHintForRow(0) * min(len(prediction.class_names), _ROWS_SHOWN)
        self.setFixedHeight(height + self.header().sizeHint().height() + 8)
        self.setVisible(True)

    def rows(self) -> list[tuple[str, str]]:
        """Names and numbers as they are shown."""
        items = [self.topLevelItem(k) for k in range(self.topLevelItemCount())]
        return [(item.text(0), self.itemWidget(item, 1).format()) for item in items]
