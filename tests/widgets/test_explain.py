from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from threading import Event
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from helpers import write_bundle
from napari.layers import Image as ImageLayer
from napari.utils.notifications import notification_manager
from viewers import Open, dock_of, finish, last_sentence

from napari_xai_med.attribution import DISCLAIMER
from napari_xai_med.cli import main
from napari_xai_med.errors import InputError
from napari_xai_med.job import Job
from napari_xai_med.layers import METADATA_KEY
from napari_xai_med.models.small_cnn import SmallCNN


def test_classify_shows_all_classes_sorted(opened: Open, qtbot: Any) -> None:
    _, widget = opened("chest_ct_lesion")
    widget.classify_button.click()
    assert not widget.classify_button.isEnabled()
    finish(qtbot, widget)
    rows = widget.bars.rows()
    assert [name for name, _ in rows] == ["ground glass", "normal"]
    assert sum(float(value) for _, value in rows) == pytest.approx(1, abs=1e-3)
    assert widget.bars.isVisible()
    offered = widget.options._fields["layers"]
    sizes = [offered.item(k).text() for k in range(offered.count())]
    assert any("Conv3d, 64 × 16×16×8" in text for text in sizes)


def test_explain_adds_a_layer_exactly_on_the_image(opened: Open, qtbot: Any) -> None:
    viewer, widget = opened("chest_ct_lesion")
    source = viewer.layers["chest_ct_lesion"]
    widget.explain_button.click()
    finish(qtbot, widget)
    heatmap = viewer.layers[-1]
    assert heatmap.name == "chest_ct_lesion: Grad-CAM, ground glass"
    assert heatmap.data.shape == source.data.shape
    for name in ("scale", "translate", "rotate", "shear", "units", "axis_labels"):
        np.testing.assert_array_equal(getattr(heatmap, name), getattr(source, name))
    np.testing.assert_array_equal(heatmap.affine.affine_matrix, source.affine.affine_matrix)
    assert heatmap.contrast_limits == [0, pytest.approx(float(heatmap.data.max()))]
    assert heatmap.colorbar.visible
    record = heatmap.metadata[METADATA_KEY]["record"]
    assert record["disclaimer"] == DISCLAIMER
    assert record["result"]["class"] == "ground glass"
    mask = viewer.layers["chest_ct_lesion_mask"].data
    peak = np.unravel_index(heatmap.data.argmax(), heatmap.data.shape)
    assert np.abs(np.argwhere(mask) - peak).max(1).min() <= 4, "the peak lies on the lesion or a few voxels beside it"


def test_threshold_colormap_opacity_and_colour_bar_change_the_look_and_not_the_values(opened: Open, qtbot: Any) -> None:
    viewer, widget = opened("chest_ct_lesion")
    widget.explain_button.click()
    finish(qtbot, widget)
    layer, controls = viewer.layers[-1], widget.heatmap
    before = layer.data.copy()
    controls.threshold.setValue(50)
    alpha = layer.colormap.map(np.array([0.1, 0.45, 0.55, 1.0]))[:, 3]
    np.testing.assert_array_equal(alpha, [0, 0, 1, 1])
    controls.colormap.setCurrentText("magma")
    assert layer.colormap.name == "magma from 50 %"
    controls.opacity.setValue(30)
    assert layer.opacity == 0.3
    controls.colour_bar.setChecked(False)
    assert not layer.colorbar.visible
    np.testing.assert_array_equal(layer.data, before)


@pytest.mark.parametrize(
    ("sample", "model"),
    [("chest_ct_lesion", "chest_ct_3d"), ("slice_nodule", "chest_ct_2d"), ("chest_ct_lesion", "chest_ct_2d")],
)
def test_what_the_network_sees_lies_on_the_image(opened: Open, qtbot: Any, sample: str, model: str) -> None:
    viewer, widget = opened(sample, model)
    source = viewer.layers[sample]
    step = viewer.dims.current_step
    widget.input_button.click()
    finish(qtbot, widget)
    seen = viewer.layers[-1]
    assert seen.name.startswith(f"{sample}: what Chest CT phantom")
    assert seen.data.min() >= 0
    assert seen.data.max() <= 1
    # Both extents end half a voxel beyond the outermost centres.
    for ends, there in ((-0.5, -0.5), (np.array(seen.data.shape) - 0.5, np.array(source.data.shape) - 0.5)):
        found = np.array(seen.data_to_world(np.full(seen.ndim, ends)))
        expected = np.array(source.data_to_world(np.full(source.ndim, there)))
        flat = 1 if sample == "chest_ct_lesion" and model == "chest_ct_2d" else 0
        np.testing.assert_allclose(found[flat:], expected[flat:], atol=1e-3)
    if flat:
        assert seen.data.shape[0] == 1
        assert seen.data_to_world((0, 0, 0))[0] == pytest.approx(source.data_to_world((step[0], 0, 0))[0])


