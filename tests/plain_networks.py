"""Networks that captum's methods can take: every activation is a module, out of place and used once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from helpers import classifier_of
from torch import Tensor, nn

from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.head import Head

HEADS = (Head.SOFTMAX, Head.ONE_LOGIT)
SHAPES = {2: (2, 14, 11), 3: (2, 9, 12, 7)}
SPACING = {2: (1.0, 1.0), 3: (2.5, 0.7, 1.2)}


class Both(nn.Module):
    """One logit z as -z and z, whose gradients captum then takes for class 0 and class 1."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logit = self.network(x)
        return torch.cat([-logit, logit], 1)


def plain(dims: int, outputs: int, activation: type[nn.Module] = nn.ELU) -> nn.Module:
    """Convolutions, a ReLU, an activation of choice, max pooling and linear layers, in double precision.

    The normalisation stands between ReLU and pooling since captum's DeepLift takes the ReLU's hook before the
    pooling's where both are on the same tensor, and so leaves the pooling's rule out.
    """
    normalisation = (nn.BatchNorm2d, nn.BatchNorm3d)[dims - 2]
    convolution, pool = (nn.Conv2d, nn.Conv3d)[dims - 2], (nn.MaxPool2d, nn.MaxPool3d)[dims - 2]
    torch.manual_seed(5)
    features = (convolution(2, 4, 3, padding=1), nn.ReLU(), normalisation(4), pool(2))
    network = nn.Sequential(*features, convolution(4, 6, 3, padding=1), activation(), nn.Flatten()).eval()
    size = network(torch.zeros(1, *SHAPES[dims])).shape[1]
    return nn.Sequential(*network, nn.Linear(size, 8), nn.Tanh(), nn.Linear(8, outputs)).double().eval()


def case(dims: int, head: Head, **options: Any) -> tuple[Classifier, nn.Module, Tensor]:
    """A classifier, the network for captum, and three images whose spacing is not the same along all axes."""
    alone = head is Head.ONE_LOGIT
    network = plain(dims, 1 if alone else 3, **options)
    classifier = classifier_of(network, dims, 2 if alone else 3, channels=2, head=head)
    inputs = torch.randn(3, *SHAPES[dims], dtype=torch.double, generator=torch.Generator().manual_seed(1))
    return classifier, Both(network) if alone else network, inputs


def close(ours: np.ndarray, theirs: Tensor, tolerance: float = 1e-6) -> None:
    """Equal but for rounding to float32, in which maps are given."""
    expected = theirs.detach().numpy()
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(ours, expected, atol=tolerance * np.abs(expected).max(), rtol=tolerance)
