from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from viewers import Open


def opening(title: str) -> Any:
    """A fixture: a viewer with a widget opened as a user opens it, and a sample if one is named."""

    @pytest.fixture
    def opened(make_napari_viewer: Any, qtbot: Any) -> Iterator[Open]:
        widgets: list[Any] = []

        def build(sample: str = "", model: str = "chest_ct_3d") -> tuple[Any, Any]:
            viewer = make_napari_viewer(show=True)
            if sample:
                viewer.open_sample("napari-xai-med", sample)
            _, widget = viewer.window.add_plugin_dock_widget("napari-xai-med", title)
            widget.classifier.choose(model)
            widgets.append(widget)
            return viewer, widget

        yield build
        for widget in widgets:
            widget.task.cancel()
            qtbot.waitUntil(lambda w=widget: not w.task.running, timeout=60_000)

    return opened


opened = opening("Explain a classifier")
inside = opening("Look inside a network")
slices = opening("Slices of a volume")
channels = opening("Contributions of channels")