@pytest.mark.parametrize("button", ["classify_button", "explain_button"])
def test_doubts_stay_in_the_dock_as_long_as_the_answer(opened: Open, qtbot: Any, button: str) -> None:
    viewer, widget = opened()
    assert not widget.notices.isVisible()
    viewer.add_image(np.random.default_rng(0).random((32, 32, 16)))
    getattr(widget, button).click()
    finish(qtbot, widget)
    assert widget.notices.isVisible()
    assert "do not trust the answer" in widget.notices.text()
    assert widget.notices.wordWrap()
    viewer.open_sample("napari-xai-med", "chest_ct_lesion")
    assert not widget.notices.isVisible()
    getattr(widget, button).click()
    finish(qtbot, widget)
    assert widget.bars.isVisible()
    assert not widget.notices.isVisible()


@pytest.mark.parametrize("button", ["classify_button", "explain_button", "input_button"])
def test_finished_work_says_so(opened: Open, qtbot: Any, button: str) -> None:
    _, widget = opened("chest_ct_lesion")
    getattr(widget, button).click()
    finish(qtbot, widget)
    assert widget.progress_text.text() == "Done"


def test_a_slice_on_screen_of_another_layer_is_not_asked_about(opened: Open, qtbot: Any) -> None:
    viewer, widget = opened("chest_ct_lesion", "chest_ct_2d")
    source = viewer.layers["chest_ct_lesion"]
    # As far again as the volume reaches.
    viewer.add_labels(np.zeros((2 * len(source.data), 1, 1), int), scale=source.scale, affine=source.affine)
    viewer.layers.selection = {source}
    viewer.dims.set_current_step(0, viewer.dims.nsteps[0] - 1)
    layers = list(viewer.layers)
    for button in (widget.classify_button, widget.explain_button, widget.input_button):
        notification_manager.records.clear()
        button.click()
        finish(qtbot, widget)
        assert "The slice on screen lies outside of chest_ct_lesion; move the slider" in last_sentence().message
    assert list(viewer.layers) == layers
    # Networks of volumes take the whole wherever the slider stands.
    widget.classifier.choose("chest_ct_3d")
    widget.classify_button.click()
    finish(qtbot, widget)
    assert widget.bars.isVisible()


def test_a_volume_on_screen_of_another_layer_is_not_asked_about(opened: Open) -> None:
    viewer, widget = opened()
    series = viewer.add_image(np.zeros((2, 4, 5, 6)), name="series")
    single = viewer.add_image(np.zeros((1, 4, 5, 6)), name="single")
    viewer.add_labels(np.zeros((9, 4, 5, 6), int))
    viewer.dims.set_current_step(0, 1)
    widget.image.choose(series)
    widget.image.axes.setCurrentText("TZYX")
    assert widget.image.view().volume == 1
    viewer.dims.set_current_step(0, 8)
    with pytest.raises(InputError, match="The volume on screen lies outside of series; move the slider"):
        widget.image.view()
    widget.image.choose(single)
    widget.image.axes.setCurrentText("TZYX")
    assert widget.image.view().volume == 0


def test_go_to_maximum_shows_its_slice(opened: Open, qtbot: Any) -> None:
    viewer, widget = opened("chest_ct_lesion")
    assert not widget.maximum_button.isEnabled()
    widget.explain_button.click()
    finish(qtbot, widget)
    viewer.dims.set_current_step(0, 0)
    widget.maximum_button.click()
    layer = viewer.layers[-1]
    peak = np.unravel_index(layer.data.argmax(), layer.data.shape)
    assert viewer.dims.current_step[0] == peak[0]


