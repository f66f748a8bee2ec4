"""Layers on planes of a volume, which are seen in 3D only."""

from __future__ import annotations

from typing import Any

import napari

from napari_xai_med.layers import METADATA_KEY

HIDDEN = "hidden"
"""Where the metadata of such a layer say that it was seen before."""


class Planes:
    """Hides the layers on planes while the viewer shows slices, where napari would draw them without their rotation.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: napari.Viewer) -> None:
        self._viewer = viewer
        viewer.dims.events.ndisplay.connect(self.look)

    def look(self, *_: Any) -> None:
        """Hide or show them again, as the viewer is now."""
        show_planes(self._viewer)


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
