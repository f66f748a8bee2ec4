"""What tests of methods that explain by segments ask about."""

from __future__ import annotations

import numpy as np
import torch
from helpers import classifier_of
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_xai_med.explainers.base import RawMap
from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.head import Head

HEADS = {Head.SOFTMAX: 3, Head.ONE_LOGIT: 1, Head.MULTI_LABEL: 3}


def case(channels: int, head: Head, shape: tuple[int, ...] = (20, 16)) -> tuple[Classifier, Tensor]:
    """A classifier in double precision that no linear model fits, and an image."""
    torch.manual_seed(2)
    size = 4 * (shape[0] // 2) * (shape[1] // 2)
    features = (nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(size, 8))
    network = nn.Sequential(*features, nn.Tanh(), nn.Linear(8, HEADS[head])).double()
    classifier = classifier_of(network, 2, max(HEADS[head], 2), channels=channels, head=head)
    return classifier, torch.rand(1, channels, *shape, dtype=torch.double)


def weights_of(raw: RawMap) -> NDArray[np.float64]:
    assert raw.parts is not None
    return raw.parts.values