def test_any_class_and_layer_and_the_controls_follow_the_selection(opened: Open, qtbot: Any) -> None:
    viewer, widget = opened("chest_ct_lesion")
    widget.classify_button.click()
    finish(qtbot, widget)
    widget.target.setCurrentIndex(widget.target.findText("normal"))
    widget.options.set_value("layers", ("features.1.conv",))
    widget.explain_button.click()
    finish(qtbot, widget)
    first = viewer.layers[-1]
    assert "Grad-CAM at features.1.conv, normal" in first.name
    assert first.metadata[METADATA_KEY]["record"]["method"]["layer"] == "features.1.conv"
    # The choice stays, and is what the next explanation uses.
    assert widget.options.values() == {"layers": ("features.1.conv",), "separate": False}
    widget.options.set_value("layers", ())
    widget.explain_button.click()
    finish(qtbot, widget)
    assert widget.heatmap.layer == viewer.layers[-1]
    viewer.layers.selection = {first}
    assert widget.heatmap.layer == first
    viewer.layers.remove(first)
    assert widget.heatmap.layer == viewer.layers[-1]


def test_cancel_stops_and_changes_nothing(opened: Open, qtbot: Any) -> None:
    viewer, widget = opened("chest_ct_lesion")
    before = list(viewer.layers)
    widget.explain_button.click()
    assert widget.cancel_button.isEnabled()
    widget.cancel_button.click()
    finish(qtbot, widget)
    assert list(viewer.layers) == before
    assert "Stopped" in last_sentence().message
    widget.explain_button.click()
    finish(qtbot, widget)
    assert len(viewer.layers) == len(before) + 1


@pytest.mark.parametrize("how", ["close_button", "hide_button", "tab", "minimised"])
def test_closing_the_dock_stops_the_work_and_hiding_it_does_not(opened: Open, qtbot: Any, how: str) -> None:
    viewer, widget = opened("chest_ct_lesion")
    before, dock = list(viewer.layers), dock_of(viewer, widget)
    started = Event()

    def work(job: Job) -> None:
        for k in range(50):
            job.step(k / 50, "Counting")
            started.set()
            time.sleep(0.01)

    shown: list[Any] = []
    widget.task.start(work, shown.append)
    qtbot.waitUntil(started.is_set)
    if how == "tab":
        widget.open_beside("Pack a classifier")
    elif how == "minimised":
        viewer.window._qt_window.showMinimized()
    else:
        getattr(dock.titleBarWidget(), how).click()
    finish(qtbot, widget)
    assert bool(shown) is (how != "close_button")
    assert list(viewer.layers) == before


def test_progress_rises_to_one(opened: Open, qtbot: Any) -> None:
    _, widget = opened("chest_ct_lesion")
    shares: list[float] = []
    widget.task.progressed.connect(lambda done, _: shares.append(done))
    widget.explain_button.click()
    finish(qtbot, widget)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_the_viewer_lives_while_work_goes_on(opened: Open, qtbot: Any) -> None:
    """Events are handled all the time that a second of computing takes, and cancelling ends it early."""
    _, widget = opened()
    rounds: list[int] = []

    def work(job: Job) -> None:
        for k in range(1000):
            job.step(k / 1000, "Multiplying")
            torch.rand(200, 200) @ torch.rand(200, 200)
            time.sleep(0.001)
            rounds.append(k)

    widget.task.start(work, lambda _: None)
    turns = 0
    while len(rounds) < 300:
        qtbot.wait(1)
        turns += 1
    assert turns > 20
    widget.task.cancel()
    finish(qtbot, widget)
    assert len(rounds) < 1000


