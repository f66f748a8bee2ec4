"""The heatmap layers of a widget: what each explains, with its segments, and the newest estimate in each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import napari
from napari.layers import Image as ImageLayer
from napari.layers import Labels as LabelsLayer
from napari.layers import Layer
from napari.utils.colormaps import DirectLabelColormap

from napari_xai_med.attribution import Attribution
from napari_xai_med.basis import evaluations
from napari_xai_med.io.results import ResultFiles, save_results
from napari_xai_med.job import Job
from napari_xai_med.layers import METADATA_KEY, LayerTuple
from napari_xai_med.layers_segments import Drawn, best_to_layer, segments_to_layer
from napari_xai_med.segmenting import PlacedSegments
from napari_xai_med.segments.best import Best
from napari_xai_med.widgets.asked import Shown, unchanged
from napari_xai_med.widgets.inputs import Chosen
from napari_xai_med.widgets.planes import show_planes, watch_planes
from napari_xai_med.widgets.results import add_heatmap, refill, update_heatmap
from napari_xai_med.widgets.task import Work

_CONTOURS = DirectLabelColormap(color_dict={None: "white", 0: "transparent"}, name="white")
"""One colour for all: the colours under the contours are what tells the segments apart."""


@dataclass(frozen=True)
class _BestOf:
    """The layer of the best segments of a heatmap, and what it shows."""

    layer: LabelsLayer
    count: int
    which: Best


class Heatmaps:
    """The heatmap layers that a widget made, and the layers of segments and of the best of them that go with each.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: napari.Viewer) -> None:
        self.viewer = viewer
        self.results: dict[ImageLayer, Shown] = {}
        self._segments: dict[ImageLayer, LabelsLayer] = {}
        self._best: dict[ImageLayer, _BestOf] = {}
        self._alone: LabelsLayer | None = None
        # Heatmaps whose segments the user took away.
        self._unwanted: set[ImageLayer] = set()
        watch_planes(viewer)

    def put(
        self, layer: ImageLayer | None, shown: Shown, limits: tuple[float, float] | None = None, told: str = ""
    ) -> ImageLayer:
        """Show an attribution in a new layer, or in place of what a layer shows; `told` ends its name."""
        chosen, attribution = shown.asked.chosen, shown.attribution
        view = chosen.view
        views = (view, *chosen.views[1:])
        if layer is None:
            layer = add_heatmap(self.viewer, views, attribution, limits, told)
        else:
            update_heatmap(layer, views, attribution, limits, told)
            if (self.results[layer].asked.chosen.oblique is None) != (chosen.oblique is None):
                # Segments of a plane look otherwise than those of a slice.
                self._drop_segments(layer)
        self.results[layer] = shown
        if attribution.segments is None:
            self._drop_segments(layer)
        else:
            name = f"{layer.name}, segments"
            described = segments_to_layer(view, attribution.segments, attribution.grid, name)
            self._show_segments(layer, described, oblique=chosen.oblique is not None)
        self._show_best(layer, shown.asked.drawn)
        # Live mode goes from slices to planes in one layer.
        show_planes(self.viewer)
        # The status bar would go on telling what the segment under the cursor contributed before. In 3D napari fails to
        # tell it until the mouse is moved, which tells it anyway.
        if self.viewer.dims.ndisplay == 2:
            self.viewer.update_status_from_cursor()
        return layer

    def _show_segments(self, heatmap: ImageLayer, described: LayerTuple, *, oblique: bool) -> None:
        data, options, _ = described
        own = {"record": heatmap.metadata[METADATA_KEY]["record"], "follows": True}
        options["metadata"][METADATA_KEY] |= own
        known = self._segments.get(heatmap)
        if known is not None:
            refill(known, data, options)
        elif heatmap not in self._unwanted:
            layer = self._segments[heatmap] = segments_layer(described, oblique=oblique)
            # Not the contours alone, which would hide the heatmap.
            layer.visible = not oblique
            self.viewer.add_layer(layer)

    def show_segments(self, chosen: Chosen, found: PlacedSegments, drawn: Drawn) -> None:
        """Show segments without an explanation, in place of those shown before unless these are drawn in by now."""
        known = self._alone
        if known is not None and known in self.viewer.layers and known not in (drawn.labels, drawn.mask):
            self.viewer.layers.remove(known)
        view = chosen.view
        name = f"{view.layer.name}: {len(found.segments.table) - 1} segments, {found.title}"
        described = segments_to_layer(view, found.segments, found.grid, name)
        self._alone = segments_layer(described, oblique=chosen.oblique is not None)
        self.viewer.add_layer(self._alone)

    def _drop_segments(self, heatmap: ImageLayer) -> None:
        segments = self._segments.pop(heatmap, None)
        if segments is not None and segments in self.viewer.layers:
            self.viewer.layers.remove(segments)

    def add_best(self, layer: ImageLayer, count: int, which: Best) -> None:
        """Show the best segments of a heatmap as a Labels layer, in place of the one shown before."""
        data, options, _ = best_to_layer(layer, count, which)
        known = self._best.get(layer)
        if known is not None:
            self._best[layer] = replace(known, count=count, which=which)
            refill(known.layer, data, options)
            return
        self._best[layer] = _BestOf(LabelsLayer(data, **options), count, which)
        self.viewer.add_layer(self._best[layer].layer)

    def _show_best(self, layer: ImageLayer, drawn: Drawn) -> None:
        """Show the best segments of what a heatmap shows now; what that was made of must stay as it is."""
        known = self._best.get(layer)
        if known is None or known.layer in (drawn.labels, drawn.mask):
            return
        if "segments" in layer.metadata[METADATA_KEY]:
            self.add_best(layer, known.count, known.which)
        else:
            self.viewer.layers.remove(known.layer)

    def python(self, layer: ImageLayer) -> str:
        """The Python call that computes a heatmap again."""
        asked, record = self.results[layer].asked, self.results[layer].attribution.record
        drawn = asked.drawn.as_python(asked.chosen.view)
        return record.explain_request.as_python(asked.chosen.as_python(), record.model["source"], **drawn)

    def saving(self, layer: ImageLayer, folder: str) -> Work:
        """What writes the files of a heatmap."""
        shown = self.results[layer]

        def work(job: Job) -> ResultFiles:
            job.step(0.0, "Writing the files")
            image = unchanged(shown.asked.chosen.image(), shown.attribution)
            return save_results(image, shown.attribution, folder, regions=shown.regions)

        return work

    def heatmap_of(self, layer: Layer | None) -> ImageLayer | None:
        """The heatmap that a layer is, or whose segments it shows."""
        if layer in self.results:
            return layer
        return next((heatmap for heatmap, segments in self._segments.items() if segments == layer), None)

    def hide(self, layer: ImageLayer) -> None:
        """Hide a heatmap with its segments."""
        layer.visible = False
        if layer in self._segments:
            self._segments[layer].visible = False

    def removed(self, layer: Any) -> None:
        """Forget a layer that was removed from the viewer; the segments go with their heatmap."""
        self._unwanted |= {heatmap for heatmap, segments in self._segments.items() if segments == layer}
        self._segments = {heatmap: other for heatmap, other in self._segments.items() if other != layer}
        self._best = {heatmap: best for heatmap, best in self._best.items() if best.layer != layer}
        if layer in self.results:
            del self.results[layer]
            self._best.pop(layer, None)
            self._unwanted.discard(layer)
            self._drop_segments(layer)


