"""Make the pictures of README and docs from a real napari window: ``xvfb-run -a python docs/make_screenshots.py``."""

from __future__ import annotations

import time
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

import napari
import numpy as np
import torch
from qtpy.QtWidgets import QApplication

from napari_xai_med.models.architectures import build
from napari_xai_med.segments.choice import BODY
from napari_xai_med.widgets.explain import ExplainWidget

IMAGES = Path(__file__).parent / "images"
_SAMPLE = "chest_ct_lesion"


def wait(seconds: float) -> None:
    """Let Qt and napari work."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)


def main() -> None:
    """Open the sample, explain it as a user does, and take the window in 2D and in 3D."""
    viewer = napari.Viewer()
    viewer.window.resize(1500, 900)
    viewer.open_sample("napari-xai-med", _SAMPLE)
    viewer.layers[f"{_SAMPLE}_mask"].contour = 1
    _, widget = viewer.window.add_plugin_dock_widget("napari-xai-med", "Explain a classifier")
    widget.explain(viewer.layers[_SAMPLE], "chest_ct_3d")
    while widget.task.running:
        wait(0.1)
    viewer.reset_view()
    wait(1)
    IMAGES.mkdir(exist_ok=True)
    viewer.screenshot(str(IMAGES / "widget_2d.png"), canvas_only=False, flash=False)
    viewer.dims.ndisplay = 3
    viewer.layers[_SAMPLE].rendering = "average"
    viewer.layers[_SAMPLE].contrast_limits = (-900, -100)
    widget.heatmap.threshold.setValue(40)
    viewer.reset_view()
    # From the front, a little from the left and from above, with the head up.
    viewer.scene.camera.set_view_direction(view_direction=(0.3, 1, -0.35), up_direction=(-1, 0, 0))
    wait(1)
    viewer.screenshot(str(IMAGES / "widget_3d.png"), canvas_only=False, flash=False)
    viewer.dims.ndisplay = 2
    with TemporaryDirectory() as folder, chdir(folder):
        packing(viewer, widget)
    viewer.close()
    inside()
    slices()
    plane()
    segments()
    checking()


def packing(viewer: napari.Viewer, widget: ExplainWidget) -> None:
    """Fill in the form for a network with weights of no use, and take the window."""
    torch.save(build("resnet18", spatial_dims=3).state_dict(), "resnet18.pt")
    form = widget.open_beside("Pack a classifier")
    form.file.set_path("resnet18.pt")
    while form.task.running:
        wait(0.1)
    form.architecture.setCurrentIndex(form.architecture.findData("resnet18"))
    form.classes.setPlainText("normal\nground glass")
    steps = form.preprocessing
    steps.presets.setCurrentIndex(steps.presets.findData("ct_lung"))
    steps.presets.activated.emit(steps.presets.currentIndex())
    form.pack()
    while form.task.running:
        wait(0.1)
    wait(1)
    viewer.screenshot(str(IMAGES / "widget_pack.png"), canvas_only=False, flash=False)


def inside() -> None:
    """Show the feature maps of a layer, add the most active one, and take the window."""
    viewer = napari.Viewer()
    viewer.window.resize(1500, 900)
    viewer.open_sample("napari-xai-med", _SAMPLE)
    _, look = viewer.window.add_plugin_dock_widget("napari-xai-med", "Look inside a network")
    look.show_maps()
    while look.task.running:
        wait(0.1)
    look.add_channels(look.thumbnails.channels()[:1])
    viewer.reset_view()
    wait(1)
    viewer.screenshot(str(IMAGES / "widget_inside.png"), canvas_only=False, flash=False)
    viewer.close()


def slices() -> None:
    """Go from the sample to its explained slices with one click, and take the window."""
    viewer = napari.Viewer()
    viewer.window.resize(1500, 900)
    viewer.open_sample("napari-xai-med", _SAMPLE)
    viewer.layers[f"{_SAMPLE}_mask"].contour = 1
    _, widget = viewer.window.add_plugin_dock_widget("napari-xai-med", "Slices of a volume")
    wait(1)
    widget.explain()
    while widget.task.running:
        wait(0.1)
    viewer.reset_view()
    wait(1)
    viewer.screenshot(str(IMAGES / "widget_slices.png"), canvas_only=False, flash=False)
    viewer.close()


def plane() -> None:
    """Explain an oblique slice through the sample's lesion by superpixels, and take the window."""
    viewer = napari.Viewer()
    viewer.window.resize(1500, 900)
    viewer.open_sample("napari-xai-med", _SAMPLE)
    source, mask = viewer.layers[_SAMPLE], viewer.layers[f"{_SAMPLE}_mask"]
    _, widget = viewer.window.add_plugin_dock_widget("napari-xai-med", "Explain a classifier")
    widget.image.choose(source)
    widget.classifier.choose("chest_ct_2d")
    widget.method.setCurrentIndex(widget.method.findData("shapley"))
    widget.question.segments.options.set_value("number", 24)
    widget.options.set_value("evaluations", 4000)
    mask.visible = False
    viewer.dims.ndisplay, source.depiction = 3, "plane"
    source.plane.position, source.plane.normal = np.argwhere(mask.data).mean(0), (1, 0.4, 0.15)
    # What napari knows of the mouse only once it is moved in 3D.
    viewer.mouse_over_canvas = False
    widget.run_explain()
    while widget.task.running:
        wait(0.1)
    viewer.reset_view()
    # From the feet, a little from the front, with the front up.
    viewer.scene.camera.set_view_direction(view_direction=(-1, 0.3, 0.2), up_direction=(0, -1, 0))
    wait(1)
    viewer.screenshot(str(IMAGES / "widget_plane.png"), canvas_only=False, flash=False)
    viewer.close()


