"""The feature maps of a network's layers, as images in the world of the image that the network was given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_xai_med.errors import InputError, ModelError
from napari_xai_med.explainers.layer_maps import CENTRED
from napari_xai_med.grid import Reorientation
from napari_xai_med.image import Image
from napari_xai_med.job import Job
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.formats.base import Gives
from napari_xai_med.models.receptive_field import Layer, default_layer
from napari_xai_med.models.run import forward
from napari_xai_med.pipeline import in_world
from napari_xai_med.request import ExplainRequest
from napari_xai_med.section import Section, as_asked, where_it_can


def maps_of_layer(image: Image, classifier: Classifier, layer: str, request: ExplainRequest, job: Job) -> Image:
    """The feature maps of a layer; see `napari_xai_med.feature_maps`.

    Parameters
    ----------
    image : Image
    classifier : Classifier
    layer : str
        The last convolution with spatial extent if empty.
    request : ExplainRequest
        Names the slice, for a 2D classifier and a 3D image, and the preprocessing.
    job : Job
    """
    found, notices = where_it_can(
        as_asked(classifier, request), lambda chosen: _maps(image, chosen, layer, request, job)
    )
    return replace(found, notices=(*found.notices, *notices))


def _maps(image: Image, classifier: Classifier, name: str, request: ExplainRequest, job: Job) -> Image:
    job.step(0.0, "Preprocessing")
    section = Section.choose(image, classifier, request)
    network_input = classifier.prepare(section.image)
    layer = _find(classifier, name, tuple(network_input.tensor.shape[1:]))
    caught: list[Tensor] = []

    def catch(output: Tensor) -> Tensor:
        # A copy: the next layer may change it in place.
        caught[:] = [layer.layout.maps(output).float().cpu().clone()]
        return output

    with torch.no_grad():
        forward(classifier, network_input.tensor, job.part(0.1, 1.0), {layer.name: catch})
    values: NDArray[np.float32] = caught[0][0].numpy()
    if not np.isfinite(values).all():
        raise ModelError(f"Layer {layer.name} of {classifier.name} gives values that are not finite; choose another.")
    to_image = network_input.to_image @ layer.receptive_field.to_input()
    maps = in_world(image, section, values, to_image, f"{image.name}: {layer.name} of {classifier.name}")
    job.step(1.0, "Done")
    notices = () if layer.receptive_field.followed else (CENTRED.format(layer.name),)
    return replace(maps, notices=(*image.notices, *notices))


def _find(classifier: Classifier, name: str, input_shape: tuple[int, ...]) -> Layer:
    if Gives.LAYERS not in classifier.gives:
        raise ModelError(f"The format of {classifier.name} gives no layers; choose another classifier.")
    if classifier.windows is not None and input_shape[1:] != tuple(classifier.windows.roi_size):
        size = " x ".join(map(str, classifier.windows.roi_size))
        raise InputError(
            f"{classifier.name} looks at its input window by window, so that its layers have no maps of the whole; "
            f"crop the image to one window of {size} voxels."
        )
    layers = classifier.layers(input_shape)
    if not name:
        return default_layer(layers)
    known = {layer.name: layer for layer in layers}
    if name not in known:
        names = ", ".join(layer.name for layer in layers if layer.is_convolution)
        raise InputError(f"{classifier.name} has no feature maps at layer {name!r}; its convolutions are {names}.")
    return known[name]


def strengths(maps: Image) -> NDArray[np.float64]:
    """How active each channel is: the mean of its values' size, shape (C,)."""
    found: NDArray[np.float64] = np.abs(maps.data).reshape(len(maps.data), -1).mean(1, dtype=np.float64)
    return found


def by_strength(maps: Image) -> list[int]:
    """The numbers of the channels, the most active first."""
    return [int(k) for k in np.argsort(-strengths(maps), kind="stable")]


def central_slices(maps: Image) -> tuple[NDArray[np.float32], float]:
    """The axial slice in the middle of each channel as it is displayed, and how much taller than wide its pixels are.

    Of maps of a picture the whole, and of maps of one slice of a volume that slice.

    Returns
    -------
    (ndarray of shape (C, rows, columns), float)
    """
    if maps.ndim == 2:
        return maps.data, maps.grid.spacing[0] / maps.grid.spacing[1]
    shown = maps.reoriented(Reorientation.between(maps.grid))
    thin = [k for k, n in enumerate(shown.grid.shape) if n == 1]
    axis = thin[0] if len(thin) == 1 else 0
    rows, columns = (step for k, step in enumerate(shown.grid.spacing) if k != axis)
    return np.take(shown.data, [shown.grid.shape[axis] // 2], axis + 1).squeeze(axis + 1), rows / columns
