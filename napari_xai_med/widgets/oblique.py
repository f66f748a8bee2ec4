"""The plane through a volume that the viewer shows in 3D, and a heatmap on it."""

from __future__ import annotations

import json

import napari
import numpy as np
from napari.layers import Image as ImageLayer
from napari.layers import Layer

from napari_xai_med.attribution import Attribution
from napari_xai_med.colours import DEFAULT_THRESHOLD, default_colormap
from napari_xai_med.errors import InputError
from napari_xai_med.grid import Grid
from napari_xai_med.image import Image
from napari_xai_med.layers import METADATA_KEY, LayerView
from napari_xai_med.layers_inside import layer_on
from napari_xai_med.widgets.colours import thresholded


def plane_on_screen(viewer: napari.Viewer, view: LayerView) -> tuple[list[float], list[float]]:
    """A point and the normal, in RAS world, of the plane that the viewer shows of a layer.

    Raises
    ------
    InputError
        If it shows no plane of the layer.
    """
    layer, dims = view.layer, viewer.dims
    if len(view.spatial) != 3 or dims.ndisplay != 3 or layer.depiction != "plane":
        raise InputError(f"Show {layer.name} in 3D first, and choose plane as its depiction in the layer controls.")
    # napari tells it along the axes that are displayed, in voxels.
    shown = [axis - (dims.ndim - layer.ndim) for axis in dims.displayed]
    order = [shown.index(axis) for axis in view.spatial]
    grid = view.grid(tuple(layer.data.shape[k] for k in view.spatial))
    position, normal = (np.array(each, float)[order] for each in (layer.plane.position, layer.plane.normal))
    # A normal belongs to the plane and not to the voxels: it goes through the inverse, transposed.
    across = np.linalg.inv(grid.affine[:3, :3]).T @ normal
    return grid.to_world(position).tolist(), across.tolist()


def add_oblique_heatmap(viewer: napari.Viewer, view: LayerView, attribution: Attribution, grid: Grid) -> ImageLayer:
    """Add the map of an oblique section where it lies in the explained layer.

    Parameters
    ----------
    viewer : napari.Viewer
    view : LayerView
        The layer that the section was made of.
    attribution : Attribution
        Of the section.
    grid : Grid
        Of the section in the world of `view.image()`; see `napari_xai_med.oblique_section`.
    """
    name = f"{view.layer.name}: {attribution.full_title}, {attribution.about}, oblique"
    data, options, _ = layer_on(view, Image(attribution.values[np.newaxis, np.newaxis], grid, name), [0])
    signed = attribution.signed
    colormap = default_colormap(signed=signed)
    options["metadata"][METADATA_KEY] |= {
        "record": json.loads(attribution.record.to_json()),
        "look": {"colormap": colormap, "threshold": DEFAULT_THRESHOLD, "signed": signed},
    }
    options |= {
        "contrast_limits": attribution.display_limits,
        "colormap": thresholded(colormap, DEFAULT_THRESHOLD, signed=signed),
        "opacity": 0.6,
        "blending": "translucent_no_depth",
        # A slab of one voxel: what is in front decides.
        "rendering": "translucent",
        "interpolation3d": "nearest",
    }
    layer = Layer.create(data, options, "image")
    viewer.add_layer(layer)
    layer.colorbar.visible = True
    return layer
