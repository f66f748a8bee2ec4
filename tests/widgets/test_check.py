from __future__ import annotations

import gc
import json
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import napari
import numpy as np
import pandas as pd
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage
from qtpy.QtWidgets import QApplication, QHeaderView, QLineEdit
from viewers import Open, dock_of, finish, last_sentence

from napari_xai_med import evaluate
from napari_xai_med.attribution import DISCLAIMER
from napari_xai_med.channels import stack_channels
from napari_xai_med.io.evaluation import evaluation_record
from napari_xai_med.layers import LayerView
from napari_xai_med.layers_segments import transform_of
from napari_xai_med.samples import sample_files
from napari_xai_med.widgets.results import add_heatmap

MASK = "chest_ct_lesion_mask"


@pytest.fixture
def shown(opened: Open, qtbot: Any) -> Any:
    """A viewer with a sample, its heatmap by a classifier, and the widget opened from there as a user does."""

    def build(sample: str = "chest_ct_lesion", model: str = "chest_ct_3d") -> tuple[Any, Any, Any]:
        viewer, widget = opened(sample, model)
        widget.explain(viewer.layers[sample], model)
        finish(qtbot, widget)
        widget.check_button.click()
        check = viewer.window.dock_widgets["Check an explanation (napari-xai-med)"]
        return viewer, widget, check

    return build


def numbers(check: Any) -> pd.DataFrame:
    """The table as it is shown."""
    model = check.results.table.model()
    columns = [model.headerData(k, Qt.Orientation.Horizontal) for k in range(model.columnCount())]
    rows = [[model.index(i, k).data() for k in range(len(columns))] for i in range(model.rowCount())]
    return pd.DataFrame(rows, columns=columns)


@pytest.mark.parametrize(("sample", "model"), [("chest_ct_lesion", "chest_ct_3d"), ("slice_nodule", "chest_ct_2d")])
def test_the_panel_says_what_a_script_says(shown: Any, qtbot: Any, sample: str, model: str, tmp_path: Path) -> None:
    viewer, widget, check = shown(sample, model)
    assert check.inputs.image.layer() == viewer.layers[sample]
    assert check.classifier.source() == model
    check.masks.choose([viewer.layers[f"{sample}_mask"]])
    check.check_button.click()
    finish(qtbot, check)
    judged = check._judged
    assert not judged.evaluation.skipped
    frame = judged.evaluation.frame
    attribution = widget.heatmaps.results[widget.heatmap.layer].attribution
    image, mask = sample_files(sample)
    chosen = list(judged.evaluation.outcomes)
    expected = evaluate(attribution, mask={f"{sample}_mask": mask}, image=image, classifier=model, metrics=chosen)
    pd.testing.assert_frame_equal(frame, expected)
    assert len(numbers(check)) == len(frame)
    verdicts = check.results.verdicts
    told = [verdicts.item(k, 2).text() for k in range(verdicts.rowCount())]
    assert told == [each.sentence for outcome in judged.evaluation.outcomes.values() for each in outcome.verdicts]
    assert {each.family for each in chosen} >= {"overlap"}
    assert DISCLAIMER in check.results.title.text()
    check.save(str(tmp_path))
    finish(qtbot, check)
    (table,) = tmp_path.glob("*_metrics.csv")
    pd.testing.assert_frame_equal(
        pd.read_csv(table, keep_default_na=False, na_values=["nan", ""])[["score", "value"]], frame[["score", "value"]]
    )
    record = json.loads(table.with_suffix(".json").read_text())
    assert [each["metric"] for each in record["metrics"]] == [each.name for each in chosen]
    assert record["map"]["sha256"] == attribution.record.result["sha256"]
    assert record["disclaimer"] == DISCLAIMER


def test_the_table_sorts_by_value_and_can_be_copied(shown: Any, qtbot: Any) -> None:
    viewer, _, check = shown()
    check.masks.choose([viewer.layers[MASK]])
    check.metrics.choose("binary_overlap", "peak")
    check.measure_button.click()
    finish(qtbot, check)
    column = list(check.results.model.frame).index("value")
    for order, sign in ((Qt.SortOrder.AscendingOrder, 1), (Qt.SortOrder.DescendingOrder, -1)):
        check.results.table.sortByColumn(column, order)
        values = [float(text) for text in numbers(check)["value"] if text]
        assert values == sorted(values, key=lambda value: sign * value)
    check.results.copy_button.click()
    copied = QApplication.clipboard().text().splitlines()
    assert copied[0].split("\t") == list(check.results.model.frame)
    assert len(copied) == len(check.results.model.frame) + 1


