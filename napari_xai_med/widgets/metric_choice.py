"""Choosing metrics, each with its options."""

from __future__ import annotations

import re
from typing import Any

from napari.utils.notifications import show_warning
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHeaderView, QLabel, QTreeWidget, QTreeWidgetItem, QVBoxLayout, QWidget

from napari_xai_med.errors import InputError
from napari_xai_med.metrics.base import Family, Metric, make_metric, metrics
from napari_xai_med.widgets.layer_checks import BOXES
from napari_xai_med.widgets.options import OptionsForm

_ROWS = 12
_ROLE = Qt.ItemDataRole.UserRole


class MetricChoice(QWidget):
    """All metrics by family, to be checked; the options of the one that is clicked on are below."""

    def __init__(self) -> None:
        super().__init__()
        self.tree, self.about, self.options = QTreeWidget(), QLabel(), OptionsForm()
        self.about.setWordWrap(True)
        self._items: dict[str, QTreeWidgetItem] = {}
        self._values: dict[str, dict[str, Any]] = {}
        self._current: type[Metric] | None = None
        self.tree.setHeaderHidden(True)
        self.tree.header().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.tree.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.tree.setStyleSheet(BOXES)
        self._fill()
        self.tree.setFixedHeight(_ROWS * self.tree.sizeHintForRow(0) + 2 * self.tree.frameWidth())
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (self.tree, self.about, self.options):
            column.addWidget(part)
        self.tree.currentItemChanged.connect(self._show)

    def _fill(self) -> None:
        for family in Family:
            kinds = [kind for kind in metrics().values() if kind.family is family]
            if not kinds:
                continue
            top = QTreeWidgetItem(self.tree, [family.capitalize()])
            top.setFlags(top.flags() | Qt.ItemFlag.ItemIsAutoTristate | Qt.ItemFlag.ItemIsUserCheckable)
            for kind in kinds:
                item = QTreeWidgetItem(top, [kind.title])
                item.setData(0, _ROLE, kind.name)
                item.setToolTip(0, f"{kind.title}: {kind.about}")
                item.setCheckState(0, Qt.CheckState.Unchecked)
                self._items[kind.name] = item
            top.setExpanded(True)

    def choose(self, *names: str) -> None:
        """Check these metrics and no others."""
        for name, item in self._items.items():
            item.setCheckState(0, Qt.CheckState.Checked if name in names else Qt.CheckState.Unchecked)

    def show_metric(self, name: str) -> None:
        """Show the options of a metric."""
        self.tree.setCurrentItem(self._items[name])

    def chosen(self) -> list[Metric]:
        """The checked metrics with their options.

        Raises
        ------
        InputError
            If an option can't be what it is.
        """
        self._keep()
        names = [name for name, item in self._items.items() if item.checkState(0) == Qt.CheckState.Checked]
        return [make_metric(name, self._values.get(name, {})) for name in names]

    def _keep(self) -> None:
        """Keep the options on screen."""
        if self._current is not None:
            self._values[self._current.name] = self.options.values()

    def _show(self, item: QTreeWidgetItem | None, *_: object) -> None:
        try:
            self._keep()
        except InputError as error:
            # What was there before counts.
            show_warning(str(error))
        name = None if item is None else item.data(0, _ROLE)
        self._current = None if name is None else metrics()[name]
        self.options.setVisible(self._current is not None)
        self.about.setText("" if self._current is None else _told(self._current))
        if self._current is not None:
            self.options.show_options(self._current, self._values.get(self._current.name, {}))


def _told(kind: type[Metric]) -> str:
    needs = f" Needs {' and '.join(sorted(kind.needs))}." if kind.needs else ""
    # Without the links that the documentation makes of papers.
    paper = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", kind.paper)
    return f"{kind.about}{needs}" + (f" {paper}." if paper else "")
