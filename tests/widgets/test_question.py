"""Classes, quantities, differences and bands in the widget."""

from __future__ import annotations

from typing import Any

import numpy as np
from viewers import Open, finish, last_sentence

from napari_xai_med import explain, explain_all, load_model, read_image
from napari_xai_med.layers import METADATA_KEY
from napari_xai_med.samples import sample_files


def asked(widget: Any, viewer: Any, qtbot: Any, **choices: str) -> Any:
    """The newest layer, after the boxes were set by their texts and Explain was pressed."""
    for name, text in choices.items():
        box = getattr(widget.question, name)
        assert box.findText(text) >= 0, text
        box.setCurrentIndex(box.findText(text))
    widget.explain_button.click()
    finish(qtbot, widget)
    return viewer.layers[-1]


def test_each_class_rather_than_another_as_log_odds_and_the_opposite(opened: Open, qtbot: Any) -> None:
    viewer, widget = opened("chest_ct_lesion")
    image, classifier = read_image(sample_files("chest_ct_lesion")[0]), load_model("chest_ct_3d")
    before = len(viewer.layers)
    asked(widget, viewer, qtbot, target="each class")
    added = viewer.layers[before:]
    assert [layer.name for layer in added] == [
        f"chest_ct_lesion: Grad-CAM, {name}{zero}" for name, zero in (("normal", ""), ("ground glass", ""))
    ]
    records = [layer.metadata[METADATA_KEY]["record"]["result"]["sha256"] for layer in added]
    assert records == [each.record.result["sha256"] for each in explain_all(widget_image(widget), classifier)]
    layer = asked(widget, viewer, qtbot, target="ground glass", against="normal")
    assert layer.name == "chest_ct_lesion: Grad-CAM, ground glass rather than normal"
    expected = explain(image, classifier, target="ground glass", against="normal")
    assert float(layer.data.max()) == np.float32(expected.values.max())
    layer = asked(widget, viewer, qtbot, against="no other class", quantity="log-odds")
    assert layer.name.endswith("log-odds of ground glass")
    widget.question.opposite.setChecked(True)
    layer = asked(widget, viewer, qtbot, quantity="logit")
    assert layer.name.endswith("against ground glass") or layer.name.endswith("against ground glass (zero everywhere)")
    assert "opposite=True" in widget.python()


def widget_image(widget: Any) -> Any:
    """The image as the widget gives it to the pipeline."""
    return widget.inputs.chosen().image()


def test_bands_of_a_heatmap_become_labels_where_it_lies(opened: Open, qtbot: Any) -> None:
    viewer, widget = opened("chest_ct_lesion")
    heatmap = asked(widget, viewer, qtbot)
    widget.heatmap.bands_button.click()
    labels = viewer.layers[-1]
    share = heatmap.data / heatmap.data.max()
    np.testing.assert_array_equal(labels.data, np.digitize(share, [0.3, 0.7], right=True))
    for name in ("scale", "translate", "rotate", "shear", "units"):
        np.testing.assert_array_equal(getattr(labels, name), getattr(heatmap, name))
    assert list(labels.features["band"])[1:] == ["0.3 to 0.7 of the maximum", "0.7 to 1 of the maximum"]
    for wrong, sentence in (("0.7, 0.3", "can't be the edges of bands"), ("some", "is no list of numbers")):
        widget.heatmap.edges.setText(wrong)
        count = len(viewer.layers)
        widget.heatmap.bands_button.click()
        assert len(viewer.layers) == count
        assert sentence in last_sentence().message
