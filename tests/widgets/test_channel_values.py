from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from napari.utils.notifications import notification_manager
from napari.utils.theme import get_theme
from test_channel_values import bundle, image_of
from viewers import Open, finish, last_sentence

from napari_xai_med import Image, channel_contributions

NAMES = ("T1", "T2", "FLAIR")


@pytest.fixture
def shown(channels: Open, tmp_path: Path) -> tuple[Any, Any]:
    """Three layers as the channels of one image, and a network of three channels."""
    bundle(tmp_path)
    viewer, widget = channels("", str(tmp_path / "bundle"))
    widget.classifier.changed.emit()
    for name, channel in zip(NAMES, image_of(3), strict=True):
        viewer.add_image(channel, name=name)
    widget.image.choose(viewer.layers[0])
    for layer in viewer.layers[1:]:
        widget.inputs.channels.add().choose(layer)
    return viewer, widget


def test_bars_are_the_values_in_the_viewer_s_colours(shown: tuple[Any, Any], qtbot: Any, tmp_path: Path) -> None:
    viewer, widget = shown
    widget.show_button.click()
    finish(qtbot, widget)
    expected = channel_contributions(Image.from_array(image_of(3), channel_axis=0), tmp_path / "bundle", names=NAMES)
    assert widget.bars.isVisible()
    for ax, values in zip(widget.bars.figure.axes, expected.values, strict=True):
        assert [bar.get_width() for bar in ax.patches] == pytest.approx(values.tolist(), abs=1e-5)
        assert ax.get_title().startswith(expected.classes[widget.bars.figure.axes.index(ax)])
    assert [label.get_text() for label in widget.bars.figure.axes[0].get_yticklabels()] == list(NAMES)
    for theme in ("light", "dark"):
        viewer.theme = theme
        paper = get_theme(theme).background.as_hex("long")
        assert to_hex(widget.bars.figure.get_facecolor()) == paper
    widget.save(str(tmp_path / "out"))
    finish(qtbot, widget)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "T1_channels.csv"), expected.table(), atol=1e-6)
    record = json.loads((tmp_path / "out" / "T1_channels.json").read_text())
    assert record["method"]["channels"] == list(NAMES)
    assert (tmp_path / "out" / "T1_channels.png").stat().st_size > 10_000


def test_one_class_rather_than_another_and_another_baseline(shown: tuple[Any, Any], qtbot: Any, tmp_path: Path) -> None:
    _, widget = shown
    widget.target.setCurrentText("b")
    widget.against.setCurrentText("a")
    widget.options.set_value("baseline", "mean")
    widget.show_button.click()
    finish(qtbot, widget)
    image = Image.from_array(image_of(3), channel_axis=0)
    expected = channel_contributions(image, tmp_path / "bundle", targets=["b"], against="a", baseline="mean")
    (ax,) = widget.bars.figure.axes
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], expected.values[0], atol=1e-5)
    assert "b rather than a" in ax.get_title()
    widget.inputs.channels.add()
    assert not widget.bars.isVisible()
    assert not widget.save_button.isEnabled()


def test_what_is_missing_is_one_sentence(channels: Open, qtbot: Any) -> None:
    viewer, widget = channels("", "chest_ct_3d")
    notification_manager.records.clear()
    widget.show_button.click()
    assert "Open an image first" in last_sentence().message
    viewer.open_sample("napari-xai-med", "chest_ct_lesion")
    widget.show_button.click()
    finish(qtbot, widget)
    assert "gets a single channel" in widget.progress_text.text()
    assert not widget.bars.isVisible()


def test_stopping_shows_nothing(shown: tuple[Any, Any], qtbot: Any) -> None:
    """While the classifier is still being loaded."""
    _, widget = shown
    widget.show_button.click()
    widget.cancel_button.click()
    finish(qtbot, widget)
    assert "Stopped" in last_sentence().message
    assert not widget.bars.isVisible()
