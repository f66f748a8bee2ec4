"""Which layers an explanation was made of."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import prod
from typing import Any

from napari.layers import Image as ImageLayer

from napari_xai_med.errors import InputError
from napari_xai_med.layers import METADATA_KEY, LayerView, possible_axes
from napari_xai_med.oblique import name_of_volume, oblique_section

KEY = "made_of"
"""Where the metadata of a heatmap layer say it."""


def told_of(views: Sequence[LayerView]) -> tuple[tuple[Hashable, str], ...]:
    """What to keep of layers to find them again: numbers, since a layer itself would stay in memory."""
    return tuple((view.layer.unique_id, view.axes) for view in views)


def layers_of(heatmap: ImageLayer, layers: Sequence[ImageLayer]) -> list[tuple[ImageLayer, str]]:
    """The layers that a heatmap was made of with their axes, whatever they are called by now.

    Where one of them was closed: the layer that holds the same image, or else one of its name.

    Parameters
    ----------
    heatmap : napari.layers.Image
        Of this package.
    layers : sequence of napari.layers.Image
        Those there are.

    Returns
    -------
    list of (napari.layers.Image, str)
        One for each channel; only the first, with empty axes, where a layer is known by nothing but its name; none if
        there is no such layer.
    """
    own = heatmap.metadata[METADATA_KEY]
    known = {layer.unique_id: layer for layer in layers}
    made_of = own.get(KEY, ())
    if made_of and all(number in known for number, _ in made_of):
        return [(known[number], axes) for number, axes in made_of]
    told = own["record"]["image"]
    plane = told["oblique"]
    name = told["name"] if plane is None else name_of_volume(told["name"])
    # Those of its name first: looking into a layer takes a while.
    layers = sorted(layers, key=lambda layer: layer.name != name)
    found = ((layer, axes) for layer in layers if (axes := _holding(layer, told)))
    named = ((layer, "") for layer in layers if layer.name == name)
    return [each] if (each := next(found, None) or next(named, None)) else []


def _holding(layer: ImageLayer, told: Mapping[str, Any]) -> str:
    """With which axes a layer is the image that a record tells of, or the section's volume; empty if with none."""
    plane = told["oblique"]
    # A hash takes a while.
    if layer.multiscale or (plane is None and layer.data.size != prod(told["shape"])):
        return ""
    try:
        for axes in possible_axes(layer):
            image = LayerView(layer, axes).image()
            if plane is not None:
                image = oblique_section(image, plane["point"], plane["normal"])[0]
            if list(image.data.shape) == list(told["shape"]) and image.sha256 == told["sha256"]:
                return axes
    except InputError:
        pass
    return ""
