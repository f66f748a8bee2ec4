"""What scripts give for an image, a classifier and a preprocessing: files, arrays, networks, or the thing itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from napari_xai_med.channels import stack_channels
from napari_xai_med.explainers.base import preset_options
from napari_xai_med.image import Image
from napari_xai_med.io import read_image
from napari_xai_med.models import load_model
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.module import classifier_from_module
from napari_xai_med.preprocessing.base import Step
from napari_xai_med.preprocessing.presets import preset as steps_of
from napari_xai_med.request import ExplainRequest
from napari_xai_med.segmenting import AnyLabels, AnySegments, Regions, choice_of

OneImage = Image | str | Path | NDArray[np.generic]
AnyImage = OneImage | Sequence[OneImage]
AnyPreprocessing = str | Sequence[Step | Mapping[str, Any]]
AnyClassifier = Classifier | nn.Module | str | Path


def entries_of(preprocessing: AnyPreprocessing | None, classifier: Classifier) -> tuple[Mapping[str, Any], ...] | None:
    """A preprocessing as a request has it; see `napari_xai_med.predict`."""
    if preprocessing is None:
        return None
    if isinstance(preprocessing, str):
        preprocessing = steps_of(preprocessing, classifier.spatial_dims)
    return tuple(entry if isinstance(entry, Mapping) else entry.config() for entry in preprocessing)


def image_of(image: AnyImage) -> Image:
    """The image that is meant; see `napari_xai_med.predict`."""
    if isinstance(image, Image):
        return image
    if isinstance(image, Sequence) and not isinstance(image, str):
        return stack_channels([image_of(one) for one in image])
    return Image.from_array(image) if isinstance(image, np.ndarray) else read_image(image)


def classifier_of(
    classifier: AnyClassifier, image: Image | None, device: str, input_shape: tuple[int, ...] = ()
) -> Classifier:
    """The classifier that is meant; a bare network's input has that shape, or else the image's."""
    if isinstance(classifier, Classifier):
        return classifier
    if isinstance(classifier, nn.Module):
        return classifier_from_module(
            classifier, input_shape=input_shape or (() if image is None else image.data.shape)
        )
    return load_model(classifier, device=device)


def request_of(
    asked: tuple[Image, Classifier],
    method: tuple[str, str, Mapping[str, Any]],
    parts: tuple[AnySegments | None, AnyLabels | None, AnyPreprocessing | None],
    **question: Any,
) -> tuple[ExplainRequest, Regions]:
    """The request that a script makes, and the label maps in memory that it means.

    Parameters
    ----------
    asked : (Image, Classifier)
    method : (str, str, mapping)
        Its name, a preset and the options on top of that.
    parts : tuple
        Segments, mask and preprocessing; see `napari_xai_med.explain`.
    **question
        What else is asked; see `ExplainRequest`.
    """
    (image, classifier), (name, preset, options), (segments, mask, preprocessing) = asked, method, parts
    choice, regions = choice_of(segments, mask, image)
    chosen = {**preset_options(name, preset), **options}
    entries = entries_of(preprocessing, classifier)
    return ExplainRequest(name, chosen, preprocessing=entries, segments=choice, **question), regions
