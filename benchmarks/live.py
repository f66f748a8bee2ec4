"""How long live mode takes to explain the slice under the slider: ``xvfb-run -a python benchmarks/live.py [METHOD]``.

The embedded classifier of slices looks at slices of the sample volume, each of which comes for the first time. Times
run from the last movement of the slider to the layers that show the slice, and hold the wait for its rest.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import napari
import numpy as np
from qtpy.QtWidgets import QApplication

from napari_xai_med.segments.choice import SegmentChoice
from napari_xai_med.widgets.explain import ExplainWidget
from napari_xai_med.widgets.live import REST_MS

SAMPLE, MODEL, SUPERPIXELS = "chest_ct_lesion", "chest_ct_2d", 50
_GOALS = {"first estimate": 0.3, "settled": 2.0}


def wait_for(done: Any) -> float:
    """Let the viewer live until something is true; the longest time, in seconds, that it was busy with one event."""
    longest = 0.0
    while not done():
        start = time.perf_counter()
        QApplication.processEvents()
        longest = max(longest, time.perf_counter() - start)
        time.sleep(0.001)
    return longest


def measure(viewer: napari.Viewer, widget: ExplainWidget) -> dict[str, list[float]]:
    """Seconds to the first estimate, to the result, and of the viewer's longest silence, for each slice."""
    found: dict[str, list[float]] = {"first estimate": [], "settled": [], "longest silence": [], "back again": []}
    shown: list[tuple[float, bool]] = []
    widget.live.shown.connect(lambda _, final: shown.append((time.perf_counter(), final)))
    wait_for(lambda: shown and shown[-1][1])
    slices = [
        k for k in np.random.default_rng(0).permutation(viewer.dims.nsteps[0]) if k != viewer.dims.current_step[0]
    ]
    for index in slices:
        shown.clear()
        # As a hand does: over a slice beside it.
        viewer.dims.set_current_step(0, index - 1 if index else 1)
        QApplication.processEvents()
        shown.clear()
        viewer.dims.set_current_step(0, index)
        start = time.perf_counter()
        silence = wait_for(lambda: shown and shown[-1][1])
        for name, value in zip(found, (shown[0][0] - start, shown[-1][0] - start, silence), strict=False):
            found[name].append(value)
    for index in slices:
        start = time.perf_counter()
        viewer.dims.set_current_step(0, index)
        found["back again"].append(time.perf_counter() - start)
    return found


def main(method: str) -> None:
    """Print the distribution of each time."""
    viewer = napari.Viewer()
    viewer.open_sample("napari-xai-med", SAMPLE)
    _, widget = viewer.window.add_plugin_dock_widget("napari-xai-med", "Explain a classifier")
    widget.image.choose(viewer.layers[SAMPLE])
    widget.classifier.choose(MODEL)
    widget.method.setCurrentIndex(widget.method.findData(method))
    form = widget.question.segments
    form.method.setCurrentIndex(form.method.findData(SegmentChoice().method))
    form.options.set_value("number", SUPERPIXELS)
    widget.live_box.setChecked(True)
    found = measure(viewer, widget)
    print(f"{method}, {SUPERPIXELS} superpixels, {len(found['settled'])} slices; the slider rests {REST_MS} ms")
    print(f"{'seconds':<16}{'median':>8}{'90 %':>8}{'worst':>8}{'goal':>8}")
    for name, values in found.items():
        numbers = "".join(f"{number:8.3f}" for number in (*np.percentile(values, (50, 90)), max(values)))
        print(f"{name:<16}{numbers}{_GOALS.get(name, ''):>8}")
    widget.live_box.setChecked(False)
    viewer.close()


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["segment_occlusion"]))
