"""What the dock widgets share: a column of controls that scrolls, above it that nothing is a diagnosis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import napari
from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QLayout, QScrollArea, QVBoxLayout, QWidget

from napari_xai_med.attribution import DISCLAIMER
from napari_xai_med.widgets.task import Task


class ControlsWidget(QWidget):
    """A dock widget with a column of controls and one task.

    Attributes
    ----------
    viewer : napari.Viewer
    task : Task
    """

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self.task = Task(self)
        self._scroll = QScrollArea()

    def _show_column(self, *parts: QWidget | QLayout, below: Sequence[QWidget | QLayout]) -> None:
        """Lay parts out in a column that scrolls, and below it what is always in sight: what begins and ends work."""
        content = QWidget()
        column = QVBoxLayout(content)
        column.addWidget(QLabel(f"<b>{DISCLAIMER}</b>"))
        _add(column, parts)
        column.addStretch()
        self._scroll.setWidget(content)
        self._scroll.setWidgetResizable(True)
        content.installEventFilter(self)
        # The dock is made as wide as the controls; there is nothing to scroll to the side.
        self._scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(self._scroll)
        foot = QVBoxLayout()
        margins = column.contentsMargins()
        foot.setContentsMargins(margins.left(), 0, margins.right(), margins.bottom())
        _add(foot, below)
        outer.addLayout(foot)

    def stop_work(self) -> None:
        """Ask whatever goes on to stop."""
        self.task.cancel()

    def open_beside(self, title: str) -> QWidget:
        """Open another widget of this plugin, or come back to it, as a tab beside this one."""
        dock, widget = self.viewer.window.add_plugin_dock_widget("napari-xai-med", title, tabify=True)
        dock.show()
        dock.raise_()
        return widget

    def showEvent(self, event: Any) -> None:
        """Make room for all controls; only now is napari's style known, which makes them wider."""
        super().showEvent(event)
        self._make_room()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Make room for controls that come into sight."""
        if watched is self._scroll.widget() and event.type() == QEvent.Type.LayoutRequest:
            self._make_room()
        return bool(super().eventFilter(watched, event))

    def _make_room(self) -> None:
        bar = self._scroll.verticalScrollBar().sizeHint().width()
        self.setMinimumWidth(self._scroll.widget().minimumSizeHint().width() + bar)

    def changeEvent(self, event: Any) -> None:
        """Stop the work when napari takes the widget out of its dock, which is what the dock's X does."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.stop_work()

    def closeEvent(self, event: Any) -> None:
        """Stop the work when the widget goes."""
        self.stop_work()
        super().closeEvent(event)


def _add(column: QVBoxLayout, parts: Sequence[QWidget | QLayout]) -> None:
    for part in parts:
        column.addWidget(part) if isinstance(part, QWidget) else column.addLayout(part)


def row(*widgets: QWidget) -> QHBoxLayout:
    """Widgets side by side."""
    line = QHBoxLayout()
    for widget in widgets:
        line.addWidget(widget)
    return line
