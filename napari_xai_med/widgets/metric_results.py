"""What metrics found: verdicts, a table of numbers, and plots."""

from __future__ import annotations

from math import isnan
from typing import Any

import napari
import pandas as pd
from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure
from napari.utils.theme import get_theme
from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSize, QSortFilterProxyModel, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QApplication,
    QHeaderView,
    QLabel,
    QPushButton,
    QScrollArea,
    QSplitter,
    QTableView,
    QTableWidget,
    QTableWidgetItem,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_xai_med.attribution import DISCLAIMER
from napari_xai_med.evaluation import Evaluation
from napari_xai_med.figures_metrics import draw_plot
from napari_xai_med.metrics.outcome import Plot
from napari_xai_med.widgets.elided import ElidedCombo

_MARKS = {True: ("✓", "#2ca02c"), False: ("✗", "#d62728"), None: ("–", "#888888")}  # noqa: RUF001  # shown, not read

_PLOT = (360, 260)
_SHARES = (600, 400)
"""Of the width: the tables and the plot."""
_HEIGHT = 340
_GAP = 6
"""Between two lines of the table."""
_LETTERS = 18
"""Of the longest texts in a column."""


class FrameModel(QAbstractTableModel):
    """A table of pandas for Qt; sorting goes by the values themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.frame = pd.DataFrame()

    def show_frame(self, frame: pd.DataFrame) -> None:
        """Show another table."""
        self.beginResetModel()
        self.frame = frame
        self.endResetModel()

    def rowCount(self, _parent: QModelIndex | None = None) -> int:
        """As Qt asks."""
        return len(self.frame)

    def columnCount(self, _parent: QModelIndex | None = None) -> int:
        """As Qt asks."""
        return len(self.frame.columns)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """A cell as text, as a value to sort by, or whole as a tooltip, with the reason why it has none."""
        value = self.frame.iat[index.row(), index.column()]
        number = isinstance(value, float)
        if role == Qt.ItemDataRole.DisplayRole:
            return ("" if isnan(value) else f"{value:.5g}") if number else str(value)
        if role == Qt.ItemDataRole.UserRole:
            return float(value) if number else str(value)
        if role == Qt.ItemDataRole.ToolTipRole:
            return "\n".join(filter(None, (str(value), str(self.frame["reason"].iat[index.row()]))))
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Names of the columns."""
        across = orientation == Qt.Orientation.Horizontal
        return str(self.frame.columns[section]) if across and role == Qt.ItemDataRole.DisplayRole else None


class _Sorted(QSortFilterProxyModel):
    """Sorts by value; what has none stands last."""

    def lessThan(self, left: QModelIndex, right: QModelIndex) -> bool:
        one, other = (self.sourceModel().data(index, Qt.ItemDataRole.UserRole) for index in (left, right))
        if isinstance(one, float) and isinstance(other, float) and (isnan(one) or isnan(other)):
            first = self.sortOrder() == Qt.SortOrder.AscendingOrder
            return (not isnan(one)) == first and isnan(one) != isnan(other)
        return bool(one < other)


class PlotView(QWidget):
    """One plot at a time, in the viewer's colours."""

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__()
        self.which, self.canvas, scroll = ElidedCombo(), FigureCanvasQTAgg(Figure()), QScrollArea()
        self._viewer = viewer
        self._plots: list[Plot] = []
        # Below that the axes have no room.
        self.canvas.setMinimumSize(*_PLOT)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.which)
        scroll.setWidget(self.canvas)
        scroll.setWidgetResizable(True)
        column.addWidget(scroll, stretch=1)
        self.which.currentIndexChanged.connect(self._draw)
        viewer.events.theme.connect(self._draw)

    def show_plots(self, plots: list[Plot]) -> None:
        """Offer plots; the one that was shown stays where it is there again."""
        before = self.which.currentText()
        self.which.blockSignals(True)
        self._plots = plots
        self.which.clear()
        self.which.addItems([plot.title for plot in plots])
        self.which.setCurrentIndex(max(self.which.findText(before), 0) if plots else -1)
        self.which.setToolTip(self.which.currentText())
        self.which.blockSignals(False)
        self._draw()

    def _draw(self, *_: Any) -> None:
        index = self.which.currentIndex()
        self.setVisible(bool(self._plots))
        if 0 <= index < len(self._plots):
            theme = get_theme(self._viewer.theme)
            draw_plot(self._plots[index], self.canvas.figure, paper=theme.background.as_hex(), ink=theme.text.as_hex())
            self.canvas.draw_idle()


