"""What begins and ends work is in sight however long the form above it is."""

from __future__ import annotations

from typing import Any

import pytest

BUTTONS = {
    "Explain a classifier": ("explain_button", "cancel_button", "live_box"),
    "Slices of a volume": ("choose_button", "explain_button", "cancel_button"),
    "Contributions of channels": ("show_button", "cancel_button"),
    "Check an explanation": ("check_button", "cancel_button"),
    "Look inside a network": ("cancel_button",),
    "Pack a classifier": ("pack_button", "cancel_button", "explain_button"),
}


@pytest.mark.parametrize("title", BUTTONS)
def test_the_buttons_are_in_sight_in_a_small_window(title: str, make_napari_viewer: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer(show=True)
    _, widget = viewer.window.add_plugin_dock_widget("napari-xai-med", title)
    viewer.window.resize(900, 600)
    if hasattr(widget, "question"):
        # Its form is longer than the window.
        widget.method.setCurrentIndex(widget.method.findData("shapley"))
    qtbot.waitUntil(lambda: viewer.window._qt_window.height() <= 700)
    for name in BUTTONS[title]:
        button = getattr(widget, name)
        qtbot.waitUntil(lambda b=button: b.visibleRegion().boundingRect().height() == b.height())
