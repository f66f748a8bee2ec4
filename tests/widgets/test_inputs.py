"""What is asked about, as the widget offers it: channels, device and preprocessing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from helpers import write_bundle
from qtpy.QtCore import Qt
from viewers import Open, finish, last_sentence

from napari_xai_med.layers import METADATA_KEY
from napari_xai_med.models.devices import AUTO
from napari_xai_med.models.pack import Packing, pack
from napari_xai_med.models.small_cnn import SmallCNN
from napari_xai_med.preprocessing.presets import preset
from napari_xai_med.preprocessing.steps import MinMax, Window
from napari_xai_med.widgets.explain import ExplainWidget


def record_of(layer: Any) -> dict[str, Any]:
    return layer.metadata[METADATA_KEY]["record"]


def test_the_device_is_shown_and_recorded(opened: Open, qtbot: Any) -> None:
    viewer, widget = opened("slice_nodule", "chest_ct_2d")
    device = widget.inputs.device
    assert device.itemText(0).startswith("automatic (")
    assert device.itemData(0) == AUTO
    device.setCurrentIndex(device.findData("cpu"))
    widget.explain_button.click()
    finish(qtbot, widget)
    assert widget.loader._loaded[0][2] == "cpu"
    assert record_of(viewer.layers[-1])["software"]["device"] == "cpu"


# Further images as channels


@pytest.fixture
def two_channels(tmp_path: Path) -> Path:
    """A bundle whose class 'b' is the mean of the second channel, and only that."""
    program = torch.export.export(_SecondChannel(), (torch.rand(1, 2, 8, 8, 8),))
    torch.export.save(program, tmp_path / "second.pt2")
    pack(Packing(weights=tmp_path / "second.pt2", class_names=("a", "b")), tmp_path / "second")
    return tmp_path / "second"


class _SecondChannel(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv3d(2, 2, 1, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([[0.0, 0.0], [0.0, 1.0]])[..., None, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).mean((2, 3, 4))


def test_layers_become_channels_in_their_order(opened: Open, qtbot: Any, two_channels: Path, tmp_path: Path) -> None:
    viewer, widget = opened(model=str(two_channels))
    random = np.random.default_rng(0)
    names = ("t1", "t2", "flair")
    for name, value in zip(names, (1.0, 3.0, 5.0), strict=True):
        data = np.full((8, 8, 8), value, np.float32) + random.normal(0, 0.01, (8, 8, 8)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(data, np.diag([2, 2, 2, 1])), tmp_path / f"{name}.nii.gz")
        viewer.open(tmp_path / f"{name}.nii.gz", plugin="napari-xai-med")
    widget.image.choose(viewer.layers["t1"])
    # A network of two channels tells what to do about one.
    widget.explain_button.click()
    finish(qtbot, widget)
    assert last_sentence().message.endswith("or other axes, or give an image for each channel.")
    channels = widget.inputs.channels
    channels.add_button.click()
    (picker,) = channels.pickers()
    logits = []
    for name in ("t2", "flair"):
        picker.choose(viewer.layers[name])
        widget.explain_button.click()
        finish(qtbot, widget)
        logits.append(record_of(viewer.layers[-1])["result"]["logits"][1])
    np.testing.assert_allclose(logits, [3, 5], atol=0.01)
    record = record_of(viewer.layers[-1])
    sources = [record["image"]["source"], *record["image"]["others"]]
    assert sources == [str(tmp_path / name) for name in ("t1.nii.gz", "flair.nii.gz")]
    # Saved, and copied as Python, they are the same again.
    code = widget.python()
    scope: dict[str, Any] = {}
    exec(code, scope)
    np.testing.assert_allclose(scope["attribution"].prediction.logits[1], logits[-1], atol=1e-6)
    widget.save(str(tmp_path / "out"))
    finish(qtbot, widget)
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 1
    shown = channels.children()
    channels.layout().itemAt(0).widget().layout().itemAt(3).widget().click()
    assert channels.pickers() == ()
    assert not [child for child in shown if isinstance(child, type(picker)) and child.isVisible()]


def test_rows_follow_the_viewer_s_layers_until_they_are_removed(opened: Open) -> None:
    viewer, widget = opened("chest_ct_lesion")
    channels = widget.inputs.channels
    first, second = channels.add(), channels.add()
    assert [first.itemText(k) for k in range(first.count())] == ["chest_ct_lesion"]
    viewer.add_image(np.zeros((4, 8, 8)), name="other")
    assert second.findText("other") == 1
    rows = [channels.layout().itemAt(k).widget() for k in range(2)]
    assert [row.layout().itemAt(0).widget().text() for row in rows] == ["2.", "3."]
    rows[0].layout().itemAt(3).widget().click()
    assert channels.pickers() == (second,)
    assert rows[1].layout().itemAt(0).widget().text() == "2."
    assert not rows[0].isVisible()
    viewer.layers.remove("other")
    assert second.count() == 1


# Preprocessing


def lines(widget: ExplainWidget) -> list[str]:
    shown = widget.inputs.preprocessing.list
    return [shown.item(k).text() for k in range(shown.count())]


def change(qtbot: Any, widget: ExplainWidget) -> None:
    widget.inputs.change_box.setChecked(True)
    finish(qtbot, widget)


def test_the_bundle_s_own_steps_are_shown_and_stay_its_own(opened: Open, qtbot: Any) -> None:
    viewer, widget = opened("slice_nodule", "chest_ct_2d")
    form = widget.inputs.preprocessing
    assert not form.isVisible()
    change(qtbot, widget)
    assert form.isVisible()
    assert [line.split(":")[0] for line in lines(widget)] == [step.title for step in widget.loader._loaded[1].steps]
    widget.explain_button.click()
    finish(qtbot, widget)
    assert "preprocessing" not in record_of(viewer.layers[-1])["request"]


def test_changed_steps_are_what_the_network_sees(opened: Open, qtbot: Any) -> None:
    viewer, widget = opened("slice_nodule", "chest_ct_2d")
    widget.classify_button.click()
    finish(qtbot, widget)
    own = widget.bars.rows()
    change(qtbot, widget)
    form = widget.inputs.preprocessing
    row = next(k for k, line in enumerate(lines(widget)) if line.startswith("Window"))
    form.list.setCurrentRow(row)
    form.options.set_value("b_max", 0.5)
    assert ", 0.5" in lines(widget)[row]
    # A change forgets what was said of the old input.
    assert not widget.bars.isVisible()
    widget.input_button.click()
    finish(qtbot, widget)
    seen = viewer.layers[-1]
    assert seen.data.max() == pytest.approx(0.5, abs=1e-6)
    widget.explain_button.click()
    finish(qtbot, widget)
    heatmap = viewer.layers[-1]
    assert widget.bars.rows() != own
    request = record_of(heatmap)["request"]
    assert [step["_target_"] for step in request["preprocessing"]] == [
        step.config()["_target_"] for step in widget.inputs.preprocessing.steps()
    ]
    scope: dict[str, Any] = {}
    exec(widget.python(), scope)
    np.testing.assert_allclose(scope["attribution"].values, np.squeeze(heatmap.data), atol=1e-6)
    # Unticked, the bundle's own is back.
    widget.inputs.change_box.setChecked(False)
    widget.classify_button.click()
    finish(qtbot, widget)
    assert widget.bars.rows() == own


def test_the_preview_is_replaced_and_never_offered_as_an_image(opened: Open, qtbot: Any) -> None:
    viewer, widget = opened("slice_nodule", "chest_ct_2d")
    before = len(viewer.layers)
    for _ in range(2):
        widget.input_button.click()
        finish(qtbot, widget)
        assert len(viewer.layers) == before + 1
    assert [widget.image.itemText(k) for k in range(widget.image.count())] == ["slice_nodule"]
    assert widget.image.layer() is not None


def test_steps_are_added_moved_removed_and_taken_from_presets(opened: Open, qtbot: Any) -> None:
    _, widget = opened("slice_nodule", "chest_ct_2d")
    change(qtbot, widget)
    form = widget.inputs.preprocessing
    form.presets.setCurrentIndex(form.presets.findData("ct_bone"))
    form.presets.activated.emit(form.presets.currentIndex())
    assert form.steps() == preset("ct_bone", 2)
    form.kinds.setCurrentIndex(form.kinds.findText(MinMax.title))
    form.add_button.click()
    assert [type(step) for step in form.steps()] == [Window, MinMax]
    assert not form.down_button.isEnabled()
    form.up_button.click()
    assert [type(step) for step in form.steps()] == [MinMax, Window]
    form.remove_button.click()
    assert [type(step) for step in form.steps()] == [Window]
    form.remove_button.click()
    assert form.steps() == ()
    assert not form.remove_button.isEnabled()


def test_an_option_that_can_t_be_read_is_one_sentence(opened: Open, qtbot: Any) -> None:
    _, widget = opened("slice_nodule", "chest_ct_2d")
    change(qtbot, widget)
    form = widget.inputs.preprocessing
    form.kinds.setCurrentIndex(form.kinds.findText("Resize"))
    form.add_button.click()
    form.options.set_value("spatial_size", "64, many")
    widget.explain_button.click()
    assert not widget.task.running
    assert last_sentence().message == "'64, many' is no list of numbers; correct spatial size."


def test_preprocessing_that_is_code_can_be_replaced_but_not_shown(opened: Open, qtbot: Any, tmp_path: Path) -> None:
    target = {"_target_": "napari_xai_med.models.small_cnn.SmallCNN"}
    target |= {"spatial_dims": 2, "in_channels": 1, "num_classes": 2}
    steps = {"_target_": "Compose", "transforms": [{"_target_": "Lambdad", "keys": "image", "func": "$lambda x: x"}]}
    bundle = write_bundle(
        tmp_path / "b", {"network_def": target, "preprocessing": steps}, ["a", "b"], spatial_shape=[8, 8]
    )
    torch.save(SmallCNN(2, 1, 2).state_dict(), bundle / "models" / "model.pt")
    viewer, widget = opened("slice_nodule", str(bundle))
    change(qtbot, widget)
    assert "can run code" in last_sentence().message or "trust" in last_sentence().message.lower()
    widget.inputs.trust.setChecked(True)
    widget.inputs.change_box.setChecked(False)
    change(qtbot, widget)
    assert lines(widget) == []
    assert widget.inputs._note.isVisible()
    assert "can't be shown" in widget.inputs._note.text()
    form = widget.inputs.preprocessing
    form.presets.setCurrentIndex(form.presets.findData("ct"))
    form.presets.activated.emit(form.presets.currentIndex())
    widget.explain_button.click()
    finish(qtbot, widget)
    assert record_of(viewer.layers[-1])["request"]["preprocessing"]


def test_another_classifier_brings_its_own_steps(opened: Open, qtbot: Any, tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    torch.jit.trace(network, torch.rand(1, 1, 8, 8)).save(tmp_path / "n.ts")
    packing = Packing(
        weights=tmp_path / "n.ts", class_names=("a", "b"), input_shape=(1, 8, 8), preprocessing=(MinMax(),)
    )
    pack(packing, tmp_path / "n")
    _, widget = opened("slice_nodule", "chest_ct_2d")
    change(qtbot, widget)
    form = widget.inputs.preprocessing
    form.remove_button.click()
    widget.classifier.choose(str(tmp_path / "n"))
    assert not widget.inputs.change_box.isChecked()
    change(qtbot, widget)
    assert [type(step) for step in form.steps()] == [MinMax]


def test_methods_that_need_layers_are_grey_with_the_reason(opened: Open, qtbot: Any, tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    torch.jit.trace(network, torch.rand(1, 1, 8, 8)).save(tmp_path / "n.ts")
    pack(Packing(weights=tmp_path / "n.ts", class_names=("a", "b"), input_shape=(1, 8, 8)), tmp_path / "n")
    _, widget = opened("slice_nodule", str(tmp_path / "n"))
    widget.classify_button.click()
    finish(qtbot, widget)
    index = widget.method.findData("gradcam")
    assert not widget.method.model().item(index).isEnabled()
    assert "needs layers" in widget.method.itemData(index, Qt.ItemDataRole.ToolTipRole)
    widget.classifier.choose("chest_ct_2d")
    assert widget.method.model().item(index).isEnabled()
    assert "needs" not in widget.method.itemData(index, Qt.ItemDataRole.ToolTipRole)


def test_a_regression_has_no_bar(opened: Open, qtbot: Any, tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    with torch.no_grad():
        network[0].weight.zero_()
        network[0].bias.fill_(61.5)
    torch.jit.trace(network, torch.rand(1, 1, 8, 8)).save(tmp_path / "n.ts")
    packing = Packing(weights=tmp_path / "n.ts", class_names=("age",), head="regression", input_shape=(1, 8, 8))
    pack(packing, tmp_path / "n")
    _, widget = opened("slice_nodule", str(tmp_path / "n"))
    widget.classify_button.click()
    finish(qtbot, widget)
    assert widget.bars.headerItem().text(1) == "Value"
    bar = widget.bars.itemWidget(widget.bars.topLevelItem(0), 1)
    assert bar.value() == 0
    assert bar.format() == "61.5000"
