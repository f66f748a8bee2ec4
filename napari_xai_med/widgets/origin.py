"""Which layers an explanation was made of."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import prod

from napari.layers import Image as ImageLayer

from napari_xai_med.errors import InputError
from napari_xai_med.layers import METADATA_KEY, LayerView, possible_axes

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
    # Those of its name first: looking into a layer takes a while.
    layers = sorted(layers, key=lambda layer: layer.name != told["name"])
    found = ((layer, axes) for layer in layers if (axes := _holding(layer, told["sha256"], told["shape"])))
    named = ((layer, "") for layer in layers if layer.name == told["name"])
    return [each] if (each := next(found, None) or next(named, None)) else []


def _holding(layer: ImageLayer, sha256: str, shape: Sequence[int]) -> str:
    """With which axes a layer is the image of a hash; empty if with none."""
    # A hash takes a while.
    if layer.multiscale or layer.data.size != prod(shape):
        return ""
    try:
        views = ((axes, LayerView(layer, axes).image()) for axes in possible_axes(layer))
        return next((axes for axes, image in views if image.data.shape == tuple(shape) and image.sha256 == sha256), "")
    except InputError:
        return ""
