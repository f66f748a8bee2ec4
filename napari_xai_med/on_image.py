"""Maps of methods on the image's grid, and differences of two."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.explainers.base import Parts, RawMap
from napari_xai_med.grid import Float, resample_linear, resample_nearest
from napari_xai_med.models.classifier import NetworkInput


def on_image(raw: RawMap, network_input: NetworkInput, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A raw map, linearly resampled to the grid of the image that the network's input was made from.

    Outside what the network saw the map is 0. Contributions of parts are not resampled, but painted on the part that
    each voxel's nearest neighbour belongs to.

    Parameters
    ----------
    raw : RawMap
    network_input : NetworkInput
    shape : tuple of int
        Shape of the image's grid.
    """
    if raw.parts is not None:
        return replace(raw.parts, labels=labels_on_image(raw.parts, network_input, shape)).painted()
    to_input: Float = np.linalg.inv(network_input.to_image)
    to_raw = np.linalg.inv(network_input.to_image @ raw.to_input)
    return resample_linear(raw.values, to_raw, shape, (to_input, tuple(network_input.tensor.shape[2:])))


def labels_on_image(parts: Parts, network_input: NetworkInput, shape: tuple[int, ...]) -> NDArray[np.int32]:
    """The labels of parts of the network's input on the grid of the image; 0 beyond what the network saw."""
    return resample_nearest(parts.labels, np.linalg.inv(network_input.to_image), shape)


def difference_of(one: RawMap, other: RawMap, network_input: NetworkInput) -> RawMap:
    """The difference of two raw maps, each divided by its largest absolute value: methods differ in their units.

    On their own grid if that is the same, else on the network input's.
    """
    tops = [np.float32(np.abs(raw.values).max() or 1) for raw in (one, other)]
    facts = {**one.facts, "minus": dict(other.facts), "divided_by": [float(top) for top in tops]}
    notices = (*one.notices, *other.notices)
    if one.values.shape == other.values.shape and np.array_equal(one.to_input, other.to_input):
        return RawMap(one.values / tops[0] - other.values / tops[1], one.to_input, facts, notices)
    shape = tuple(network_input.tensor.shape[2:])
    parts = [
        resample_linear(raw.values, np.linalg.inv(raw.to_input), shape) / top
        for raw, top in zip((one, other), tops, strict=True)
    ]
    return RawMap(parts[0] - parts[1], np.eye(len(shape) + 1), facts, notices)
