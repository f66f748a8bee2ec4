"""An attribution as a layer in the viewer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, cast

import napari
import numpy as np
from napari.layers import Image as ImageLayer
from numpy.typing import NDArray

from napari_xai_med.attribution import Attribution
from napari_xai_med.bands import band_labels, band_names
from napari_xai_med.colours import DEFAULT_THRESHOLD, default_colormap
from napari_xai_med.layers import METADATA_KEY, LayerTuple, LayerView
from napari_xai_med.layers_segments import LayerSegments, transform_of
from napari_xai_med.widgets.colours import thresholded
from napari_xai_med.widgets.origin import KEY, told_of
from napari_xai_med.widgets.planes import HIDDEN


def go_to_maximum(viewer: napari.Viewer, layer: ImageLayer) -> None:
    """Show the slices on which a heatmap speaks most for its class."""
    index = Attribution.peak_of(layer.data)
    for axis, value in enumerate(layer.data_to_world(index), start=viewer.dims.ndim - layer.ndim):
        viewer.dims.set_point(axis, value)


def add_heatmap(
    viewer: napari.Viewer,
    views: Sequence[LayerView],
    attribution: Attribution,
    limits: tuple[float, float] | None = None,
    told: str = "",
) -> ImageLayer:
    """Add an attribution above the (first) layer that it explains, exactly where that layer lies.

    Parameters
    ----------
    viewer : napari.Viewer
    views : sequence of LayerView
        The explained layer, then those of further channels.
    attribution : Attribution
        On the grid of the first one's image, or of the section along its plane.
    limits : (float, float), optional
        Contrast limits; the attribution's own by default.
    told : str
        What the layer's name ends in.

    Returns
    -------
    napari.layers.Image
        With the record in its metadata; the values are the attribution's own.
    """
    data, options = _described(views, attribution, told)
    look = options["metadata"][METADATA_KEY]["look"] = _first_look(attribution)
    layer = ImageLayer(
        data,
        **_in_3d(attribution),
        contrast_limits=limits or attribution.display_limits,
        colormap=thresholded(look["colormap"], look["threshold"], signed=look["signed"]),
        opacity=0.6,
        # Over the image in 2D, and not hidden by the volume in 3D.
        blending="translucent_no_depth",
        interpolation2d="nearest",
        rgb=False,
        **options,
    )
    # Before the controls hear of the layer.
    layer.colorbar.visible = True
    viewer.add_layer(layer)
    return layer


def _in_3d(attribution: Attribution) -> dict[str, str]:
    """How a heatmap is drawn in 3D: of a plane what is in front decides, and not what is largest."""
    if attribution.record.image["oblique"] is None:
        return {"rendering": "mip", "interpolation3d": "linear"}
    return {"rendering": "translucent", "interpolation3d": "nearest"}


def _first_look(attribution: Attribution) -> dict[str, Any]:
    """How a heatmap looks before the user changes that."""
    signed = attribution.signed
    colormap = default_colormap(signed=signed)
    return {"colormap": colormap, "threshold": DEFAULT_THRESHOLD, "signed": signed, "ranks": None}


def update_heatmap(
    layer: ImageLayer,
    views: Sequence[LayerView],
    attribution: Attribution,
    limits: tuple[float, float] | None = None,
    told: str = "",
) -> None:
    """Show another attribution of the same method in a heatmap layer, which keeps its look; see `add_heatmap`."""
    data, options = _described(views, attribution, told)
    own = options["metadata"][METADATA_KEY]
    before = layer.metadata[METADATA_KEY]
    own["look"] = look = before["look"]
    if (before["record"]["image"]["oblique"] is None) != (attribution.record.image["oblique"] is None):
        for name, value in _in_3d(attribution).items():
            setattr(layer, name, value)
    if look["signed"] != attribution.signed:
        own["look"] = look = _first_look(attribution)
        layer.colormap = thresholded(look["colormap"], look["threshold"], signed=look["signed"])
    if look["ranks"] is not None and "segments" in own:
        data = own["segments"].shown(look["ranks"])
    refill(layer, data, options)
    wanted = list(limits or attribution.display_limits)
    if list(layer.contrast_limits) != wanted:
        layer.contrast_limits = wanted


def refill(layer: Any, data: NDArray[Any], options: dict[str, Any]) -> None:
    """Give a layer other data, with the place, name, features and metadata that come with them, and draw it once."""
    wanted, names = options | {"data": data}, ("data", "scale", "translate", "rotate", "shear")
    shown = {name: getattr(layer, name) for name in names} | {"affine": layer.affine.affine_matrix}
    # The segments of one estimate are those of the next.
    changed = [name for name, value in shown.items() if not np.array_equal(value, wanted[name])]
    # napari offers no public way to change several things at once; drawing after each takes five times as long.
    with getattr(layer, "_block_refresh", nullcontext)():
        for name in changed:
            setattr(layer, name, wanted[name])
        if "features" in options:
            layer.features = options["features"]
    if changed:
        layer.refresh()
    own = layer.metadata.get(METADATA_KEY, {})
    if HIDDEN in own:
        options["metadata"][METADATA_KEY][HIDDEN] = own[HIDDEN]
    layer.metadata = options["metadata"]
    if layer.name != options["name"]:
        layer.name = options["name"]


def show_ranks(layer: ImageLayer, ranks: tuple[int, int] | None) -> None:
    """Show the segments of a heatmap layer from one rank to another, or all if None; what it stores of them stays."""
    own = layer.metadata[METADATA_KEY]
    own["look"]["ranks"] = ranks
    segments: LayerSegments | None = own.get("segments")
    if segments is not None:
        shown = segments.shown(ranks)
        if not np.array_equal(shown, layer.data):
            layer.data = shown


def _described(views: Sequence[LayerView], attribution: Attribution, told: str) -> tuple[NDArray[Any], dict[str, Any]]:
    """An attribution as data, place, name and metadata of a layer."""
    view = views[0]
    data, options = view.place(attribution.values, attribution.grid)
    zero = " (zero everywhere)" if attribution.is_zero else ""
    options["name"] = f"{view.layer.name}: {attribution.full_title}, {attribution.about}{zero}{told}"
    own = options["metadata"][METADATA_KEY]
    own["record"] = json.loads(attribution.record.to_json())
    own["regions"] = attribution.regions
    own[KEY] = told_of(views)
    segments = attribution.segments
    if segments is not None:
        labels, _ = view.place(cast("Any", segments.labels), attribution.grid)
        own["segments"] = LayerSegments(cast("Any", labels), segments.table)
    return data, options


def bands_to_layer(heatmap: ImageLayer, edges: tuple[float, ...]) -> LayerTuple:
    """The intensity bands of a heatmap as a labels layer where the heatmap lies, with what each band holds.

    Raises
    ------
    InputError
        If these are no edges of bands.
    """
    own = heatmap.metadata[METADATA_KEY]
    signed = own["look"]["signed"]
    segments: LayerSegments | None = own.get("segments")
    # Of all segments, whichever are shown.
    labels = band_labels(heatmap.data if segments is None else segments.shown(None), edges, signed=signed)
    names = band_names(edges, signed=signed)
    share = 100 / labels.size
    options = transform_of(heatmap) | {
        "name": f"{heatmap.name}, bands",
        "opacity": 0.5,
        "features": {
            "band": ["background", *names],
            "share of the image in %": [
                round(int(count) * share, 3) for count in np.bincount(labels.ravel(), minlength=len(names) + 1)
            ],
        },
        "metadata": {
            METADATA_KEY: {"edges": list(edges)} | {key: own[key] for key in ("record", "plane") if key in own}
        },
    }
    return labels, options, "labels"
