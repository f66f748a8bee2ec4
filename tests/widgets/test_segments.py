"""Explanations by segments in the widget: their form, their layers, and estimates that get better."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.layers import Labels
from napari.utils.notifications import notification_manager
from viewers import Open, finish, last_sentence

from napari_xai_med import load_model
from napari_xai_med.cli import main
from napari_xai_med.explainers.base import explainers
from napari_xai_med.explainers.segment_occlusion import SegmentOcclusion
from napari_xai_med.explanation import explain_request
from napari_xai_med.image import Image
from napari_xai_med.job import Job
from napari_xai_med.layers import METADATA_KEY
from napari_xai_med.request import ExplainRequest
from napari_xai_med.segments.base import segmenters
from napari_xai_med.segments.best import Best
from napari_xai_med.segments.choice import BODY

SLICE = 24


def choose(box: Any, value: Any) -> None:
    """Choose an entry of a box by its data."""
    index = box.findData(value)
    assert index >= 0, value
    box.setCurrentIndex(index)


@pytest.fixture
def asking(opened: Open) -> Any:
    """A viewer with a widget that is about to explain a slice by segments."""

    def build(number: int = 20, slice_number: int = SLICE) -> tuple[Any, Any]:
        viewer, widget = opened("chest_ct_lesion", "chest_ct_2d")
        viewer.dims.set_current_step(0, slice_number)
        widget.image.choose(viewer.layers["chest_ct_lesion"])
        choose(widget.method, "segment_occlusion")
        widget.question.segments.options.set_value("number", number)
        return viewer, widget

    return build


def explained(qtbot: Any, widget: Any) -> tuple[Any, Any]:
    """The newest heatmap layer and that of its segments, after Explain was pressed."""
    widget.explain_button.click()
    finish(qtbot, widget)
    return widget.viewer.layers[-2], widget.viewer.layers[-1]


def again(widget: Any, layer: Any) -> bool:
    """Whether the record of a layer gives the same map again, without a window."""
    record = layer.metadata[METADATA_KEY]["record"]
    shown = widget.heatmaps.results[layer]
    request = ExplainRequest.from_dict(record["request"])
    image = shown.asked.chosen.image()
    found = explain_request(image, load_model("chest_ct_2d"), request, Job(), shown.regions)
    return bool(found.record.result["sha256"] == record["result"]["sha256"])


def test_the_form_shows_with_methods_that_use_segments_and_greys_out_what_does_not_fit(
    opened: Open, qtbot: Any
) -> None:
    _, widget = opened("chest_ct_lesion", "chest_ct_3d")
    form = widget.question.segments
    for name, kind in explainers().items():
        choose(widget.method, name)
        assert form.isHidden() != kind.uses_segments
    choose(widget.method, "segment_occlusion")
    widget.classify_button.click()
    finish(qtbot, widget)
    for index, kind in enumerate(segmenters().values()):
        assert form.method.model().item(index).isEnabled() == (3 in kind.dims)
    for name in segmenters():
        choose(form.method, name)
        assert form.choice().method == name
        assert form.choice().with_defaults() == form.choice()
        assert not form.options.isHidden()
        assert form.background.isHidden()


def test_presets_fill_the_options(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    _, widget = opened()
    choose(widget.method, "segment_occlusion")
    assert widget.question.preset.isHidden()
    monkeypatch.setattr(SegmentOcclusion, "presets", {"one alone": {"alone": True, "blur": 2.0}})
    choose(widget.method, "gradcam")
    choose(widget.method, "segment_occlusion")
    preset = widget.question.preset
    assert not preset.isHidden()
    preset.setCurrentIndex(1)
    preset.activated.emit(1)
    values = widget.options.values()
    assert (values["alone"], values["blur"]) == (True, 2.0)
    widget.options.set_value("blur", 3.0)
    assert preset.currentText() == "own options"


def test_the_status_bar_tells_what_is_shown_now(asking: Any, qtbot: Any) -> None:
    viewer, widget = asking()
    _, segments = explained(qtbot, widget)
    ((heatmap, shown),) = widget.heatmaps.results.items()
    found = shown.attribution
    viewer.layers.selection = {segments}
    viewer.mouse_over_canvas = True
    peak = np.unravel_index(np.abs(heatmap.data).argmax(), heatmap.data.shape)
    viewer.cursor.position = segments.data_to_world(peak)
    row = segments.data[peak]
    for factor in (3.0, 5.0):
        table = found.segments.table.assign(contribution=factor * found.segments.table["contribution"])
        changed = replace(found, segments=replace(found.segments, table=table))
        widget.heatmaps.put(heatmap, replace(shown, attribution=changed))
        contribution = segments.features["contribution"][row]
        assert contribution == table["contribution"][row]
        assert f"contribution: {contribution:.3g}" in str(viewer.status)


def test_contributions_segments_and_table_lie_on_the_slice(asking: Any, qtbot: Any) -> None:
    viewer, widget = asking()
    source = viewer.layers["chest_ct_lesion"]
    heatmap, segments = explained(qtbot, widget)
    assert isinstance(segments, Labels)
    assert segments.contour == 1
    for layer in (heatmap, segments):
        assert layer.data.shape == (1, *source.data.shape[1:])
        np.testing.assert_allclose(layer.data_to_world((0, 5, 7)), source.data_to_world((SLICE, 5, 7)))
    assert heatmap.contrast_limits[0] == -heatmap.contrast_limits[1]
    assert heatmap.contrast_limits[1] == np.abs(heatmap.data).max()
    contributions = segments.features["contribution"].to_numpy()
    np.testing.assert_array_equal(np.append(0, contributions[1:]).astype(np.float32)[segments.data], heatmap.data)
    # What the status bar says of the segment that speaks most.
    peak = np.unravel_index(np.abs(heatmap.data).argmax(), heatmap.data.shape)
    viewer.layers.selection = {segments}
    told = segments.get_status(segments.data_to_world(peak), world=True)["value"]
    assert f"{segments.data[peak]}; contribution: " in told
    assert "rank: 1," in told
    assert widget.heatmap.layer == heatmap, "the controls stay with the heatmap of the segments"
    made = len(contributions) - 1
    assert widget.progress_text.text() == f"Done: {made} segments, {made + 2} evaluations"
    viewer.layers.remove(heatmap)
    assert segments not in viewer.layers
    assert keeps_nothing(widget)


def keeps_nothing(widget: Any) -> bool:
    """Whether nothing is kept of layers that are gone."""
    kept = widget.heatmaps
    return not (kept.results or kept._segments or kept._best)


def test_limits_are_shared_by_all_classes(asking: Any, qtbot: Any) -> None:
    viewer, widget = asking()
    count = len(viewer.layers)
    widget.target.setCurrentIndex(widget.target.count() - 1)
    widget.explain_button.click()
    finish(qtbot, widget)
    heatmaps = list(widget.heatmaps.results)
    top = max(float(np.abs(layer.data).max()) for layer in heatmaps)
    assert [layer.contrast_limits for layer in heatmaps] == [[-top, top]] * len(heatmaps)
    assert len(viewer.layers) == count + 2 * len(heatmaps)
    assert [layer.visible for layer in viewer.layers[count:]] == [False] * (2 * len(heatmaps) - 2) + [True] * 2


def test_best_segments_one_by_one_and_as_a_mask(asking: Any, qtbot: Any) -> None:
    viewer, widget = asking()
    heatmap, segments = explained(qtbot, widget)
    values, table = heatmap.data.copy(), segments.features
    best, limits = widget.heatmap.best, list(heatmap.contrast_limits)
    most = len(table) - 1
    assert (best.shown.minimum(), best.shown.maximum(), best.shown.value()) == (1, most, (1, most))
    for ranks in ((1, 1), (1, 3), (2, 4), (most, most)):
        best.shown.setValue(ranks)
        expected = np.where(np.isin(segments.data, table["segment"][table["rank"].between(*ranks)]), values, 0)
        np.testing.assert_array_equal(heatmap.data, expected)
        assert list(heatmap.contrast_limits) == limits
    np.testing.assert_array_equal(widget.heatmaps.results[heatmap].attribution.values.max(), values.max())
    widget.heatmap.bands_button.click()
    assert (viewer.layers[-1].data > 0).sum() == (np.abs(values) > 0.3 * np.abs(values).max()).sum()
    best.shown.setValue((1, most))
    np.testing.assert_array_equal(heatmap.data, values)
    for button, places in ((best.next, (1, 2, 3)), (best.previous, (2, 1, 1))):
        for rank in places:
            button.click()
            assert best.shown.value() == (rank, rank)
            shown = np.unique(segments.data[heatmap.data != 0])
            assert list(table["segment"][table["rank"] == rank]) == list(shown)
    best.shown.setValue((1, most))
    before = len(viewer.layers)
    for which, fits in ((Best.LARGEST, values != 0), (Best.SUPPORTING, values > 0), (Best.AGAINST, values < 0)):
        choose(best.which, which)
        best.count.setValue(2)
        best.mask_button.click()
        mask = viewer.layers[-1]
        assert len(viewer.layers) == before + 1, "it takes the place of the one before"
        chosen = np.unique(mask.data)[1:]
        assert len(chosen) == 2
        assert fits[mask.data > 0].all()
        rest = np.abs(values[fits & (mask.data == 0)])
        assert np.abs(values[mask.data > 0]).min() >= rest.max(initial=0)
        np.testing.assert_allclose(mask.data_to_world((0, 0, 0)), heatmap.data_to_world((0, 0, 0)))


def test_drawn_segments_and_masks(asking: Any, qtbot: Any, tmp_path: Path) -> None:
    viewer, widget = asking()
    form, source = widget.question.segments, viewer.layers["chest_ct_lesion"]
    viewer.layers.selection = {source}
    viewer._new_labels()
    drawn = viewer.layers[-1]
    drawn.data[SLICE, 20:40, 20:40] = 3
    drawn.data[SLICE, 40:60, 40:60] = 8
    choose(form.method, drawn)
    assert not form.background.isHidden()
    assert form.options.isHidden()
    heatmap, segments = explained(qtbot, widget)
    np.testing.assert_array_equal(segments.data[0] > 0, drawn.data[SLICE] > 0)
    assert len(segments.features) == 3
    assert heatmap.metadata[METADATA_KEY]["record"]["request"]["segments"]["labels"] == "given"
    assert again(widget, heatmap)
    code = widget.python()
    assert f".labels(viewer.layers[{drawn.name!r}])" in code
    told: dict[str, Any] = {"viewer": viewer}
    exec(code, told)
    assert told["attribution"].record.result["sha256"] == heatmap.metadata[METADATA_KEY]["record"]["result"]["sha256"]
    widget.save(str(tmp_path))
    finish(qtbot, widget)
    names = {path.name.rsplit("_", 1)[-1] for path in tmp_path.iterdir()}
    assert {"segments.nii.gz", "segments.csv", "labels.nii.gz"} <= names
    assert main(["explain", "--record", str(next(tmp_path.glob("*.json"))), "--out", str(tmp_path)]) == 0
    form.background.setChecked(True)
    heatmap, segments = explained(qtbot, widget)
    assert len(segments.features) == 4
    exec(widget.python(), told)
    assert told["attribution"].record.result["sha256"] == heatmap.metadata[METADATA_KEY]["record"]["result"]["sha256"]
    choose(form.method, "slic")
    choose(form.mask, drawn)
    heatmap, segments = explained(qtbot, widget)
    np.testing.assert_array_equal(segments.data[0] > 0, drawn.data[SLICE] > 0)
    # The sample's mask is still what its file holds, and is named by it.
    choose(form.mask, viewer.layers["chest_ct_lesion_mask"])
    mask = viewer.layers["chest_ct_lesion_mask"].data
    there = int((mask > 0).sum((1, 2)).argmax())
    viewer.dims.set_current_step(0, there)
    heatmap, segments = explained(qtbot, widget)
    named = heatmap.metadata[METADATA_KEY]["record"]["request"]["segments"]["mask"]
    assert named.endswith("chest_ct_lesion_mask.nii.gz")
    assert f"mask={named!r}" in widget.python()
    np.testing.assert_array_equal(segments.data[0] > 0, mask[there] > 0)
    viewer.layers.remove(drawn)
    assert form.mask.currentData() == viewer.layers["chest_ct_lesion_mask"]
    assert form.method.currentData() == "slic"


def test_segments_are_shown_alone_and_replaced_until_they_are_used(asking: Any, qtbot: Any) -> None:
    viewer, widget = asking()
    form = widget.question.segments
    choose(form.mask, BODY)
    before = len(viewer.layers)
    for number in (5, 30):
        form.options.set_value("number", number)
        form.show_button.click()
        finish(qtbot, widget)
        shown = viewer.layers[-1]
        assert len(viewer.layers) == before + 1
        assert shown.name == f"chest_ct_lesion: {shown.data.max()} segments, SLIC"
        assert len(shown.features) == shown.data.max() + 1
        assert shown.contour == 1
    assert not shown.data[0, 0].any(), "air around the body is in no segment"
    _, segments = explained(qtbot, widget)
    np.testing.assert_array_equal(segments.data, shown.data)
    choose(form.method, shown)
    form.show_button.click()
    finish(qtbot, widget)
    assert shown in viewer.layers
    assert viewer.layers[-1].name.endswith(", drawn")
    np.testing.assert_array_equal(viewer.layers[-1].data, shown.data)


def test_an_empty_mask_is_one_sentence(asking: Any, qtbot: Any) -> None:
    viewer, widget = asking()
    viewer.layers.selection = {viewer.layers["chest_ct_lesion"]}
    viewer._new_labels()
    choose(widget.question.segments.mask, viewer.layers[-1])
    for button in (widget.explain_button, widget.question.segments.show_button):
        notification_manager.records.clear()
        button.click()
        finish(qtbot, widget)
        assert "The mask is empty where the image is; choose another mask" in last_sentence().message


def test_labels_over_an_oblique_scan_mean_what_they_cover(make_napari_viewer: Any) -> None:
    from napari.layers import Layer

    from napari_xai_med.grid import Grid
    from napari_xai_med.layers import LayerView
    from napari_xai_med.layers_images import image_to_layer

    angle = 0.3
    turned = np.eye(4)
    turned[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turned[:3, :3] *= [2.0, 3.0, 4.0]
    shape = (6, 7, 8)
    image = Image(np.random.default_rng(0).random((1, *shape), np.float32), Grid(shape, turned))
    viewer = make_napari_viewer()
    layer = viewer.add_layer(Layer.create(*image_to_layer(image)))
    viewer._new_labels()
    labels = viewer.layers[-1]
    labels.data[1, 2, 3] = 1
    view = LayerView(layer, "ZYX")
    found = view.labels(labels)
    place = found.grid.to_world(np.argwhere(found.data[0])[0])
    covered = view.image().grid.to_index(place)
    assert view.turn is not None
    np.testing.assert_allclose(covered, np.argwhere(view.turn.inverse.array(labels.data))[0], atol=1e-4)


def test_estimates_refine_one_layer_and_the_result_takes_their_place(asking: Any, qtbot: Any) -> None:
    viewer, widget = asking(number=1500)
    seen: list[tuple[Any, ...]] = []
    texts: set[str] = set()

    def watch(estimate: Any) -> None:
        layer = widget.heatmap.layer
        seen.append((layer, len(viewer.layers), np.count_nonzero(layer.data), layer.contrast_limits[1], estimate))

    widget.task.progressed.connect(lambda *_: texts.add(widget.progress_text.text()))
    widget.estimated.connect(watch)
    before = len(viewer.layers)
    heatmap, _ = explained(qtbot, widget)
    assert len(seen) > 1
    assert all(layer == heatmap for layer, *_ in seen)
    assert {count for _, count, *_ in seen} == {before + 2}
    coverage = [voxels for _, _, voxels, *_ in seen]
    assert coverage == sorted(coverage)
    assert coverage[0] < np.count_nonzero(heatmap.data)
    limits = [limit for *_, limit, _ in seen]
    assert limits == sorted(limits)
    assert any(text.endswith(" evaluations") and not text.startswith("Done") for text in texts)
    assert heatmap.name == "chest_ct_lesion: Occlusion by segment, normal"
    assert again(widget, heatmap)


def test_what_is_known_when_the_work_is_stopped_stays_and_says_so(asking: Any, qtbot: Any) -> None:
    viewer, widget = asking(number=2000)
    widget.explain_button.click()
    qtbot.waitUntil(lambda: widget.heatmap.layer is not None, timeout=60_000)
    layer = widget.heatmap.layer
    widget.cancel_button.click()
    finish(qtbot, widget)
    record = layer.metadata[METADATA_KEY]["record"]
    count = record["method"]["evaluations"]
    assert record["method"]["stopped"] is True
    assert layer.name == f"chest_ct_lesion: Occlusion by segment, normal (stopped after {count} evaluations)"
    assert viewer.layers[-1].name == f"{layer.name}, segments"
    assert last_sentence().message == f"Stopped after {count} evaluations; the estimate so far stays."
    assert 0 < np.count_nonzero(np.nan_to_num(viewer.layers[-1].features["contribution"])) <= count


def test_an_estimate_that_the_user_removes_does_not_come_back(asking: Any, qtbot: Any) -> None:
    viewer, widget = asking(number=1000)
    before = list(viewer.layers)
    widget.explain_button.click()
    qtbot.waitUntil(lambda: widget.heatmap.layer is not None, timeout=60_000)
    viewer.layers.remove(widget.heatmap.layer)
    counts: set[int] = set()
    widget.task.progressed.connect(lambda *_: counts.add(len(viewer.layers)) if widget.task.running else None)
    qtbot.waitUntil(lambda: not widget.task.running, timeout=120_000)
    assert counts == {len(before)}
    assert list(viewer.layers) == before
    assert widget.heatmap.layer is None
    assert keeps_nothing(widget)
    widget.question.segments.options.set_value("number", 10)
    explained(qtbot, widget)
    assert len(viewer.layers) == len(before) + 2, "explained anew it is there again"
