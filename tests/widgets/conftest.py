from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from viewers import Open

from napari_xai_med.widgets.explain import ExplainWidget


@pytest.fixture
def opened(make_napari_viewer: Any, qtbot: Any) -> Iterator[Open]:
    """A viewer with the widget opened as a user opens it; a sample if one is named."""
    widgets: list[ExplainWidget] = []

    def build(sample: str = "", model: str = "chest_ct_3d") -> tuple[Any, ExplainWidget]:
        viewer = make_napari_viewer(show=True)
        if sample:
            viewer.open_sample("napari-xai-med", sample)
        _, widget = viewer.window.add_plugin_dock_widget("napari-xai-med", "Explain a classifier")
        widget.classifier.choose(model)
        widgets.append(widget)
        return viewer, widget

    yield build
    for widget in widgets:
        widget.task.cancel()
        qtbot.waitUntil(lambda w=widget: not w.task.running, timeout=60_000)
