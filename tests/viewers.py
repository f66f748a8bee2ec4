"""What the tests of widgets share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari.utils.notifications import Notification, notification_manager
from qtpy.QtWidgets import QDockWidget

Open = Callable[..., tuple[Any, Any]]


def finish(qtbot: Any, widget: Any) -> None:
    """Wait until the widget's work is done."""
    qtbot.waitUntil(lambda: not widget.task.running, timeout=120_000)


def last_sentence() -> Notification:
    """What the user was told last."""
    return notification_manager.records[-1]


def dock_of(viewer: Any, widget: Any) -> Any:
    """The dock that a widget lies in."""
    return next(dock for dock in viewer.window._qt_window.findChildren(QDockWidget) if dock.isAncestorOf(widget))
