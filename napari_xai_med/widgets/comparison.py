"""Several explanations side by side, in a window of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import napari
import numpy as np
from napari.layers import Image as ImageLayer

from napari_xai_med.attribution import DISCLAIMER
from napari_xai_med.errors import InputError
from napari_xai_med.layers import METADATA_KEY, LayerView
from napari_xai_med.layers_plane import plane_in_voxels
from napari_xai_med.layers_segments import transform_of
from napari_xai_med.widgets.planes import watch_planes

MOST = 6
_LOOK = ("colormap", "opacity", "blending", "interpolation2d", "interpolation3d", "rendering", "rgb")
_GAP = 0.05
"""Between two of them, by their size."""


def compare(view: LayerView, heatmaps: Sequence[ImageLayer], point: Sequence[float] = ()) -> napari.Viewer:
    """Show the same slice, or plane in 3D, of up to six heatmaps side by side over their image, with linked contrast.

    In a window of its own, since napari's grid takes all layers of a window. Maps of one method and quantity have one
    scale; others differ in their units, and are divided by their largest absolute value, which their names tell.

    Parameters
    ----------
    view : LayerView
        The image that they explain; its voxels are shared and not copied.
    heatmaps : sequence of napari.layers.Image
    point : sequence of float
        Where the sliders stand, in the world.

    Raises
    ------
    InputError
        If there are fewer than two, or more than six, or they explain different images.
    """
    if not 2 <= len(heatmaps) <= MOST:
        raise InputError(f"Choose 2 to {MOST} explanations to compare, not {len(heatmaps)}.")
    _check_same_image(heatmaps)
    scaled = len({_unit(layer) for layer in heatmaps}) > 1
    tops = [float(np.abs(layer.data).max()) or 1.0 for layer in heatmaps]
    top = 1.0 if scaled else max(tops)
    image, plane = view.layer, heatmaps[0].metadata[METADATA_KEY]["record"]["image"]["oblique"]
    if plane is not None and len(view.spatial) != 3:
        raise InputError(f"{heatmaps[0].name} explains a plane of a volume; choose that volume as the image.")
    viewer = napari.Viewer(title=f"Explanations side by side. {DISCLAIMER}")
    shown = []
    for layer, own in zip(heatmaps, tops, strict=True):
        viewer.add_layer(_again(image, image.data, image.name))
        data = layer.data / np.float32(own) if scaled else layer.data
        # The image has its own layer beside it.
        name = layer.name.removeprefix(f"{image.name}: ")
        shown.append(_again(layer, data, f"{name}, divided by {own:.3g}" if scaled else name))
        shown[-1].contrast_limits = (-top if _is_signed(layer) else 0.0, top)
        viewer.add_layer(shown[-1])
    viewer.layers.link_layers(shown, ("opacity",))
    for kind in {_is_signed(layer) for layer in heatmaps}:
        # With the limits of signed maps, colours of the others would show where these are 0.
        alike = [copy for copy, layer in zip(shown, heatmaps, strict=True) if _is_signed(layer) is kind]
        viewer.layers.link_layers(alike, ("contrast_limits",))
    viewer.layers.link_layers(
        [layer for layer in viewer.layers if layer not in shown], ("contrast_limits", "gamma", "visible")
    )
    # napari before 0.9 has both at the viewer itself.
    canvas = getattr(viewer, "canvas", None)
    grid, overlay = (viewer.grid, viewer.text_overlay) if canvas is None else (canvas.grid, canvas.overlays.text)
    grid.stride, grid.spacing, grid.enabled = 2, _GAP, True
    viewer.reset_view(margin=2 * _GAP)
    for axis, value in enumerate(point):
        viewer.dims.set_point(axis, value)
    if plane is not None:
        viewer.dims.ndisplay = 3
        for layer in viewer.layers[::2]:
            layer.depiction = "plane"
            where = plane_in_voxels(view, (plane["point"], plane["normal"]), layer)
            layer.plane.position, layer.plane.normal = where
        for layer in shown:
            layer.metadata[METADATA_KEY] = {"plane": True}
        watch_planes(viewer)
    overlay.text = "\n".join([*(f"{k}: {each.name}" for k, each in enumerate(shown, 1)), DISCLAIMER])
    overlay.visible = True
    return viewer


def _check_same_image(heatmaps: Sequence[ImageLayer]) -> None:
    """Refuse maps of different images: all are shown over the same one."""
    first, *others = [(layer.name, layer.metadata[METADATA_KEY]["record"]["image"]["sha256"]) for layer in heatmaps]
    for name, sha256 in others:
        if sha256 != first[1]:
            raise InputError(
                f"{name} and {first[0]} do not explain the same image; choose explanations of one image to compare."
            )


def _is_signed(layer: ImageLayer) -> bool:
    return bool(layer.metadata[METADATA_KEY]["look"]["signed"])


def _unit(layer: ImageLayer) -> tuple[Any, ...]:
    request = layer.metadata[METADATA_KEY]["record"]["request"]
    return request["method"], request["quantity"], request["minus"]


def _again(layer: ImageLayer, data: Any, name: str) -> ImageLayer:
    """Another layer that looks the same and lies at the same place."""
    look = {key: getattr(layer, key) for key in _LOOK}
    if layer.rgb:
        del look["colormap"]
    else:
        look["contrast_limits"] = layer.contrast_limits
    return ImageLayer(data, name=name, **look, **transform_of(layer))