def segments() -> None:
    """Explain the sample slice by superpixels, look at the one that counts most, and take the window."""
    viewer = napari.Viewer()
    viewer.window.resize(1500, 900)
    viewer.open_sample("napari-xai-med", "slice_nodule")
    _, widget = viewer.window.add_plugin_dock_widget("napari-xai-med", "Explain a classifier")
    wait(1)
    widget.classifier.choose("chest_ct_2d")
    widget.method.setCurrentIndex(widget.method.findData("shapley"))
    form = widget.question.segments
    form.options.set_value("number", 24)
    form.mask.setCurrentIndex(form.mask.findData(BODY))
    # Enough for the order of the segments to be settled.
    widget.options.set_value("evaluations", 4000)
    viewer.layers["slice_nodule_mask"].contour = 1
    widget.run_explain()
    while widget.task.running:
        wait(0.1)
    heatmap, contours = viewer.layers[-2:]
    viewer.reset_view()
    # What the status bar says of the segment under the cursor.
    viewer.layers.selection.active = contours
    place = np.unravel_index(abs(heatmap.data).argmax(), heatmap.data.shape)
    viewer.mouse_over_canvas = True
    viewer.cursor.position = contours.data_to_world(place)
    wait(1)
    bar = widget._scroll.verticalScrollBar()
    bar.setValue(bar.maximum())
    wait(1)
    viewer.screenshot(str(IMAGES / "widget_segments.png"), canvas_only=False, flash=False)
    viewer.close()


def checking() -> None:
    """Check the sample's explanation, show its overlap with the mask, and take the window."""
    viewer = napari.Viewer()
    viewer.window.resize(1600, 1000)
    viewer.open_sample("napari-xai-med", _SAMPLE)
    _, widget = viewer.window.add_plugin_dock_widget("napari-xai-med", "Explain a classifier")
    widget.explain(viewer.layers[_SAMPLE], "chest_ct_3d")
    while widget.task.running:
        wait(0.1)
    widget.open_check()
    check = viewer.window.dock_widgets["Check an explanation (napari-xai-med)"]
    check.masks.choose([viewer.layers[f"{_SAMPLE}_mask"]])
    viewer.layers[f"{_SAMPLE}_mask"].visible = False
    for work in (check.check, check.show_overlap):
        work()
        while check.task.running:
            wait(0.1)
    viewer.reset_view()
    wait(1)
    viewer.screenshot(str(IMAGES / "widget_check.png"), canvas_only=False, flash=False)
    viewer.close()


if __name__ == "__main__":
    main()