def test_what_is_closed_while_work_goes_on_is_not_missed(tmp_path: Path) -> None:
    """In a process of its own, since a mistake here ends the process."""
    code = """
import time, napari
from qtpy.QtCore import QThreadPool
from qtpy.QtWidgets import QApplication
for what in ("layers", "dock", "viewer"):
    viewer = napari.Viewer()
    viewer.open_sample("napari-xai-med", "chest_ct_lesion")
    _, widget = viewer.window.add_plugin_dock_widget("napari-xai-med", "Explain a classifier")
    widget.explain(viewer.layers["chest_ct_lesion"], "chest_ct_3d")
    if what == "viewer":
        viewer.close()
    elif what == "dock":
        viewer.window.remove_dock_widget("all")
    else:
        viewer.layers.clear()
    for _ in range(100):
        QApplication.processEvents()
        time.sleep(0.01)
    while QThreadPool.globalInstance().activeThreadCount():
        QApplication.processEvents()
        time.sleep(0.01)
    for _ in range(100):
        QApplication.processEvents()
    print(f"closed-{what}")
"""
    script = tmp_path / "close.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, "-W", "ignore", str(script)], capture_output=True, text=True, check=False)
    assert [line for line in done.stdout.split() if line.startswith("closed-")] == [
        "closed-layers",
        "closed-dock",
        "closed-viewer",
    ], done.stderr
    assert "Traceback" not in done.stderr


def test_a_slice_on_screen_is_explained_by_a_2d_classifier_and_shown_there_only(opened: Open, qtbot: Any) -> None:
    viewer, widget = opened("chest_ct_lesion", "chest_ct_2d")
    source = viewer.layers["chest_ct_lesion"]
    viewer.dims.set_current_step(0, 13)
    widget.explain_button.click()
    finish(qtbot, widget)
    heatmap = viewer.layers[-1]
    assert heatmap.data.shape == (1, *source.data.shape[1:])
    np.testing.assert_allclose(heatmap.data_to_world((0, 0, 0)), source.data_to_world((13, 0, 0)))
    assert heatmap.metadata[METADATA_KEY]["record"]["request"]["slice"] == 13


def test_2d_samples(opened: Open, qtbot: Any) -> None:
    viewer, widget = opened("slice_nodule", "chest_ct_2d")
    widget.explain_button.click()
    finish(qtbot, widget)
    assert viewer.layers[-1].name == "slice_nodule: Grad-CAM, nodule"
    assert viewer.layers[-1].data.shape == viewer.layers["slice_nodule"].data.shape


def test_saving_gives_the_file_s_shape_and_affine(opened: Open, qtbot: Any, tmp_path: Path) -> None:
    from napari_xai_med.samples import sample_files

    _, widget = opened("chest_ct_lesion")
    assert not widget.save_button.isEnabled()
    widget.explain_button.click()
    finish(qtbot, widget)
    widget.save(str(tmp_path))
    finish(qtbot, widget)
    source, saved = nibabel.load(sample_files("chest_ct_lesion")[0]), nibabel.load(next(tmp_path.glob("*.nii.gz")))
    assert saved.shape == source.shape
    np.testing.assert_allclose(saved.affine, source.affine, atol=1e-4)
    assert len(list(tmp_path.glob("*.png"))) == len(list(tmp_path.glob("*.json"))) == 1


def test_copied_python_computes_the_same_map(opened: Open, qtbot: Any) -> None:
    viewer, widget = opened("chest_ct_lesion")
    widget.explain_button.click()
    finish(qtbot, widget)
    scope: dict[str, Any] = {}
    exec(widget.python(), scope)
    values = scope["attribution"].values
    turn = viewer.layers["chest_ct_lesion"].metadata[METADATA_KEY]["turn"]
    np.testing.assert_allclose(turn.array(values), viewer.layers[-1].data, atol=1e-6 * values.max())