def test_all_can_be_read_in_a_window_of_1000_pixels(shown: Any, qtbot: Any) -> None:
    viewer, _, check = shown()
    viewer.window.resize(1000, 800)
    layer = viewer.layers[MASK]
    layer.name = f"the mask that an expert drew of {MASK} on another day"
    check.masks.fill()
    check.masks.choose([layer])
    check.second_box.setChecked(True)
    check.second_box.setChecked(False)
    check.metrics.choose("binary_overlap", "threshold_curve")
    check.measure_button.click()
    finish(qtbot, check)
    check.results.tabs.setCurrentWidget(check.results.table)
    qtbot.waitUntil(check.results.table.isVisible, timeout=10_000)
    assert viewer.window._qt_window.width() == 1000
    assert check.minimumWidth() < 1000 / 3
    title = check.second_box.fontMetrics().horizontalAdvance(check.second_box.title())
    assert title < check.minimumWidth() - 50
    # Names of heatmaps begin with the image's and end with the class.
    assert check.heatmap.shown(150).endswith("glass")
    assert check.heatmap.toolTip() == check.heatmap.currentText()
    table, frame = check.results.table, check.results.model.frame
    header = table.horizontalHeader()
    seen = {name for k, name in enumerate(frame) if header.sectionViewportPosition(k) < table.viewport().width()}
    assert seen >= {"metric", "score", "value", "subject"}
    assert [table.isColumnHidden(list(frame).index(name)) for name in ("options", "of")] == [True, False]
    cell = table.model().index(0, list(frame).index("of"))
    assert table.columnWidth(cell.column()) < table.fontMetrics().horizontalAdvance(layer.name)
    assert cell.data(Qt.ItemDataRole.ToolTipRole) == layer.name
    assert header.sectionResizeMode(cell.column()) == QHeaderView.ResizeMode.Interactive


def test_boxes_that_are_not_checked_can_be_seen(shown: Any) -> None:
    _, _, check = shown()
    for view in (check.metrics.tree, check.masks):
        index = view.model().index(0, 0)
        box = view.visualRect(index)
        picture = view.viewport().grab(box).toImage().convertToFormat(QImage.Format.Format_Grayscale8)
        lights = [picture.pixelColor(x, y).lightness() for x in range(18) for y in range(picture.height())]
        assert max(lights) - min(lights) > 60


def test_options_of_a_metric_stay_and_count(shown: Any, qtbot: Any) -> None:
    viewer, widget, check = shown()
    check.masks.choose([viewer.layers[MASK]])
    check.metrics.choose("binary_overlap", "threshold_curve")
    check.metrics.show_metric("binary_overlap")
    check.metrics.options.set_value("lower", 0.25)
    check.metrics.show_metric("ranking")
    check.metrics.show_metric("binary_overlap")
    assert check.metrics.options.values()["lower"] == 0.25
    check.measure_button.click()
    finish(qtbot, check)
    frame = check._judged.evaluation.frame
    (dice,) = frame[(frame["score"] == "dice") & (frame["subject"] == "explanation")]["value"]
    attribution = widget.heatmaps.results[widget.heatmap.layer].attribution
    wanted = [{"metric": "binary_overlap", "lower": 0.25}]
    expected = evaluate(attribution, mask=sample_files("chest_ct_lesion")[1], metrics=wanted)
    assert dice == expected.set_index(["score", "subject"])["value"]["dice", "explanation"]
    qtbot.waitUntil(check.results.plots.isVisible)
    ax = check.results.plots.canvas.figure.axes[0]
    assert ax.get_title() == check.results.plots.which.currentText()


def test_an_option_that_cant_be_read_is_one_sentence_and_the_one_before_stays(opened: Open) -> None:
    viewer, _ = opened("chest_ct_lesion")
    _, check = viewer.window.add_plugin_dock_widget("napari-xai-med", "Check an explanation")
    check.metrics.show_metric("road")
    before = check.metrics.options.values()
    check.metrics.options.findChild(QLineEdit).setText("a tenth")
    check.metrics.show_metric("peak")
    assert "'a tenth' is no list of numbers" in last_sentence().message
    check.metrics.show_metric("road")
    assert check.metrics.options.values() == before


