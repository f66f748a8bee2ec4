from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import random_affine
from napari.layers import Labels, Layer
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt
from test_cli import run
from viewers import Open, finish, last_sentence

from napari_xai_med import choose_slices, explain_slices
from napari_xai_med.grid import Grid
from napari_xai_med.io.nifti import Volumes
from napari_xai_med.layers import METADATA_KEY, LayerView
from napari_xai_med.layers_images import volumes_to_layer
from napari_xai_med.samples import sample_files
from napari_xai_med.segments.choice import BODY
from napari_xai_med.widgets.question import EACH_CLASS

LESION, MASK = map(str, sample_files("chest_ct_lesion"))


def click(qtbot: Any, widget: Any, place: int) -> None:
    where = widget.list.visualItemRect(widget.list.topLevelItem(place)).center()
    qtbot.mouseClick(widget.list.viewport(), Qt.MouseButton.LeftButton, pos=where)


def choose_rule(widget: Any, name: str) -> None:
    widget.form.rule.setCurrentIndex(widget.form.rule.findData(name))


def test_one_click_goes_from_the_volume_to_explained_slices(slices: Open, qtbot: Any) -> None:
    viewer, widget = slices("chest_ct_lesion", "chest_ct_2d")
    source = viewer.layers["chest_ct_lesion"]
    widget.explain_button.click()
    assert not widget.choose_button.isEnabled()
    finish(qtbot, widget)
    found = explain_slices(LESION, "chest_ct_2d", volume_classifier="chest_ct_3d")
    rows = zip(found.slices.indices, found.slices.scores, found.attributions, strict=True)
    assert widget.list.rows() == [
        [f"axial {index}", f"{score:.4g}", each.prediction.ranked[0][0], f"{each.prediction.ranked[0][1]:.4f}"]
        for index, score, each in rows
    ]
    volume, *added = viewer.layers[-1 - 2 * len(found.attributions) :]
    maps, segments = added[::2], added[1::2]
    assert not volume.visible
    np.testing.assert_allclose(volume.data_to_world((1, 2, 3)), source.data_to_world((1, 2, 3)))
    assert volume.data.max() == pytest.approx(float(found.slices.heatmap.values.max()), rel=1e-5)
    for index, layer, each in zip(found.slices.indices, maps, found.attributions, strict=True):
        assert layer.data.shape[0] == 1
        np.testing.assert_allclose(layer.data_to_world((0, 5, 6)), source.data_to_world((index, 5, 6)))
        assert layer.name.endswith(f"{each.about}, axial {index}")
        # Of a sum that may cancel out.
        assert float(layer.data.sum()) == pytest.approx(
            float(each.values.sum()), abs=1e-4 * float(np.abs(each.values).sum())
        )
    for layer, contours in zip(maps, segments, strict=True):
        assert contours.name == f"{layer.name}, segments"
        assert contours.contour == 1
        contributions = np.append(0, contours.features["contribution"].to_numpy()[1:])
        np.testing.assert_array_equal(contributions.astype(np.float32)[contours.data], layer.data)
    assert viewer.dims.current_step[0] == found.slices.indices[0]
    for place, index in enumerate(found.slices.indices):
        click(qtbot, widget, place)
        assert viewer.dims.current_step[0] == index
        assert viewer.layers.selection.active == maps[place]
        assert [layer.colorbar.visible for layer in maps] == [k == place for k in range(len(maps))]


def test_slices_are_only_chosen_and_shown_in_their_plane(slices: Open, qtbot: Any) -> None:
    viewer, widget = slices("chest_ct_lesion", "chest_ct_2d")
    source, before = viewer.layers["chest_ct_lesion"], list(viewer.layers)
    assert widget.form._volume.isVisibleTo(widget.form)
    choose_rule(widget, "mask")
    assert not widget.form._volume.isVisibleTo(widget.form)
    widget.form.mask.choose(viewer.layers["chest_ct_lesion_mask"])
    widget.form.plane.setCurrentText("sagittal")
    widget.form.count.setValue(2)
    widget.choose_button.click()
    finish(qtbot, widget)
    assert list(viewer.layers) == before
    expected = choose_slices(LESION, "mask", rule_mask=MASK, plane="sagittal", count=2)
    rows = zip(expected.indices, expected.scores, strict=True)
    assert widget.list.rows() == [[f"sagittal {index}", f"{score:.4g}"] for index, score in rows]
    assert not widget.save_button.isEnabled()
    viewer.add_points()
    assert len(widget.list.rows()) == 2, "other layers change nothing"
    click(qtbot, widget, 1)
    assert viewer.dims.order == (2, 0, 1)
    # Numbered from the patient's right on, as the layer is.
    assert round(float(source.world_to_data(viewer.dims.point)[2])) == expected.indices[1]
    viewer.layers.remove("chest_ct_lesion_mask")
    assert widget.list.rows() == []
    assert widget.form.mask.path() == ""


