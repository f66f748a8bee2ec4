"""What a classifier says about an image, what its network sees of it, and which layers it has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from napari_xai_med.grid import Float, Grid
from napari_xai_med.image import Image
from napari_xai_med.job import Job
from napari_xai_med.models.classifier import Classifier, Prediction
from napari_xai_med.models.receptive_field import Layer, default_layer
from napari_xai_med.models.run import predict
from napari_xai_med.request import ExplainRequest
from napari_xai_med.section import Section, as_asked, where_it_can


def predict_request(image: Image, classifier: Classifier, request: ExplainRequest, job: Job) -> Prediction:
    """What the classifier says about the section that the request names."""
    classifier = as_asked(classifier, request)
    section = Section.choose(image, classifier, request).image
    prediction, notices = where_it_can(classifier, lambda chosen: predict(section, chosen, job))
    return replace(prediction, notices=(*prediction.notices, *notices))


def network_view(image: Image, classifier: Classifier, request: ExplainRequest, job: Job) -> Image:
    """What the network sees of an image, in the image's world: the input behind the preprocessing.

    Parameters
    ----------
    image : Image
    classifier : Classifier
    request : ExplainRequest
        Names the slice, for a 2D classifier and a 3D image.
    job : Job

    Returns
    -------
    Image
        On the network's own grid; of a slice, or an oblique section, a volume of one slice.
    """
    job.step(0.0, "Preprocessing")
    section = Section.choose(image, classifier, request)
    seen = as_asked(classifier, request).prepare(section.image)
    return in_world(image, section, seen.tensor[0].numpy(), seen.to_image, f"{image.name}: what {classifier.name} sees")


def in_world(image: Image, section: Section, data: NDArray[np.float32], to_image: Float, name: str) -> Image:
    """Values that were made of a section of an image, at their place in the image's world.

    Parameters
    ----------
    image : Image
    section : Section
    data : ndarray of float32, shape (C, *spatial)
        On a grid of its own.
    to_image : ndarray, shape (ndim + 1, ndim + 1)
        Index of that grid to index of the section.
    name : str
        Of the result.

    Returns
    -------
    Image
        Of a slice, or an oblique section, a volume of one slice.
    """
    grid = grid_in_world(image, section, to_image, data.shape[1:])
    return Image(data.reshape(len(data), *grid.shape), grid, name)


def grid_in_world(image: Image, section: Section, to_image: Float, shape: tuple[int, ...]) -> Grid:
    """The grid of values that were made of a section of an image, in its world; of a slice or oblique section a slab's.

    Parameters
    ----------
    image : Image
    section : Section
    to_image : ndarray, shape (ndim + 1, ndim + 1)
        Index of the values' own grid to index of the section.
    shape : tuple of int
        Of the values.
    """
    if image.oblique is not None:
        return image.oblique.in_volume(to_image, shape)
    if section.axis is None or section.turn is None:
        return Grid(shape, image.grid.affine @ to_image)
    slab = section.turn.grid(image.grid).slab(section.axis, section.index)
    inside = [k for k in range(4) if k != section.axis]
    in_volume = np.eye(4)
    in_volume[np.ix_(inside, inside)] = to_image
    return Grid((*shape[: section.axis], 1, *shape[section.axis :]), slab.affine @ in_volume)


def layers_for(image: Image, classifier: Classifier, request: ExplainRequest) -> tuple[tuple[Layer, ...], str]:
    """The layers whose maps can explain this image, and the name of the one that is used by default.

    The default is empty where no convolution has spatial extent.
    """
    classifier = as_asked(classifier, request)
    network_input = classifier.prepare(Section.choose(image, classifier, request).image)
    layers = classifier.layers(tuple(network_input.tensor.shape[1:]))
    convolutions = [layer for layer in layers if layer.is_convolution and max(layer.shape) > 1]
    return layers, default_layer(layers).name if convolutions else ""
