"""What is on screen is explained as the slider moves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from viewers import Open, dock_of, finish

from napari_xai_med import load_model
from napari_xai_med.explanation import explain_request
from napari_xai_med.job import Job
from napari_xai_med.layers import METADATA_KEY
from napari_xai_med.request import ExplainRequest
from napari_xai_med.segments.best import Best
from napari_xai_med.segments.choice import SegmentChoice
from napari_xai_med.widgets.recent import Recent


class Screen:
    """A viewer with a widget whose live mode is on, and what it showed."""

    def __init__(self, viewer: Any, widget: Any, qtbot: Any) -> None:
        self.viewer, self.widget, self.qtbot = viewer, widget, qtbot
        self.shown: list[tuple[Any, bool]] = []
        widget.live.shown.connect(lambda found, final: self.shown.append((found[0], final)))

    def settle(self) -> None:
        """Wait until the next result is there."""
        self.qtbot.waitUntil(lambda: bool(self.shown) and self.shown[-1][1], timeout=60_000)

    def go(self, index: int) -> None:
        """Move the slider and wait."""
        self.shown.clear()
        self.viewer.dims.set_current_step(0, index)
        self.settle()

    @property
    def layer(self) -> Any:
        """The live heatmap."""
        (layer,) = self.widget.live.series.layers
        return layer

    def expected(self, **asked: Any) -> str:
        """Hash of the map that a script gets."""
        widget = self.widget
        image = widget.inputs.chosen().image()
        segments = SegmentChoice("slic", widget.question.segments.options.values())
        request = ExplainRequest(widget.method.currentData(), widget.options.values(), segments=segments, **asked)
        found = explain_request(image, load_model(widget.classifier.source()), request, Job())
        return str(found.record.result["sha256"])

    @property
    def record(self) -> Any:
        """That of the live heatmap."""
        return self.layer.metadata[METADATA_KEY]["record"]


@pytest.fixture
def live(opened: Open, qtbot: Any) -> Iterator[Any]:
    widgets: list[Any] = []

    def build(number: int = 20, model: str = "chest_ct_2d") -> Screen:
        viewer, widget = opened("chest_ct_lesion", model)
        widgets.append(widget)
        viewer.dims.set_current_step(0, 24)
        widget.image.choose(viewer.layers["chest_ct_lesion"])
        widget.method.setCurrentIndex(widget.method.findData("segment_occlusion"))
        widget.question.segments.options.set_value("number", number)
        screen = Screen(viewer, widget, qtbot)
        widget.live_box.setChecked(True)
        return screen

    yield build
    for widget in widgets:
        widget.live_box.setChecked(False)
        qtbot.waitUntil(lambda w=widget: not w.live.task.running, timeout=60_000)


def test_one_layer_goes_along_with_the_slider_and_coming_back_takes_no_time(live: Any) -> None:
    screen = live()
    screen.settle()
    viewer, widget = screen.viewer, screen.widget
    source, layers, first = viewer.layers["chest_ct_lesion"], list(viewer.layers), screen.layer
    values = {24: screen.layer.data.copy()}
    for index in (20, 13):
        screen.go(index)
        assert screen.layer is first
        assert list(viewer.layers) == layers
        for layer in viewer.layers[-2:]:
            np.testing.assert_allclose(layer.data_to_world((0, 3, 4)), source.data_to_world((index, 3, 4)))
        assert screen.record["request"]["slice"] == index
        assert screen.record["result"]["sha256"] == screen.expected(slice=index)
        assert screen.layer.contrast_limits[1] == np.abs(screen.layer.data).max()
        table = viewer.layers[-1].features["contribution"].to_numpy()
        assert set(table[1:].astype(np.float32)) >= set(np.unique(screen.layer.data[screen.layer.data != 0]))
        values[index] = screen.layer.data.copy()
    assert widget.bars.isVisible()
    # The result comes a moment before the thread ends.
    screen.qtbot.waitUntil(lambda: not widget.live.task.running)
    for index in (24, 20):
        viewer.dims.set_current_step(0, index)
        # At once: no event has been handled since.
        np.testing.assert_array_equal(screen.layer.data, values[index])
        assert not widget.live.task.running
    widget.live_box.setChecked(False)
    viewer.dims.set_current_step(0, 5)
    assert screen.record["request"]["slice"] == 20, "the layer stays, and goes along no more"


def test_only_where_the_slider_rests_is_explained(live: Any) -> None:
    screen = live(number=1000)
    screen.qtbot.waitUntil(lambda: bool(screen.shown), timeout=60_000)
    assert not screen.shown[0][1], "an estimate comes first"
    notification_manager.records.clear()
    for index in (23, 22, 21):
        screen.viewer.dims.set_current_step(0, index)
    screen.widget.question.segments.options.set_value("number", 20)
    screen.shown.clear()
    screen.settle()
    assert {shown.asked.request.slice for shown, _ in screen.shown} == {21}
    assert screen.record["result"]["sha256"] == screen.expected(slice=21)
    assert not notification_manager.records, "what is cut short is nothing to be told of"


def test_the_plane_follows_the_axes_on_screen(live: Any) -> None:
    screen = live()
    screen.settle()
    screen.shown.clear()
    screen.viewer.dims.order = (1, 0, 2)
    screen.settle()
    assert screen.record["request"]["plane"] == "coronal"
    axis = screen.layer.data.shape.index(1)
    assert axis == 1


def test_the_class_under_the_cursor_is_explained(live: Any) -> None:
    screen = live()
    screen.settle()
    bars, qtbot = screen.widget.bars, screen.qtbot
    before = screen.record["result"]["class"]
    names = [name for name, _ in bars.rows()]
    for row in (1, 2, 0):
        place = bars.visualRect(bars.model().index(row, 1)).center()
        qtbot.mouseMove(bars.viewport(), place)
        qtbot.waitUntil(lambda k=row: screen.record["result"]["class"] == names[k], timeout=60_000)
        assert names[row] in screen.layer.name
        assert screen.record["result"]["sha256"] == screen.expected(slice=24, target=names[row])
    bars.hovered.emit(None)
    assert screen.record["result"]["class"] == before
    assert screen.widget.target.currentData() is None


def test_a_slider_does_not_matter_to_a_classifier_of_volumes(live: Any, qtbot: Any) -> None:
    screen = live(number=5, model="chest_ct_3d")
    screen.settle()
    screen.shown.clear()
    screen.viewer.dims.set_current_step(0, 3)
    qtbot.wait(400)
    assert not screen.shown
    assert not screen.widget.live.task.running
    screen.widget.target.setCurrentIndex(1)
    screen.settle()
    assert screen.record["result"]["class"] == "normal"


def test_other_methods_and_options_are_followed_and_segments_come_and_go(live: Any) -> None:
    screen = live()
    screen.settle()
    count = len(screen.viewer.layers)
    screen.shown.clear()
    screen.widget.method.setCurrentIndex(screen.widget.method.findData("gradcam"))
    screen.settle()
    assert len(screen.viewer.layers) == count - 1
    assert screen.layer.name == "chest_ct_lesion: Grad-CAM, normal (live)"
    assert screen.layer.contrast_limits[0] == 0
    assert screen.layer.colormap.name.startswith("turbo")
    screen.shown.clear()
    screen.widget.method.setCurrentIndex(screen.widget.method.findData("segment_occlusion"))
    screen.settle()
    assert len(screen.viewer.layers) == count
    assert screen.layer.colormap.name.startswith("red-green")


def test_each_class_has_a_layer_until_one_is_asked_for_again(live: Any) -> None:
    screen = live()
    screen.settle()
    count, target = len(screen.viewer.layers), screen.widget.target
    screen.shown.clear()
    target.setCurrentIndex(target.count() - 1)
    screen.settle()
    assert len(screen.widget.live.series.layers) == 3
    assert len(screen.viewer.layers) == count + 4
    target.setCurrentIndex(0)
    assert len(screen.viewer.layers) == count


def test_drawing_in_the_mask_explains_anew(live: Any) -> None:
    screen = live()
    screen.settle()
    viewer, form = screen.viewer, screen.widget.question.segments
    viewer.layers.selection = {viewer.layers["chest_ct_lesion"]}
    viewer._new_labels()
    drawn = viewer.layers[-1]
    drawn.data[24, 20:60, 20:60] = 1
    screen.shown.clear()
    form.mask.setCurrentIndex(form.mask.findData(drawn))
    screen.settle()
    before = (viewer.layers[-2].data > 0).sum()
    screen.shown.clear()
    drawn.data_setitem(tuple(np.array([(24, y, 65) for y in range(20, 60)]).T), 1)
    screen.settle()
    segments = next(layer for layer in viewer.layers if layer.name.endswith("segments"))
    np.testing.assert_array_equal(segments.data[0] > 0, drawn.data[24] > 0)
    assert (segments.data > 0).sum() > before


def test_what_is_wrong_stands_in_the_dock_and_is_no_notification(live: Any, qtbot: Any) -> None:
    screen = live()
    screen.settle()
    viewer, widget = screen.viewer, screen.widget
    viewer.layers.selection = {viewer.layers["chest_ct_lesion"]}
    viewer._new_labels()
    notification_manager.records.clear()
    form = widget.question.segments
    form.mask.setCurrentIndex(form.mask.findData(viewer.layers[-1]))
    qtbot.waitUntil(lambda: "The mask is empty" in widget.progress_text.text(), timeout=60_000)
    form.mask.setCurrentIndex(0)
    screen.go(20)
    assert widget.progress_text.text().startswith("Live: ")
    assert not notification_manager.records


def test_explain_has_its_turn_and_live_goes_on_after_it(live: Any, qtbot: Any) -> None:
    screen = live(number=300)
    screen.qtbot.waitUntil(lambda: screen.widget.live.task.running, timeout=60_000)
    screen.widget.explain_button.click()
    assert not screen.shown or not screen.shown[-1][1]
    finish(qtbot, screen.widget)
    screen.settle()
    records = [layer.metadata[METADATA_KEY]["record"]["result"]["sha256"] for layer in screen.widget.heatmaps.results]
    assert len(records) == 2
    assert len(set(records)) == 1


def test_closing_the_dock_ends_it(live: Any, qtbot: Any) -> None:
    screen = live(number=2000)
    qtbot.waitUntil(lambda: screen.widget.live.task.running, timeout=60_000)
    dock_of(screen.viewer, screen.widget).titleBarWidget().close_button.click()
    qtbot.waitUntil(lambda: not screen.widget.live.task.running, timeout=60_000)
    assert not screen.widget.live.on
    screen.viewer.dims.set_current_step(0, 3)
    qtbot.wait(300)
    assert not screen.widget.live.task.running


def test_what_was_not_used_for_longest_is_forgotten() -> None:
    kept: Recent[str] = Recent(3, 100)
    for name in "abc":
        kept.put(name, name, 10)
    assert kept.get("a") == "a"
    kept.put("d", "d", 10)
    assert [kept.get(name) for name in "abcd"] == ["a", None, "c", "d"]
    kept.put("e", "e", 95)
    assert [kept.get(name) for name in "acde"] == [None, None, None, "e"]
    kept.put("f", "f", 1000)
    assert (kept.get("f"), len(kept)) == ("f", 1)
    kept.clear()
    assert len(kept) == 0


def test_the_best_segments_go_along_unless_the_explanation_is_made_of_them(live: Any) -> None:
    screen = live()
    screen.settle()
    widget, viewer = screen.widget, screen.viewer
    widget.heatmap.best.count.setValue(3)
    widget.heatmap.best.mask_button.click()
    best = viewer.layers[-1]
    screen.go(13)
    expected = screen.layer.metadata[METADATA_KEY]["segments"].best(3, Best.LARGEST)
    np.testing.assert_array_equal(best.data, expected)
    np.testing.assert_allclose(best.data_to_world((0, 3, 4)), screen.layer.data_to_world((0, 3, 4)))
    assert best.name == f"{screen.layer.name}, best 3"
    mask = widget.question.segments.mask
    screen.shown.clear()
    mask.setCurrentIndex(mask.findData(best))
    screen.settle()
    np.testing.assert_array_equal(best.data, expected)
    assert sum(final for _, final in screen.shown) == 1, "it explains once, and not again and again"
    screen.shown.clear()
    mask.setCurrentIndex(0)
    screen.settle()
    screen.shown.clear()
    widget.method.setCurrentIndex(widget.method.findData("gradcam"))
    screen.settle()
    assert best not in viewer.layers