def test_closed_results_come_back_with_the_next_ones(shown: Any, qtbot: Any) -> None:
    viewer, _, check = shown()
    check.masks.choose([viewer.layers[MASK]])
    check.metrics.choose("peak")
    for _ in range(2):
        check.measure_button.click()
        finish(qtbot, check)
        # Qt shows a new dock when it comes to that.
        qtbot.waitUntil(lambda: check.results.isVisible(), timeout=10_000)
        viewer.window.remove_dock_widget(dock_of(viewer, check.results))
        assert not check.results.isVisible()


def test_overlap_lies_on_the_image_with_its_sizes(shown: Any, qtbot: Any) -> None:
    viewer, widget, check = shown()
    source, mask = viewer.layers["chest_ct_lesion"], viewer.layers[MASK]
    second = viewer.add_labels(np.roll(mask.data, 3, 2), scale=mask.scale, translate=mask.translate, name="second")
    check.masks.choose([mask, second])
    check.threshold.set_value("lower", 0.3)
    check.overlay_button.click()
    finish(qtbot, check)
    overlap = viewer.layers[-1]
    np.testing.assert_allclose(overlap.affine.affine_matrix, source.affine.affine_matrix)
    np.testing.assert_allclose(overlap.scale, source.scale)
    np.testing.assert_allclose(overlap.translate, source.translate)
    heat = widget.heatmap.layer.data
    explained = heat > 0.3 * heat.max()
    expected = explained + 2 * (mask.data != 0) + 4 * (second.data != 0)
    np.testing.assert_array_equal(overlap.data, expected)
    sizes = overlap.features["size_mL"].to_numpy()
    assert sizes[1:] == pytest.approx(np.bincount(expected.ravel(), minlength=8)[1:] * np.prod(source.scale) / 1000)
    np.testing.assert_allclose(overlap.colormap.map(3), [1, 1, 0, 1])
    assert not widget.heatmap.layer.visible
    # It is the widget's own, and no mask to be chosen.
    assert overlap not in check.masks._layers


def test_comparison_side_by_side(shown: Any, qtbot: Any) -> None:
    viewer, widget, check = shown()
    for method in ("saliency", "hirescam"):
        widget.method.setCurrentIndex(widget.method.findData(method))
        widget.run_explain()
        finish(qtbot, widget)
    check.choose(widget.heatmap.layer)
    check.others.choose(check.others._layers)
    names = [layer.name for layer in viewer.layers]
    check.compare_button.click()
    window = napari.current_viewer()
    assert window is not viewer
    try:
        assert window.canvas.grid.enabled
        assert [layer.name for layer in viewer.layers] == names
        assert not viewer.canvas.grid.enabled
        maps = window.layers[1::2]
        assert len(maps) == 3
        # Methods differ in their units: each by its own maximum, which its name tells.
        for layer in maps:
            assert np.abs(layer.data).max() == pytest.approx(1)
            assert ", divided by " in layer.name
        maps[0].contrast_limits = (0.1, 0.5)
        assert all(tuple(layer.contrast_limits) == (0.1, 0.5) for layer in maps)
        assert DISCLAIMER in window.canvas.overlays.text.text
        assert window.layers[0].data is viewer.layers["chest_ct_lesion"].data
    finally:
        window.close()


def test_explanations_of_two_images_are_not_compared(shown: Any, qtbot: Any) -> None:
    viewer, widget, check = shown()
    first = widget.heatmap.layer
    image = viewer.layers["chest_ct_lesion"]
    # On the same grid, and under the same name.
    other = viewer.add_image(image.data + 1, scale=image.scale, translate=image.translate, metadata=image.metadata)
    widget.image.choose(other)
    widget.run_explain()
    finish(qtbot, widget)
    check.choose(first)
    check.others.choose(check.others._layers)
    check.compare_button.click()
    assert "do not explain the same image" in last_sentence().message
    assert napari.current_viewer() is viewer


def test_the_image_of_a_heatmap_is_found_whatever_it_is_called(shown: Any, qtbot: Any) -> None:
    viewer, _, check = shown("slice_nodule", "chest_ct_2d")
    image, heatmap = viewer.layers["slice_nodule"], check._heatmaps[0]
    image.name = "renamed"
    other = viewer.add_image(image.data * 0, name="slice_nodule")
    for layer in (other, image):
        check.inputs.image.choose(other)
        check._heatmap_changed()
        assert check.inputs.image.layer() == image
        # Opened again it is another layer, and then it is what it holds that counts.
        if layer is other:
            viewer.layers.remove(image)
            assert check.inputs.image.layer() == other
            image = viewer.add_image(image.data, **transform_of(image), name="again", metadata=image.metadata)
    check.metrics.choose("peak", "road")
    check.masks.choose([viewer.layers["slice_nodule_mask"]])
    check.measure_button.click()
    finish(qtbot, check)
    assert not check._judged.evaluation.skipped
    assert check._judged.heatmap == heatmap