def test_a_record_saved_by_hand_computes_the_same_bits_on_the_command_line(
    opened: Open, qtbot: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, widget = opened("chest_ct_lesion")
    widget.explain_button.click()
    finish(qtbot, widget)
    widget.save(str(tmp_path))
    finish(qtbot, widget)
    (record,) = tmp_path.glob("*.json")
    assert main(["explain", "--record", str(record), "--out", str(tmp_path / "again")]) == 0
    assert "equals the recorded one bit for bit" in capsys.readouterr().out


def test_ambiguous_axes_are_a_visible_choice(opened: Open, qtbot: Any) -> None:
    viewer, widget = opened()
    axes = widget.image.axes
    assert not axes.isVisible()
    viewer.add_image(np.zeros((3, 16, 16)), rgb=False)
    qtbot.waitUntil(axes.isVisible)
    assert [axes.itemText(k) for k in range(3)] == ["ZYX", "CYX", "YXC"]
    viewer.add_image(np.zeros((16, 16)))
    qtbot.waitUntil(lambda: not axes.isVisible())


@pytest.mark.parametrize(
    ("data", "model", "sentence"),
    [
        (None, "chest_ct_3d", "Open an image first"),
        (np.zeros((16, 16)), "chest_ct_3d", "takes 3D images"),
        (np.zeros((4, 16, 16)), "/nowhere", "There is no bundle folder or zip /nowhere"),
        (np.full((4, 16, 16), np.nan), "chest_ct_3d", "not finite"),
    ],
    ids=["no image", "2D", "no bundle", "nan"],
)
def test_bad_input_is_one_sentence_in_a_notification(
    opened: Open, qtbot: Any, data: Any, model: str, sentence: str
) -> None:
    viewer, widget = opened("", model)
    if data is not None:
        viewer.add_image(data, contrast_limits=(0, 1))
    for button in (widget.classify_button, widget.explain_button):
        notification_manager.records.clear()
        button.click()
        finish(qtbot, widget)
        assert sentence in last_sentence().message
    assert len(viewer.layers) == (data is not None)


def test_a_map_that_is_zero_everywhere_is_transparent_and_says_so(opened: Open, qtbot: Any, tmp_path: Path) -> None:
    """A classifier whose last layer is all zero says the same of everything, and nothing speaks for it."""
    network = SmallCNN(3, 1, 2)
    torch.nn.init.zeros_(network.head.weight)
    target = {"_target_": "napari_xai_med.models.small_cnn.SmallCNN"}
    target |= {"spatial_dims": 3, "in_channels": 1, "num_classes": 2}
    preprocessing = {"_target_": "Compose", "transforms": [{"_target_": "ScaleIntensityd", "keys": "image"}]}
    bundle = write_bundle(tmp_path / "b", {"network_def": target, "preprocessing": preprocessing}, ["a", "b"])
    torch.save(network.state_dict(), bundle / "models" / "model.pt")
    viewer, widget = opened("chest_ct_lesion", str(bundle))
    widget.explain_button.click()
    finish(qtbot, widget)
    layer = viewer.layers[-1]
    assert "(zero everywhere)" in layer.name
    assert layer.contrast_limits == [0, 1]
    assert layer.colormap.map(np.array([0.0]))[0, 3] == 0
    assert "is zero everywhere" in last_sentence().message


def test_the_user_s_layers_are_not_changed(opened: Open, qtbot: Any) -> None:
    viewer, widget = opened("chest_ct_lesion")
    source = viewer.layers["chest_ct_lesion"]
    before = {key: repr(value) for key, value in source.as_layer_data_tuple()[1].items()}
    data = source.data.copy()
    widget.explain_button.click()
    finish(qtbot, widget)
    assert {key: repr(value) for key, value in source.as_layer_data_tuple()[1].items()} == before
    np.testing.assert_array_equal(source.data, data)


def test_unload_gives_the_classifier_back(opened: Open, qtbot: Any) -> None:
    _, widget = opened("chest_ct_lesion")
    widget.classify_button.click()
    finish(qtbot, widget)
    assert widget.loader._loaded is not None
    widget.unload_button.click()
    assert widget.loader._loaded is None
    assert not widget.bars.isVisible()


def test_it_is_in_the_plugins_and_the_layers_menu(make_napari_viewer: Any) -> None:
    from napari._app_model import get_app_model

    make_napari_viewer()
    menus = get_app_model().menus
    for menu in ("napari/layers/classify", "napari/plugins/napari-xai-med"):
        commands = [item.command.id for item in menus.get_menu(menu) if hasattr(item, "command")]
        assert "napari-xai-med.explain" in commands


def test_heatmaps_are_not_offered_as_images(opened: Open, qtbot: Any) -> None:
    viewer, widget = opened("chest_ct_lesion")
    widget.explain_button.click()
    finish(qtbot, widget)
    assert isinstance(viewer.layers[-1], ImageLayer)
    assert [widget.image.itemText(k) for k in range(widget.image.count())] == ["chest_ct_lesion"]
