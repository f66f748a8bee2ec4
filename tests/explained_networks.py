"""Networks that tests of explanation methods run on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from helpers import classifier_of
from monai.networks.nets import DenseNet, EfficientNetBN, ResNet, SENet, ViT
from torch import Tensor, nn

from napari_xai_med.explainers.base import Explainer, explainers
from napari_xai_med.explainers.transformers import AttentionExplainer, TokenGradCAM
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
"""Axes, heads and numbers of classes of small classifiers."""


class Tokens(nn.Module):
    """A vision transformer with a class token, for the methods that are for transformers only."""

    def __init__(self, dims: int, outputs: int) -> None:
        super().__init__()
        small = {"hidden_size": 12, "mlp_dim": 24, "num_layers": 2, "num_heads": 3}
        self.inner = ViT(
            2,
            SHAPES[dims][1:],
            4,
            **small,
            classification=True,
            num_classes=outputs,
            spatial_dims=dims,
            post_activation="none",
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x)[0]
        return logits


SHAPES = {2: (2, 16, 12), 3: (2, 12, 8, 16)}
"""Shapes (C, *spatial) of images of different lengths along their axes."""


def fitting(kind: type[Explainer], dims: int, outputs: int) -> nn.Module:
    """A small network that a method can explain, and that was trained for a step's statistics."""
    for_transformers = issubclass(kind, AttentionExplainer | TokenGradCAM)
    network = (Tokens if for_transformers else Pooled)(dims, outputs)
    network.train()(torch.randn(8, *SHAPES[dims]))
    return network


def small_case(method: str, name: str) -> tuple[Classifier, Tensor]:
    """A classifier around a small network that fits a method, and three inputs."""
    dims, head, classes = SMALL[name]
    torch.manual_seed(5)
    network = fitting(explainers()[method], dims, 1 if head is Head.ONE_LOGIT else classes)
    shape = SHAPES[dims]
    return classifier_of(network, dims, classes, head=head, channels=2), torch.randn(3, *shape)