def test_channels_and_axes_of_a_heatmap_come_with_it(shown: Any) -> None:
    viewer, widget, check = shown("slice_nodule", "chest_ct_2d")
    random = np.random.default_rng(0)
    first, second = (viewer.add_image(random.random((2, 8, 8)), name=name) for name in ("t1", "t2"))
    views = [LayerView(first, "CYX"), LayerView(second, "CYX")]
    attribution = widget.heatmaps.results[widget.heatmap.layer].attribution
    image = stack_channels([view.image() for view in views])
    told = {**attribution.record.image, "sha256": image.sha256, "shape": [4, 8, 8]}
    small = replace(
        attribution,
        values=random.random((8, 8), np.float32),
        grid=image.grid,
        record=replace(attribution.record, image=told),
    )
    layer = add_heatmap(viewer, views, small)
    check.choose(layer)
    chosen = check.inputs.chosen()
    assert [(view.layer.name, view.axes) for view in chosen.views] == [("t1", "CYX"), ("t2", "CYX")]
    assert chosen.image().sha256 == image.sha256
    # Those of the one before have no further channels.
    check.choose(next(each for each in check._heatmaps if each != layer))
    assert [view.layer.name for view in check.inputs.chosen().views] == ["slice_nodule"]


@pytest.mark.parametrize("which", ["heatmap", "image"])
def test_what_was_measured_of_layers_that_are_gone_is_not_kept(shown: Any, qtbot: Any, which: str) -> None:
    viewer, _, check = shown("slice_nodule", "chest_ct_2d")
    check.masks.choose([viewer.layers["slice_nodule_mask"]])
    check.metrics.choose("peak")
    check.measure_button.click()
    finish(qtbot, check)
    case = weakref.ref(check._judged.case)
    viewer.layers.remove(getattr(check._judged, which))
    gc.collect()
    assert case() is None
    assert not check.save_button.isEnabled()
    assert len(numbers(check))


def test_the_second_classifier_is_loaded_once_and_told_in_the_record(shown: Any, qtbot: Any) -> None:
    _, _, check = shown("slice_nodule", "chest_ct_2d")
    check.second_box.setChecked(True)
    check.second.classifier.choose("chest_ct_2d")
    check.metrics.choose("label_randomisation")
    found = []
    for _ in range(2):
        check.measure_button.click()
        finish(qtbot, check)
        found.append(check._judged)
    assert found[0].case.second is found[1].case.second
    # A map is like itself: that classifier learnt the same.
    frame = found[0].evaluation.frame
    assert frame[frame["subject"] == "explanation"]["value"].tolist() == pytest.approx([1.0] * 4)
    record = evaluation_record(found[0].case, found[0].evaluation)
    assert record["second"] == record["model"]


def test_what_is_missing_is_one_sentence(opened: Open) -> None:
    viewer, _ = opened("chest_ct_lesion")
    _, check = viewer.window.add_plugin_dock_widget("napari-xai-med", "Check an explanation")
    notification_manager.records.clear()
    for button in (check.check_button, check.compare_button):
        button.click()
        assert "There is no heatmap" in last_sentence().message
    check.measure_button.click()
    assert "No metric is chosen" in last_sentence().message
    assert not check.save_button.isEnabled()


def test_a_heatmap_of_another_image_is_refused(shown: Any, qtbot: Any) -> None:
    viewer, _, check = shown()
    viewer.open_sample("napari-xai-med", "chest_ct_normal")
    check.inputs.image.choose(viewer.layers["chest_ct_normal"])
    check.check_button.click()
    finish(qtbot, check)
    assert "was not made of the image chest_ct_normal but of chest_ct_lesion" in check.progress_text.text()
    assert check.results is None


def test_stopping_keeps_what_was_measured(shown: Any, qtbot: Any) -> None:
    viewer, _, check = shown()
    check.masks.choose([viewer.layers[MASK]])
    check.check_button.click()
    qtbot.waitUntil(lambda: check.results is not None, timeout=60_000)
    check.cancel_button.click()
    finish(qtbot, check)
    assert "what was measured so far stays" in last_sentence().message
    assert check.progress_text.text() == last_sentence().message
    assert len(numbers(check))
    assert check.save_button.isEnabled()