class Series:
    """The heatmap layers of one explanation from its first estimate on to its result.

    Parameters
    ----------
    heatmaps : Heatmaps
    told : str
        What all their names end in.
    """

    def __init__(self, heatmaps: Heatmaps, told: str = "") -> None:
        self.layers: list[ImageLayer] = []
        self._heatmaps, self._told = heatmaps, told
        self._estimates: list[Shown] = []
        self._top = 0.0

    def show(self, found: list[Shown], *, final: bool) -> None:
        """Show estimates, or the results, in the same layers; one that the user removed meanwhile stays away."""
        top = max(_top(each.attribution) for each in found)
        goes_on = bool(self._estimates) and self._estimates[0].asked is found[0].asked
        # Limits that follow each estimate would make the colours flicker.
        self._top = max(top, self._top) if goes_on and not final else top
        self._estimates = [] if final else found
        while len(self.layers) > len(found):
            layer = self.layers.pop()
            if layer in self._heatmaps.viewer.layers:
                self._heatmaps.viewer.layers.remove(layer)
        for k, each in enumerate(found):
            layer = self.layers[k] if k < len(self.layers) else None
            if layer is not None and layer not in self._heatmaps.viewer.layers:
                if goes_on:
                    continue
                layer = None
            if layer is None and k:
                # Maps of several classes would hide each other.
                self._heatmaps.hide(self.layers[k - 1])
            self.layers[k : k + 1] = [self._heatmaps.put(layer, each, self._limits(each.attribution), self._told)]

    def _limits(self, attribution: Attribution) -> tuple[float, float] | None:
        """The same for all classes, whose segments are the same; see `Attribution.display_limits`."""
        if attribution.segments is None or not self._top:
            return None
        return (-self._top if attribution.signed else 0.0, self._top)

    def stop(self) -> str:
        """Say of estimates that they are unfinished, in their layers' names; a sentence for the user."""
        if not self._estimates:
            return "Stopped; nothing was changed."
        after = f"stopped after {evaluations(self._estimates[0].attribution)} evaluations"
        self._told = f"{self._told} ({after})"
        self.show(self._estimates, final=False)
        return f"{after.capitalize()}; the estimate so far stays."


def segments_layer(described: LayerTuple, *, oblique: bool) -> LabelsLayer:
    """Segments as contours, or as colours on a plane in 3D, where napari draws no contours; see `segments_to_layer`."""
    data, options, _ = described
    if oblique:
        return LabelsLayer(data, rendering="translucent", **options)
    layer = LabelsLayer(data, colormap=_CONTOURS, **options)
    layer.contour = 1
    return layer


def _top(attribution: Attribution) -> float:
    return 0.0 if attribution.segments is None else float(abs(attribution.values).max())
