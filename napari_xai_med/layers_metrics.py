"""Heatmap and mask layers as a case for metrics, and overlays as layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from napari_xai_med.cases import case_of
from napari_xai_med.errors import InputError
from napari_xai_med.image import Image
from napari_xai_med.layers import METADATA_KEY, LayerTuple, LayerView
from napari_xai_med.layers_segments import LayerSegments
from napari_xai_med.metrics.case import Case, Map
from napari_xai_med.metrics.thresholds import Cut
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.overlay import overlay_colours, overlay_labels, overlay_names, overlay_sizes
from napari_xai_med.record import Record


def record_of_layer(heatmap: Any) -> Record:
    """The record of a heatmap layer."""
    return Record(**heatmap.metadata[METADATA_KEY]["record"])


def map_in_layer(heatmap: Any, view: LayerView) -> Image:
    """The map in a heatmap layer, in the orientation of the file of the image that it explains.

    Parameters
    ----------
    heatmap : napari.layers.Image
        Of this package.
    view : LayerView
        The image that it explains.
    """
    own = LayerView(heatmap, view.axes[: heatmap.ndim], 0)
    segments: LayerSegments | None = heatmap.metadata[METADATA_KEY].get("segments")
    # Of all segments, whichever are shown.
    values = heatmap.data if segments is None else segments.shown(None)
    # Seen at every channel of the image, and the same at each.
    return Image(own.array(values)[:1], own.image_grid(), heatmap.name)


def case_of_layers(
    heatmap: Any,
    view: LayerView,
    image: Image,
    classifier: Classifier | None,
    masks: Mapping[str, Any],
    others: Mapping[str, Any],
    second: Classifier | None = None,
    sign: str = "positive",
    seed: int = 0,
) -> Case:
    """What metrics look at; see `napari_xai_med.cases.case_of`.

    Parameters
    ----------
    heatmap : napari.layers.Image
    view : LayerView
        The image that it explains.
    image : Image
        All channels of that.
    classifier : Classifier, optional
    masks : mapping of str to napari.layers.Labels
    others : mapping of str to napari.layers.Image
        Other heatmaps of the same image.
    second, sign, seed
        As for `case_of`.
    """
    return case_of(
        map_in_layer(heatmap, view),
        {name: view.labels(layer) for name, layer in masks.items()} or None,
        image,
        classifier,
        {name: map_in_layer(layer, view) for name, layer in others.items()},
        second,
        sign,
        seed,
        heatmap.metadata[METADATA_KEY].get("regions"),
        record_of_layer(heatmap),
    )


def overlay_to_layer(case: Case, cut: Cut, heatmap: Any, view: LayerView) -> LayerTuple:
    """Where an explanation and one or two masks agree, as a labels layer on the image, with the size of each part.

    Parameters
    ----------
    case : Case
        With one or two masks.
    cut : Cut
        Which values of the explanation count.
    heatmap : napari.layers.Image
    view : LayerView
        The image that it explains.

    Raises
    ------
    InputError
        If there are no masks, or more than two.
    """
    if not case.masks:
        raise InputError("An overlay needs a mask; draw one in a Labels layer, or open one, and choose it.")
    labels = overlay_labels(cut.marked(case.evidence), list(case.masks.values()))
    count, unit = len(case.masks), "px" if case.is_bare else "mL" if case.grid.ndim == 3 else "mm2"
    sizes = overlay_sizes(labels, count, case.spacing)
    data, options = view.place(cast("Map", labels), case.grid)
    options |= {
        "name": f"{heatmap.name}: overlap at {cut.text}",
        "features": {"part": ["neither", *overlay_names(list(case.masks))], f"size_{unit}": [np.nan, *sizes]},
        "colormap": {None: (0, 0, 0, 0), 0: (0, 0, 0, 0)}
        | {k: (*colour, 1.0) for k, colour in enumerate(overlay_colours(count), 1)},
        "opacity": 0.5,
    }
    # It is no mask to be chosen.
    options["metadata"][METADATA_KEY] |= {"follows": True, "record": heatmap.metadata[METADATA_KEY]["record"]}
    return np.array(data), options, "labels"
