"""Networks whose weights are made random, and their state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Weighted(nn.Module):
    """Logits are sums of the pixels, each with a weight of its own."""

    def __init__(self, classes: int = 3, size: int = 24) -> None:
        super().__init__()
        self.head = nn.Linear(size * size, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x.flatten(1))
        return logits


class Scaled(nn.Module):
    """Logits are the mean of the image times a weight for each class: maps of input x gradient are the image."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.0, -1.0]))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).mean(1, keepdim=True) * self.scale


class Small(nn.Module):
    """A convolutional network for two or three axes."""

    def __init__(self, dims: int = 2) -> None:
        super().__init__()
        convolution, norm = ((nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d))[dims - 2]
        self.features = nn.Sequential(
            convolution(1, 6, 3, padding=1), norm(6), nn.ReLU(), convolution(6, 6, 3, padding=1), nn.ReLU()
        )
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).flatten(2).mean(2))
        return logits


def seeded(kind: type[nn.Module], *arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    network = kind(*arguments)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            # Statistics that are not those of a fresh network.
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network


def state_of(network: nn.Module) -> dict[str, Any]:
    modes = {name: module.training for name, module in network.named_modules()}
    grads = {name: value.requires_grad for name, value in network.named_parameters()}
    return {"modes": modes, "grads": grads, **{k: v.clone() for k, v in network.state_dict().items()}}


def same_state(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[key]) if isinstance(value, Tensor) else value == other[key]
        for key, value in one.items()
    )
