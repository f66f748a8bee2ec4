"""Layers on planes of a volume, which are seen in 3D only."""

from __future__ import annotations

import napari

from napari_xai_med.layers import METADATA_KEY

HIDDEN = "hidden"
"""Where the metadata of such a layer say that it was seen before."""


def watch_planes(viewer: napari.Viewer) -> None:
    """From now on hide the layers on planes while the viewer shows slices, where napari would draw them unturned."""

    # napari keeps functions, and not methods: the layers may be there longer than the widget that made them.
    def look() -> None:
        show_planes(viewer)

    viewer.dims.events.ndisplay.connect(look)
    viewer.layers.events.inserted.connect(look)


def show_planes(viewer: napari.Viewer) -> None:
    """Show in 3D, and hide in 2D, the layers on planes that the user did not hide."""
    for layer in viewer.layers:
        own = layer.metadata.get(METADATA_KEY, {})
        if "plane" in own and viewer.dims.ndisplay == 2:
            own[HIDDEN] = own.get(HIDDEN, False) or layer.visible
            layer.visible = False
        elif own.pop(HIDDEN, False):
            # Also one that went along with live mode from a plane to a slice.
            layer.visible = True
