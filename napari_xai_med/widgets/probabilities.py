"""The classes with their probabilities, or what else a network says of each, as bars."""

from __future__ import annotations

from qtpy.QtWidgets import QHeaderView, QProgressBar, QTreeWidget, QTreeWidgetItem

from napari_xai_med.models.classifier import Prediction

_ROWS_SHOWN = 6


class ProbabilityBars(QTreeWidget):
    """All classes of a prediction, the most probable first, each with its number."""

    def __init__(self) -> None:
        super().__init__()
        self.setColumnCount(2)
        self.setHeaderLabels(["Class", "Probability"])
        self.setRootIsDecorated(False)
        self.setSelectionMode(QTreeWidget.SelectionMode.NoSelection)
        self.header().setSectionResizeMode(0, QHeaderView.ResizeMode.ResizeToContents)
        self.show_nothing()

    def show_nothing(self) -> None:
        """Forget the last prediction."""
        self.clear()
        self.setVisible(False)

    def show_prediction(self, prediction: Prediction) -> None:
        """Show all classes of a prediction."""
        self.clear()
        quantity = prediction.quantity
        self.setHeaderLabels(["Class", quantity.capitalize()])
        for name, value in prediction.ranked:
            item = QTreeWidgetItem(self, [name])
            item.setToolTip(0, name)
            bar = QProgressBar()
            bar.setRange(0, 1000)
            # Values of a regression have no scale that a bar could show.
            bar.setValue(0 if quantity == "value" else round(value * 1000))
            bar.setFormat(f"{value:.4f}")
            self.setItemWidget(item, 1, bar)
        height = self.sizeHintForRow(0) * min(len(prediction.class_names), _ROWS_SHOWN)
        self.setFixedHeight(height + self.header().sizeHint().height() + 8)
        self.setVisible(True)

    def rows(self) -> list[tuple[str, str]]:
        """Names and numbers as they are shown."""
        items = [self.topLevelItem(k) for k in range(self.topLevelItemCount())]
        return [(item.text(0), self.itemWidget(item, 1).format()) for item in items]