@pytest.mark.parametrize("name", ["intensity", "body"])
def test_rules_without_a_heatmap(slices: Open, qtbot: Any, name: str) -> None:
    _, widget = slices("chest_ct_lesion", "chest_ct_2d")
    choose_rule(widget, name)
    if name == "intensity":
        widget.form.options.set_value("low", -600.0)
        widget.form.mask.setCurrentIndex(1)
    widget.choose_button.click()
    finish(qtbot, widget)
    told = {"rule_options": {"low": -600.0}, "rule_mask": "body"} if name == "intensity" else {}
    expected = choose_slices(LESION, name, **told)
    assert [row[0] for row in widget.list.rows()] == [f"axial {index}" for index in expected.indices]


def test_what_is_saved_can_be_computed_again(
    slices: Open, qtbot: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    viewer, widget = slices("chest_ct_lesion", "chest_ct_2d")
    choose_rule(widget, "mask")
    drawn = viewer.layers["chest_ct_lesion_mask"]
    widget.form.mask.choose(drawn)
    drawn.data[:20] = 0
    widget.question.method.setCurrentIndex(widget.question.method.findData("gradcam"))
    widget.explain_button.click()
    finish(qtbot, widget)
    widget.save(str(tmp_path))
    finish(qtbot, widget)
    summary = tmp_path / "chest_ct_lesion_slices.json"
    code, out, _ = run(capsys, "slices", "--record", summary, "--out", tmp_path / "again")
    assert (code, "bit for bit" in out) == (0, True)


def test_what_is_missing_is_one_sentence(slices: Open, qtbot: Any) -> None:
    viewer, widget = slices("", "chest_ct_2d")
    notification_manager.records.clear()
    widget.choose_button.click()
    assert "Open an image first" in last_sentence().message
    viewer.open_sample("napari-xai-med", "chest_ct_lesion")
    widget.form.classifier.choose("chest_ct_2d")
    widget.explain_button.click()
    finish(qtbot, widget)
    assert "choose a 3D classifier for the volume" in widget.progress_text.text()
    choose_rule(widget, "mask")
    widget.choose_button.click()
    finish(qtbot, widget)
    assert "needs a mask" in widget.progress_text.text()
    assert widget.list.rows() == []


def test_drawn_segments_and_masks_are_those_of_the_volume(
    slices: Open, qtbot: Any, tmp_path: Path, capsys: Any
) -> None:
    viewer, widget = slices("chest_ct_lesion", "chest_ct_2d")
    source, form = viewer.layers["chest_ct_lesion"], widget.question.segments
    for question in (widget.question, widget.form.question):
        assert question.target.findText(EACH_CLASS) < 0
    of_volume = widget.form.question.segments
    assert of_volume.show_button.isHidden()
    assert [box.count() for box in (form.method, form.mask)] == [
        box.count() + 1 for box in (of_volume.method, of_volume.mask)
    ], "there is a mask"
    choose_rule(widget, "mask")
    widget.form.mask.choose(viewer.layers["chest_ct_lesion_mask"])
    widget.form.count.setValue(2)
    viewer.layers.selection = {source}
    viewer._new_labels()
    drawn = viewer.layers[-1]
    for k in range(8):
        drawn.data[:, 10 * k : 10 * k + 8, 30:60] = k + 1
    form.method.setCurrentIndex(form.method.findData(drawn))
    form.mask.setCurrentIndex(form.mask.findData(BODY))
    form.show_button.click()
    finish(qtbot, widget)
    shown = viewer.layers[-1]
    assert shown.data.shape == (1, *source.data.shape[1:])
    assert shown.data_to_world((0, 0, 0))[0] == viewer.dims.point[0]
    widget.explain_button.click()
    finish(qtbot, widget)
    for index in (widget.list.rows()[k][0].removeprefix("axial ") for k in range(2)):
        layer = next(each for each in viewer.layers if each.name.endswith(f"axial {index}, segments"))
        inside = layer.data[0] > 0
        assert 0 < inside.sum() <= (drawn.data[int(index)] > 0).sum()
        assert not inside[drawn.data[int(index)] == 0].any()
    widget.save(str(tmp_path))
    finish(qtbot, widget)
    summary = tmp_path / "chest_ct_lesion_slices.json"
    code, out, _ = run(capsys, "slices", "--record", summary, "--out", tmp_path / "again")
    assert (code, "bit for bit" in out) == (0, True)
    assert len(list(tmp_path.glob("*_labels.nii.gz"))) == 1, "of both slices"


def test_estimates_refine_the_slice_that_is_being_explained(
    slices: Open, qtbot: Any, tmp_path: Path, capsys: Any
) -> None:
    viewer, widget = slices("chest_ct_lesion", "chest_ct_2d")
    choose_rule(widget, "body")
    widget.form.count.setValue(2)
    widget.question.segments.options.set_value("number", 20)
    widget.question.options.set_value("evaluations", 3000)
    before = list(viewer.layers)
    widget.explain_button.click()
    qtbot.waitUntil(lambda: len(viewer.layers) > len(before), timeout=60_000)
    assert widget.task.running
    layer = viewer.layers[len(before)]
    assert viewer.dims.current_step[0] == int(layer.name.rsplit(" ", 1)[-1]), "it is shown"
    assert layer in viewer.layers.selection
    assert len(widget.list.rows()) == 2
    qtbot.waitUntil(lambda: len(viewer.layers) == len(before) + 4, timeout=120_000)
    assert layer == viewer.layers[len(before)], "the same layer"
    told = widget.list.rows()
    assert [len(list(filter(None, row))) for row in told] == [4, 2]
    widget.cancel_button.click()
    finish(qtbot, widget)
    first, second = viewer.layers[len(before)], viewer.layers[len(before) + 2]
    records = [each.metadata[METADATA_KEY]["record"]["method"] for each in (first, second)]
    assert "stopped" not in records[0]
    assert records[1]["stopped"] is True
    assert second.name.endswith(f"(stopped after {records[1]['evaluations']} evaluations)")
    assert last_sentence().message.startswith("Stopped after")
    # The finished slice, as if no other had been asked for.
    widget.save(str(tmp_path))
    finish(qtbot, widget)
    code, out, _ = run(
        capsys, "slices", "--record", tmp_path / "chest_ct_lesion_slices.json", "--out", tmp_path / "again"
    )
    assert (code, "bit for bit" in out) == (0, True)
    assert len(list(tmp_path.glob("*_axial*.nii.gz"))) == 2, "a heatmap and its segments"


def test_stopping_leaves_the_viewer_as_it_was(slices: Open, qtbot: Any) -> None:
    viewer, widget = slices("chest_ct_lesion", "chest_ct_2d")
    before = list(viewer.layers)
    widget.explain_button.click()
    widget.cancel_button.click()
    finish(qtbot, widget)
    assert list(viewer.layers) == before
    assert "Stopped" in last_sentence().message


@pytest.mark.parametrize("seed", range(3))
def test_a_drawn_mask_means_what_is_under_it(seed: int) -> None:
    """Also over an oblique scan, which is not shown where it truly lies."""
    affine = random_affine(np.random.default_rng(seed))
    data = np.random.default_rng(0).random((1, 1, 8, 10, 12)).astype(np.float32)
    source = Layer.create(*volumes_to_layer(Volumes(data, Grid((8, 10, 12), affine), ()), "oblique", ""))
    view = LayerView(source, "ZYX")
    # As napari makes an empty labels layer over an image, but of half its size, from voxel (1, 1, 1) on.
    scale = np.array(source.scale)
    drawn = Labels(
        np.ones([n // 2 - 1 for n in source.data.shape], np.uint8),
        scale=2 * scale,
        translate=source.data_to_world((1, 1, 1)),
    )
    image, mask = view.image(), LayerView(drawn, "ZYX").image_over(view)
    turned = image.reoriented(view.turn)
    np.testing.assert_allclose(mask.grid.to_world((0, 0, 0)), turned.grid.to_world((1, 1, 1)), atol=1e-6)
    np.testing.assert_allclose(mask.grid.to_world((2, 1, 2)), turned.grid.to_world((5, 3, 5)), atol=1e-6)
