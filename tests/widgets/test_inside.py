from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt
from viewers import Open, finish, last_sentence

from napari_xai_med import feature_maps
from napari_xai_med.inside import by_strength
from napari_xai_med.layers import LayerView
from napari_xai_med.samples import sample_files


def click(qtbot: Any, widget: Any, place: int, key: Any = Qt.KeyboardModifier.NoModifier) -> None:
    thumbnails = widget.thumbnails
    thumbnails.scrollToItem(thumbnails.item(place))
    where = thumbnails.visualItemRect(thumbnails.item(place)).center()
    qtbot.mouseClick(thumbnails.viewport(), Qt.MouseButton.LeftButton, key, where)


def test_thumbnails_come_sorted_and_a_click_adds_the_channel_on_the_image(inside: Open, qtbot: Any) -> None:
    viewer, widget = inside("chest_ct_lesion")
    assert not widget.all_button.isEnabled()
    widget.maps_button.click()
    assert not widget.maps_button.isEnabled()
    finish(qtbot, widget)
    maps = feature_maps(sample_files("chest_ct_lesion")[0], "chest_ct_3d")
    assert widget.thumbnails.channels() == by_strength(maps)
    assert widget.layer.currentData() == "features.3.conv"
    before = len(viewer.layers)
    click(qtbot, widget, 1)
    layer, source = viewer.layers[-1], viewer.layers["chest_ct_lesion"]
    channel = by_strength(maps)[1]
    assert layer.name == f"{maps.name}, channel {channel}"
    assert np.sort(layer.data.ravel()) == pytest.approx(np.sort(maps.data[channel].ravel()), rel=1e-5)
    peaks = [np.unravel_index(values.argmax(), values.shape) for values in (layer.data, maps.data[channel])]
    there = source.world_to_data(layer.data_to_world(peaks[0]))
    grid = LayerView(source, "ZYX").grid(source.data.shape)
    np.testing.assert_allclose(grid.to_world(there), maps.grid.to_world(peaks[1]), atol=1e-3)
    click(qtbot, widget, 1)
    assert len(viewer.layers) == before + 1, "it is there already"
    assert [widget.image.itemText(k) for k in range(widget.image.count())] == ["chest_ct_lesion"]


def test_several_channels_and_all_in_one_layer(inside: Open, qtbot: Any) -> None:
    viewer, widget = inside("slice_nodule", "chest_ct_2d")
    widget.maps_button.click()
    finish(qtbot, widget)
    click(qtbot, widget, 0)
    click(qtbot, widget, 2, Qt.KeyboardModifier.ControlModifier)
    before = len(viewer.layers)
    widget.selected_button.click()
    assert len(viewer.layers) == before + 1, "the first is there already"
    widget.all_button.click()
    stack = viewer.layers[-1]
    assert stack.data.shape[0] == len(widget.thumbnails.channels())
    assert viewer.dims.ndim == 3
    viewer.dims.set_current_step(0, 5)
    assert viewer.dims.point[0] == 5
    np.testing.assert_array_equal(stack._slice.image.raw, stack.data[5])


def test_another_layer_is_shown_when_it_is_chosen(inside: Open, qtbot: Any) -> None:
    _, widget = inside("chest_ct_lesion")
    widget.maps_button.click()
    finish(qtbot, widget)
    index = widget.layer.findData("features.0")
    widget.layer.setCurrentIndex(index)
    widget.layer.activated.emit(index)
    finish(qtbot, widget)
    assert widget.layer.currentData() == "features.0"
    assert len(widget.thumbnails.channels()) == 16
    widget.classifier.choose("chest_ct_2d")
    widget.classifier.changed.emit()
    assert widget.thumbnails.channels() == []
    assert widget.layer.count() == 1


def test_a_2d_network_looks_at_the_slice_on_screen(inside: Open, qtbot: Any) -> None:
    viewer, widget = inside("chest_ct_lesion", "chest_ct_2d")
    source = viewer.layers["chest_ct_lesion"]
    viewer.dims.set_current_step(0, 13)
    widget.maps_button.click()
    finish(qtbot, widget)
    widget.all_button.click()
    layer = viewer.layers[-1]
    assert layer.data.shape[1] == 1
    there = layer.data_to_world((0, 0, 0, 0))[1]
    assert there == pytest.approx(source.data_to_world((13, 0, 0))[0])
    # The same channel of another slice is another layer, though it has the same name.
    channel = widget.thumbnails.channels()[0]
    for index in (13, 20):
        viewer.dims.set_point(viewer.dims.ndim - 3, source.data_to_world((index, 0, 0))[0])
        widget.maps_button.click()
        finish(qtbot, widget)
        widget.add_channels([channel])
        assert viewer.layers[-1].data_to_world((0, 0, 0))[0] == pytest.approx(source.data_to_world((index, 0, 0))[0])


def test_without_an_image_and_when_stopped_there_is_one_sentence(inside: Open, qtbot: Any) -> None:
    viewer, widget = inside()
    notification_manager.records.clear()
    widget.maps_button.click()
    assert "Open an image first" in last_sentence().message
    viewer.open_sample("napari-xai-med", "chest_ct_lesion")
    before = list(viewer.layers)
    widget.maps_button.click()
    widget.cancel_button.click()
    finish(qtbot, widget)
    assert "Stopped" in last_sentence().message
    assert list(viewer.layers) == before
    assert widget.thumbnails.channels() == []


@pytest.mark.parametrize("sample", ["slice_nodule", ""])
def test_a_drawing_is_added_with_a_sentence_that_it_is_no_patient(inside: Open, qtbot: Any, sample: str) -> None:
    viewer, widget = inside(sample, "chest_ct_2d")
    widget.classifier.changed.emit()
    widget.target.setCurrentText("nodule")
    widget.options.set_value("steps", 5)
    widget.draw_button.click()
    finish(qtbot, widget)
    layer = viewer.layers[-1]
    assert layer.name.endswith("drawing of nodule")
    assert "nodule, and no patient" in widget.drawn.text()
    assert widget.drawn.isVisible()
    assert widget.image.count() == bool(sample), "it is not offered as an image"
    if sample:
        np.testing.assert_allclose(
            layer.data_to_world((0, 0)), viewer.layers[sample].data_to_world((0, 0)), atol=2 * max(layer.scale)
        )
