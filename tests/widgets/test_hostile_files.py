"""Hostile and broken files in the viewer: one sentence each, and everything still works afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_files import SHAPE
from hostile_inputs import IMAGES
from hostile_networks import MODELS
from napari.utils.notifications import notification_manager

from napari_xai_med.errors import InputError
from napari_xai_med.plugin import read_layer
from napari_xai_med.widgets.explain import ExplainWidget

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def finish(qtbot: Any, widget: ExplainWidget) -> None:
    qtbot.waitUntil(lambda: not widget.task.running, timeout=120_000)


def made(folder: Path) -> dict[str, Path]:
    """All classifiers whose packages are installed."""
    paths = {}
    for name, hostile in MODELS.items():
        (folder / name).mkdir()
        try:
            paths[name] = hostile.make(folder / name)
        except pytest.skip.Exception:
            continue
    return paths


def test_each_file_is_one_sentence_and_then_a_good_classifier_explains(
    make_napari_viewer: Any, qtbot: Any, tmp_path: Path
) -> None:
    viewer = make_napari_viewer(show=True)
    values = np.random.default_rng(0).normal(size=SHAPE)
    layer = viewer.add_image(values, name="noise")
    _, widget = viewer.window.add_plugin_dock_widget("napari-xai-med", "Explain a classifier")
    said: dict[str, list[str]] = {}
    for name, path in made(tmp_path).items():
        notification_manager.records.clear()
        widget.image.choose(layer)
        widget.classifier.choose(str(path))
        # It asks for no layers, so that a network without them is asked too.
        widget.classify_button.click()
        finish(qtbot, widget)
        said[name] = [record.message for record in notification_manager.records]
        widget.explain_button.click()
        finish(qtbot, widget)
        assert list(viewer.layers) == [layer], name
    wrong = {
        name: sentences
        for name, sentences in said.items()
        if len(sentences) != 1 or MODELS[name].says not in sentences[0] or "\n" in sentences[0]
    }
    assert wrong == {}
    assert len(said) > 25
    assert not list(tmp_path.rglob("canary"))
    np.testing.assert_array_equal(layer.data, values)
    widget.explain(viewer.open_sample("napari-xai-med", "chest_ct_lesion")[0], "chest_ct_3d")
    finish(qtbot, widget)
    assert viewer.layers[-1].name == "chest_ct_lesion: Grad-CAM, ground glass"


@pytest.mark.parametrize("name", [name for name in IMAGES if "nii" in name or "nifti" in name])
def test_images_are_one_sentence_for_napari_s_reader(name: str, tmp_path: Path) -> None:
    path = IMAGES[name].make(tmp_path)
    with pytest.raises(InputError) as caught:
        read_layer(path)
    assert "\n" not in str(caught.value)
