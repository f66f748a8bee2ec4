"""Networks that tests of explanation methods run on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from helpers import classifier_of
from monai.networks.nets import DenseNet, EfficientNetBN, ResNet, SENet
from torch import Tensor, nn

from napari_xai_med.models.classifier import Classifier
from napari_xai_med.models.head import Head


def small_resnet() -> nn.Module:
    return ResNet("basic", [1, 1, 1, 1], [8, 8, 16, 16], spatial_dims=3, n_input_channels=1, num_classes=3)


def small_densenet() -> nn.Module:
    return DenseNet(3, 1, 3, init_features=8, growth_rate=8, block_config=(2, 3, 2))


def small_senet() -> nn.Module:
    return SENet(2, 1, "se_resnet_bottleneck", (1, 2, 1, 1), groups=1, reduction=16, num_classes=3)


def small_efficientnet() -> nn.Module:
    return EfficientNetBN("efficientnet-b0", False, spatial_dims=2, in_channels=1, num_classes=3)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet 3d": (small_resnet, (1, 48, 40, 48)),
    "densenet 3d": (small_densenet, (1, 40, 40, 33)),
    "senet 2d": (small_senet, (1, 96, 80)),
    "efficientnet 2d": (small_efficientnet, (1, 64, 64)),
}


def real_case(name: str) -> tuple[Any, Tensor]:
    """A classifier of three classes around one of `NETWORKS`, and three inputs."""
    build, shape = NETWORKS[name]
    torch.manual_seed(3)
    network = build()
    # Statistics of a batch that was seen make the answers differ from input to input.
    network.train()(torch.rand(4, *shape))
    # In double precision, so that what is compared is the method and not the order of additions.
    return classifier_of(network.double(), len(shape) - 1, 3), torch.rand(3, *shape, dtype=torch.double)


class Pooled(nn.Module):
    """Convolutions with normalisation, a mean over space and a linear layer: small, and fit for every method."""

    def __init__(self, dims: int, outputs: int, channels: int = 2) -> None:
        super().__init__()
        convolution, norm = ((nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d))[dims - 2]
        self.features = nn.Sequential(
            *(convolution(channels, 4, 3, padding=1), norm(4), nn.ReLU(inplace=True)),
            *(convolution(4, 6, 3, stride=2, padding=1), norm(6), nn.ReLU(), nn.Dropout()),
        )
        self.head = nn.Linear(6, outputs)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).flatten(2).mean(2))
        return logits


SMALL: dict[str, tuple[int, Head, int]] = {
    "2d softmax": (2, Head.SOFTMAX, 3),
    "3d softmax": (3, Head.SOFTMAX, 3),
    "2d one logit": (2, Head.ONE_LOGIT, 2),
    "3d one logit": (3, Head.ONE_LOGIT, 2),
    "2d multi-label": (2, Head.MULTI_LABEL, 3),
    "3d multi-label": (3, Head.MULTI_LABEL, 3),
}
"""Axes, heads and numbers of classes of classifiers around `Pooled`."""


def small_case(name: str) -> tuple[Classifier, Tensor]:
    """A classifier around `Pooled`, and three inputs of different lengths along their axes."""
    dims, head, classes = SMALL[name]
    torch.manual_seed(5)
    network = Pooled(dims, 1 if head is Head.ONE_LOGIT else classes)
    shape = (2, 14, 12) if dims == 2 else (2, 10, 8, 12)
    network.train()(torch.randn(8, *shape))
    return classifier_of(network, dims, classes, head=head, channels=2), torch.randn(3, *shape)
