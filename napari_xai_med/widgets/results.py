"""An attribution as a layer in the viewer."""

from __future__ import annotations

import json

import napari
import numpy as np
from napari.layers import Image as ImageLayer

from napari_xai_med.attribution import Attribution
from napari_xai_med.bands import band_labels, band_names
from napari_xai_med.layers import METADATA_KEY, LayerTuple, LayerView
from napari_xai_med.widgets.colours import COLORMAPS, DEFAULT_THRESHOLD, SIGNED_COLORMAPS, thresholded


def go_to_maximum(viewer: napari.Viewer, layer: ImageLayer) -> None:
    """Show the slices on which a heatmap speaks most for its class."""
    index = Attribution.peak_of(layer.data)
    for axis, value in enumerate(layer.data_to_world(index), start=viewer.dims.ndim - layer.ndim):
        viewer.dims.set_point(axis, value)


def add_heatmap(viewer: napari.Viewer, view: LayerView, attribution: Attribution) -> ImageLayer:
    """Add an attribution above the layer that it explains, exactly where that layer lies.

    Parameters
    ----------
    viewer : napari.Viewer
    view : LayerView
        The explained layer.
    attribution : Attribution
        On the grid of `view.image()`.

    Returns
    -------
    napari.layers.Image
        With the record in its metadata; the values are the attribution's own.
    """
    shown = attribution if view.turn is None else attribution.reoriented(view.turn)
    data, options = view.place(shown.values, shown.grid)
    signed = attribution.signed
    colormap = (SIGNED_COLORMAPS if signed else COLORMAPS)[0]
    options["metadata"][METADATA_KEY] |= {
        "record": json.loads(attribution.record.to_json()),
        "look": {"colormap": colormap, "threshold": DEFAULT_THRESHOLD, "signed": signed},
    }
    zero = " (zero everywhere)" if attribution.is_zero else ""
    layer = ImageLayer(
        data,
        name=f"{view.layer.name}: {attribution.full_title}, {attribution.about}{zero}",
        contrast_limits=attribution.display_limits,
        colormap=thresholded(colormap, DEFAULT_THRESHOLD, signed=signed),
        opacity=0.6,
        # Over the image in 2D, and not hidden by the volume in 3D.
        blending="translucent_no_depth",
        interpolation2d="nearest",
        rgb=False,
        **options,
    )
    viewer.add_layer(layer)
    layer.colorbar.visible = True
    return layer


def bands_to_layer(heatmap: ImageLayer, edges: tuple[float, ...]) -> LayerTuple:
    """The intensity bands of a heatmap as a labels layer where the heatmap lies, with what each band holds.

    Raises
    ------
    InputError
        If these are no edges of bands.
    """
    own = heatmap.metadata[METADATA_KEY]
    signed = own["look"]["signed"]
    labels = band_labels(heatmap.data, edges, signed=signed)
    names = band_names(edges, signed=signed)
    options = {key: getattr(heatmap, key) for key in ("scale", "translate", "rotate", "shear", "units", "axis_labels")}
    share = 100 / labels.size
    options |= {
        "affine": heatmap.affine.affine_matrix,
        "name": f"{heatmap.name}, bands",
        "opacity": 0.5,
        "features": {
            "band": ["background", *names],
            "share of the image in %": [
                round(int(count) * share, 3) for count in np.bincount(labels.ravel(), minlength=len(names) + 1)
            ],
        },
        "metadata": {METADATA_KEY: {"record": own["record"], "edges": list(edges)}},
    }
    return labels, options, "labels"
