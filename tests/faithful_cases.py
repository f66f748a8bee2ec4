"""Cases with a known answer, for metrics that ask a classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from helpers import classifier_of
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_xai_med.grid import Grid
from napari_xai_med.image import Image
from napari_xai_med.job import Job
from napari_xai_med.metrics.base import make_metric
from napari_xai_med.metrics.case import Asked, Case
from napari_xai_med.metrics.outcome import EXPLANATION, Outcome
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.request import ExplainRequest

SHAPES = {2: (9, 12), 3: (6, 5, 8)}


class Linear(nn.Module):
    """Logits are minus and plus the weighted sum of the image."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, x: Tensor) -> Tensor:
        total = (x * self.weights).flatten(1).sum(1, keepdim=True)
        return torch.cat([-total, total], 1)


def image_of(shape: tuple[int, ...], channels: int = 1, seed: int = 0) -> Image:
    """Random values from 0 to 1, both of which there are in each channel: zero is in their range."""
    data = np.random.default_rng(seed).random((channels, *shape), np.float32)
    data.reshape(channels, -1)[:, :2] = 0, 1
    return Image(data, Grid(shape, np.eye(len(shape) + 1)), "random")


def linear_case(dims: int, channels: int = 1, **changes: Any) -> tuple[Case, NDArray[np.float32], NDArray[np.float32]]:
    """A linear network's exact contributions to class 1 as a map, the image and the weights."""
    image = image_of(SHAPES[dims], channels)
    weights = np.random.default_rng(1).normal(size=image.data.shape).astype(np.float32)
    classifier = classifier_of(Linear(torch.from_numpy(weights)), dims, channels=channels)
    return case_for(image, classifier, (weights * image.data).sum(0), **changes), image.data, weights


def case_for(
    image: Image, classifier: Classifier, values: NDArray[np.float32], target: int | str = 1, **changes: Any
) -> Case:
    """A map of all of an image."""
    asked = Asked(image, classifier, ExplainRequest(target=target))
    return Case(values, image.grid, intensities=image.data, asked=asked, **changes)


def measured(name: str, case: Case, job: Job | None = None, **options: Any) -> Outcome:
    return make_metric(name, options).measure(case, job or Job())


def found(outcome: Outcome, name: str, subject: str = EXPLANATION, at: str = "") -> float:
    """The one score of a name and subject, and at a setting that begins like this."""
    (value,) = [
        score.value
        for score in outcome.scores
        if score.name == name and score.subject == subject and score.at.startswith(at)
    ]
    return value


def conv_network(dims: int, classes: int, channels: int = 1, seed: int = 0) -> nn.Module:
    """A small network with random weights, whose answers are far from sure."""
    torch.manual_seed(seed)
    convolution, pool = ((nn.Conv2d, nn.AdaptiveAvgPool2d), (nn.Conv3d, nn.AdaptiveAvgPool3d))[dims - 2]
    network = nn.Sequential(
        convolution(channels, 6, 3, padding=1), nn.ReLU(), pool(2), nn.Flatten(), nn.Linear(6 * 2**dims, classes)
    )
    with torch.no_grad():
        network[-1].weight *= 4
    return network