class MetricResults(QWidget):
    """Verdicts, numbers and plots of one explanation. Research use only. Not for diagnosis."""

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__()
        self.title, self.tabs = QLabel(), QTabWidget()
        self.verdicts, self.table, self.plots = QTableWidget(0, 3), QTableView(), PlotView(viewer)
        self.model, self._sorted = FrameModel(), _Sorted()
        self._sorted.setSourceModel(self.model)
        self.table.setModel(self._sorted)
        self.table.setSortingEnabled(True)
        self.table.horizontalHeader().setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        self.table.horizontalHeader().setSectionsMovable(True)
        self.table.verticalHeader().hide()
        self.table.verticalHeader().setDefaultSectionSize(self.fontMetrics().lineSpacing() + _GAP)
        self.table.setWordWrap(False)
        self.table.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.copy_button = QPushButton("Copy table")
        self.copy_button.setToolTip("As columns that a spreadsheet takes.")
        self.copy_button.clicked.connect(self._copy)
        self.verdicts.setHorizontalHeaderLabels(["", "Metric", "What it says"])
        self.verdicts.horizontalHeader().setSectionResizeMode(0, QHeaderView.ResizeMode.ResizeToContents)
        self.verdicts.horizontalHeader().setSectionResizeMode(2, QHeaderView.ResizeMode.Stretch)
        self.verdicts.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.verdicts.verticalHeader().hide()
        self.verdicts.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        for part, name in ((self.verdicts, "Verdicts"), (self.table, "Numbers")):
            self.tabs.addTab(part, name)
        self.tabs.setCornerWidget(self.copy_button)
        beside = QSplitter()
        for part, share in zip((self.tabs, self.plots), _SHARES, strict=True):
            beside.addWidget(part)
            beside.setStretchFactor(beside.count() - 1, share)
        beside.setSizes(list(_SHARES))
        column = QVBoxLayout(self)
        column.addWidget(self.title)
        column.addWidget(beside, stretch=1)

    def sizeHint(self) -> QSize:
        """Room for a whole plot, where the window has it."""
        return QSize(super().sizeHint().width(), _HEIGHT)

    def show_evaluation(self, name: str, evaluation: Evaluation) -> None:
        """Show what was found about an explanation of that name."""
        self.title.setText(f"{name}   <b>{DISCLAIMER}</b>")
        self.model.show_frame(evaluation.frame)
        self._fit_columns()
        self.plots.show_plots([plot for metric in evaluation.outcomes for plot in evaluation.plots(metric)])
        lines = [
            (verdict.good, metric.called, verdict.sentence)
            for metric, outcome in evaluation.outcomes.items()
            for verdict in outcome.verdicts
        ]
        lines += [(None, metric.called, f"Not measured: {reason}") for metric, reason in evaluation.skipped.items()]
        self.verdicts.setRowCount(len(lines))
        for k, (good, metric, sentence) in enumerate(lines):
            mark, colour = _MARKS[good]
            for column, text in enumerate((mark, metric, sentence)):
                item = QTableWidgetItem(text)
                item.setToolTip(sentence)
                if column == 0:
                    item.setForeground(QColor(colour))
                self.verdicts.setItem(k, column, item)

    def _fit_columns(self) -> None:
        """As wide as what they hold, up to a limit; the user can change that, and elided texts have tool tips."""
        letter = self.fontMetrics().averageCharWidth()
        for k in range(self.model.columnCount()):
            # Hidden ones have no width.
            self.table.setColumnHidden(k, False)
        self.table.resizeColumnsToContents()
        for k, name in enumerate(self.model.frame):
            self.table.setColumnWidth(k, min(self.table.columnWidth(k), _LETTERS * letter))
            # Copied, they are there.
            self.table.setColumnHidden(k, bool((self.model.frame[name] == "").all()))
        # The metric tells the family.
        header, first = self.table.horizontalHeader(), list(self.model.frame).index("family")
        header.moveSection(header.visualIndex(first), header.count() - 1)
        self.verdicts.setColumnWidth(1, _LETTERS * letter)

    def _copy(self) -> None:
        QApplication.clipboard().setText(self.model.frame.to_csv(sep="\t", index=False))
