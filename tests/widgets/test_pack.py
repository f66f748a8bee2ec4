"""The widget that makes bundles, as a user fills it in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from napari.utils.notifications import notification_manager
from torch import nn
from viewers import dock_of, finish, last_sentence

from napari_xai_med import explain, load_model, predict
from napari_xai_med.models.architectures import build
from napari_xai_med.models.sliding_window import Aggregate
from napari_xai_med.preprocessing.presets import preset
from napari_xai_med.samples import sample_files
from napari_xai_med.widgets.explain import ExplainWidget
from napari_xai_med.widgets.pack import PackWidget

Opened = Callable[[], tuple[Any, PackWidget]]


@pytest.fixture
def opened(make_napari_viewer: Any) -> Opened:
    def open_it() -> tuple[Any, PackWidget]:
        viewer = make_napari_viewer(show=True)
        _, widget = viewer.window.add_plugin_dock_widget("napari-xai-med", "Pack a classifier")
        return viewer, widget

    return open_it


def choose(combo: Any, data: Any) -> None:
    index = combo.findData(data)
    assert index >= 0
    combo.setCurrentIndex(index)


def fill(qtbot: Any, widget: PackWidget, file: Path, folder: Path, *names: str) -> None:
    widget.file.set_path(str(file))
    finish(qtbot, widget)
    widget.folder.set_path(str(folder))
    widget.classes.setPlainText("\n".join(names))


def test_bare_weights_become_a_bundle_and_are_explained(opened: Opened, qtbot: Any, tmp_path: Path) -> None:
    viewer, widget = opened()
    torch.save(build("resnet10", spatial_dims=2, num_classes=3).state_dict(), tmp_path / "lungs.pt")
    assert not widget.explain_button.isEnabled()
    fill(qtbot, widget, tmp_path / "lungs.pt", tmp_path / "made", "нормально", "结节", "other")
    assert "weights only" in widget.told.text()
    choose(widget.architecture, "resnet10")
    widget.options.set_value("spatial_dims", 2)
    form = widget.preprocessing
    form.presets.setCurrentIndex(form.presets.findData("ct_lung"))
    form.presets.activated.emit(form.presets.currentIndex())
    widget.modality.setCurrentText("CT")
    widget.pack_button.click()
    finish(qtbot, widget)
    assert widget.result.text() == f"lungs is packed in {tmp_path / 'made'}: нормально, 结节, other."
    classifier = load_model(tmp_path / "made")
    assert (classifier.class_names, classifier.steps) == (("нормально", "结节", "other"), preset("ct_lung", 2))
    # On to explaining, in the same window.
    viewer.open_sample("napari-xai-med", "slice_nodule")
    widget.explain_button.click()
    (explaining,) = viewer.window._qt_window.findChildren(ExplainWidget)
    assert explaining.isVisible()
    assert explaining.classifier.source() == str(tmp_path / "made")
    explaining.explain_button.click()
    finish(qtbot, explaining)
    expected = explain(sample_files("slice_nodule")[0], classifier)
    np.testing.assert_allclose(np.squeeze(viewer.layers[-1].data), expected.values, atol=1e-6)


@pytest.mark.parametrize(("logits", "head", "names"), [(3, "auto", "abc"), (1, "one_logit", "ab"), (2, "auto", "ab")])
def test_class_names_and_head_tell_the_number_of_logits(
    opened: Opened, qtbot: Any, tmp_path: Path, logits: int, head: str, names: str
) -> None:
    _, widget = opened()
    torch.save(build("resnet10", spatial_dims=2, num_classes=logits).state_dict(), tmp_path / "n.pt")
    fill(qtbot, widget, tmp_path / "n.pt", tmp_path / "made", *names)
    choose(widget.architecture, "resnet10")
    assert "num_classes" not in widget.options.values()
    widget.options.set_value("spatial_dims", 2)
    choose(widget.head, head)
    widget.pack_button.click()
    finish(qtbot, widget)
    assert load_model(tmp_path / "made").class_names == tuple(names)


def test_another_file_clears_what_was_told_of_the_last(opened: Opened, qtbot: Any, tmp_path: Path) -> None:
    _, widget = opened()
    torch.save(build("resnet10", spatial_dims=2, num_classes=2).state_dict(), tmp_path / "n.pt")
    fill(qtbot, widget, tmp_path / "n.pt", tmp_path / "made", "a", "b")
    widget.pack_button.click()
    finish(qtbot, widget)
    assert "name the architecture" in widget.result.text()
    widget.file.set_path(str(tmp_path / "n.pt"))
    finish(qtbot, widget)
    assert widget.result.text() == ""


def test_what_a_file_says_of_itself_is_shown_and_not_asked_again(opened: Opened, qtbot: Any, tmp_path: Path) -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.first, self.second = nn.Conv3d(1, 4, 3), nn.Linear(4, 2), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            means = self.conv(x).mean((2, 3, 4))
            return self.first(means), self.second(means).softmax(1)

    torch.manual_seed(0)
    network = Heads().eval()
    torch.export.save(torch.export.export(network, (torch.rand(1, 1, 8, 9, 10),)), tmp_path / "two.pt2")
    _, widget = opened()
    widget.file.set_path(str(tmp_path / "two.pt2"))
    finish(qtbot, widget)
    assert "1 x 8 x 9 x 10" in widget.told.text()
    assert "(3, softmax)" in widget.told.text()
    assert not widget.architecture.isEnabled()
    assert widget.folder.path() == tmp_path / "two_bundle"
    widget.output.setCurrentIndex(2)
    widget.classes.setPlainText("a\nb\n\n c \n")
    widget.pack_button.click()
    finish(qtbot, widget)
    classifier = load_model(tmp_path / "two_bundle")
    assert classifier.class_names == ("a", "b", "c")
    volume = sample_files("chest_ct_lesion")[0]
    own = ({"_target_": "Resized", "keys": "image", "spatial_size": [8, 9, 10]},)
    found = predict(volume, classifier, preprocessing=own)
    assert len(found.probabilities) == 3
    assert sum(found.probabilities) == pytest.approx(1, abs=1e-6)


def test_windows_are_packed(opened: Opened, qtbot: Any, tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    torch.export.save(torch.export.export(network, (torch.rand(1, 1, 16, 16, 16),)), tmp_path / "patch.pt2")
    _, widget = opened()
    fill(qtbot, widget, tmp_path / "patch.pt2", tmp_path / "made", "a", "b")
    assert not widget.window.isVisible()
    choose(widget.aggregate, Aggregate.MAX)
    assert widget.window.isVisible()
    widget.window.setText("16, 16, 16")
    widget.overlap.setValue(0.25)
    widget.batch.setValue(2)
    widget.pack_button.click()
    finish(qtbot, widget)
    windows = load_model(tmp_path / "made").windows
    assert windows is not None
    assert (windows.roi_size, windows.aggregate, windows.overlap, windows.batch_size) == ((16,) * 3, "max", 0.25, 2)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda widget: widget.file.set_path(""), "Choose the network's file first."),
        (lambda widget: widget.folder.set_path(""), "Give the folder of the new bundle."),
        (lambda widget: widget.classes.setPlainText(" \n"), "Give the class names, in the order"),
        (lambda widget: widget.shape.setText("1, many"), "'1, many' is no list of whole numbers; correct the input"),
        (lambda widget: choose(widget.architecture, ""), "holds weights only; name the architecture"),
        (lambda widget: choose(widget.architecture, "resnet34"), "do not fit the network"),
        (lambda widget: widget.file.set_path(__file__), "is of no format that can be loaded"),
    ],
    ids=["no file", "no folder", "no names", "shape", "no architecture", "other architecture", "no network"],
)
def test_what_is_missing_or_wrong_is_one_sentence(
    opened: Opened, qtbot: Any, tmp_path: Path, change: Callable[[PackWidget], None], sentence: str
) -> None:
    _, widget = opened()
    torch.save(build("resnet10", spatial_dims=2, num_classes=2).state_dict(), tmp_path / "n.pt")
    fill(qtbot, widget, tmp_path / "n.pt", tmp_path / "made", "a", "b")
    choose(widget.architecture, "resnet10")
    widget.options.set_value("spatial_dims", 2)
    change(widget)
    finish(qtbot, widget)
    notification_manager.records.clear()
    widget.pack_button.click()
    finish(qtbot, widget)
    assert sentence in last_sentence().message
    assert sentence in widget.result.text()
    assert not (tmp_path / "made").exists()
    # What was filled in is still there.
    assert widget.options.values()["spatial_dims"] == 2 or widget.architecture.currentData() != "resnet10"
    assert not widget.explain_button.isEnabled()


def test_cancel_leaves_nothing_and_packing_goes_on_afterwards(opened: Opened, qtbot: Any, tmp_path: Path) -> None:
    _, widget = opened()
    torch.save(build("resnet10", spatial_dims=2, num_classes=2).state_dict(), tmp_path / "n.pt")
    fill(qtbot, widget, tmp_path / "n.pt", tmp_path / "made", "a", "b")
    choose(widget.architecture, "resnet10")
    widget.options.set_value("spatial_dims", 2)
    widget.pack_button.click()
    assert widget.cancel_button.isEnabled()
    widget.cancel_button.click()
    finish(qtbot, widget)
    assert "Stopped" in last_sentence().message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["n.pt"]
    widget.pack_button.click()
    finish(qtbot, widget)
    assert widget.packed == tmp_path / "made"


def test_it_is_opened_from_the_classifiers_beside_the_explaining(make_napari_viewer: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer(show=True)
    dock, widget = viewer.window.add_plugin_dock_widget("napari-xai-med", "Explain a classifier")
    picker, before = widget.classifier, widget.classifier.source()
    picker.setCurrentIndex(picker.findText("Make a bundle of a file…"))
    (packing,) = viewer.window._qt_window.findChildren(PackWidget)
    assert picker.source() == before
    packing_dock = dock_of(viewer, packing)
    qtbot.waitUntil(lambda: packing_dock in viewer.window._qt_window.tabifiedDockWidgets(dock))
    assert packing.isVisible()
