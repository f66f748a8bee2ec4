"""The heatmap layers of explained slices, from the first estimate of the first slice on."""

from __future__ import annotations

from napari.layers import Image as ImageLayer

from napari_xai_med.segmenting import Regions
from napari_xai_med.slice_pipeline import ExplainedSlices
from napari_xai_med.widgets.asked import Asked, Read, Shown
from napari_xai_med.widgets.heatmaps import Heatmaps, Series


class SliceMaps:
    """A series for each slice: slices lie beside each other, hide nothing, and have limits of their own.

    Parameters
    ----------
    heatmaps : Heatmaps
    volume : Asked, optional
        What was asked about the volume, if slices are chosen by a heatmap.
    """

    def __init__(self, heatmaps: Heatmaps, volume: Asked | None) -> None:
        self.layers: dict[int, ImageLayer] = {}
        self._heatmaps, self._volume = heatmaps, volume
        self._series: list[Series] = []
        self._finished = 0

    def show(self, read: Read, found: ExplainedSlices) -> bool:
        """Show what is known by now; whether another slice was begun or finished since the last time."""
        before, finished = (len(self._series), self._finished), len(found.attributions) - found.estimated
        if not self._series:
            self._show_volume(found)
        for k in range(self._finished, len(found.attributions)):
            index = found.slices.indices[k]
            if k == len(self._series):
                self._series.append(Series(self._heatmaps, f", {found.slices.plane} {index}"))
            self._series[k].show([Shown(read.asked, read.regions, found.attributions[k])], final=k < finished)
            self.layers[index] = self._series[k].layers[0]
        self._finished = finished
        return before != (len(self._series), finished)

    def _show_volume(self, found: ExplainedSlices) -> None:
        """The heatmap that they were chosen by; hidden, since it would hide the slices' own."""
        if self._volume is not None and found.slices.heatmap is not None:
            layer = self._heatmaps.put(None, Shown(self._volume, Regions(), found.slices.heatmap))
            self._heatmaps.hide(layer)
            layer.colorbar.visible = False

    def stop(self) -> str:
        """Say of an estimate that it is unfinished; a sentence for the user."""
        if self._series and len(self._series) == self._finished:
            return "Stopped; the slices that were explained stay."
        return self._series[-1].stop() if self._series else "Stopped; nothing was changed."
