"""Classes, quantities, differences and bands in the widget."""

from __future__ import annotations

from typing import Any

import numpy as np
from viewers import Open, finish, last_sentence

from napari_xai_med import explain, explain_all, load_model, read_image
from napari_xai_med.explainers.base import explainers
from napari_xai_med.explanation import explain_request
from napari_xai_med.job import Job
from napari_xai_med.layers import METADATA_KEY
from napari_xai_med.options import option_fields
from napari_xai_med.request import ExplainRequest
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
    assert "what speaks against ground glass" in layer.name
    assert "opposite=True" in widget.python()


def test_the_two_most_probable_classes_have_a_layer_each(opened: Open, qtbot: Any) -> None:
    viewer, widget = opened("slice_nodule", "chest_ct_2d")
    before = len(viewer.layers)
    asked(widget, viewer, qtbot, target="2 most probable")
    names = [each.class_name for each in explain_all(widget_image(widget), "chest_ct_2d", top_classes=2)]
    assert [layer.name for layer in viewer.layers[before:]] == [f"slice_nodule: Grad-CAM, {name}" for name in names]
    assert widget.target.findText("3 most probable") < 0


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


def test_every_method_adds_a_map_or_says_why_not(opened: Open, qtbot: Any) -> None:
    viewer, widget = opened("chest_ct_lesion")
    source = viewer.layers["chest_ct_lesion"]
    for name, kind in explainers().items():
        index = widget.method.findData(name)
        widget.method.setCurrentIndex(index)
        own = [item.name for item in option_fields(kind)]
        if kind.uses_segments:
            widget.question.segments.options.set_value("number", 12)
        few = {"steps": 2, "window": 80.0, "stride": 80.0, "channels": 2}
        for option, value in {**few, "samples": 60, "permutations": 1, "evaluations": 60, "masks": 8}.items():
            if option in own:
                widget.options.set_value(option, value)
        count = len(viewer.layers)
        widget.explain_button.click()
        finish(qtbot, widget)
        assert widget.question.caution.isVisible() == bool(kind.caution)
        if len(viewer.layers) == count:
            # The embedded classifier is no transformer, and its last feature maps are not only pooled.
            assert any(word in last_sentence().message for word in ("attention", "tokens", "CAM needs"))
            assert name in ("attention_rollout", "gradient_rollout", "token_gradcam", "cam")
            continue
        layer = viewer.layers[-1]
        assert layer.name.startswith(f"chest_ct_lesion: {kind.title}, ground glass")
        assert layer.data.shape == source.data.shape
        assert layer.metadata[METADATA_KEY]["record"]["request"]["method"] == name
        assert layer.metadata[METADATA_KEY]["record"]["method"].get("caution", "") == kind.caution
        assert kind.caution in widget.notices.text()
        viewer.layers.remove(layer)
    # By now it is known that it is none.
    assert not widget.method.model().item(widget.method.findData("attention_rollout")).isEnabled()


def test_a_difference_is_signed_and_its_record_gives_it_again(opened: Open, qtbot: Any) -> None:
    viewer, widget = opened("chest_ct_lesion")
    layer = asked(widget, viewer, qtbot, method="HiResCAM", minus="Grad-CAM")
    assert layer.name == "chest_ct_lesion: HiResCAM minus Grad-CAM, ground glass"
    parts = [explain(widget_image(widget), "chest_ct_3d", name) for name in ("hirescam", "gradcam")]
    tops = [np.abs(part.raw).max() for part in parts]
    difference = parts[0].values / tops[0] - parts[1].values / tops[1]
    # The layer is turned as it is displayed; the values are the same.
    np.testing.assert_allclose(np.sort(layer.data, axis=None), np.sort(difference, axis=None), atol=1e-6)
    limits = layer.contrast_limits
    assert limits[0] == -limits[1]
    record = layer.metadata[METADATA_KEY]["record"]
    again = explain_request(
        widget_image(widget), load_model("chest_ct_3d"), ExplainRequest.from_dict(record["request"]), Job()
    )
    assert again.record.result["sha256"] == record["result"]["sha256"]
