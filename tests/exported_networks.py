"""A small network, and how it gets into a torch.export program and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from napari_xai_med.models.formats.exported import Exported
from napari_xai_med.models.graphs.program import Program


class Small(nn.Module):
    """A 3D network that uses one module twice, and ends in a function if asked to."""

    def __init__(self, ending: str = "") -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(inplace=True), nn.MaxPool3d(2)
        )
        self.conv, self.relu = nn.Conv3d(4, 4, 3, padding=1), nn.ReLU()
        self.drop, self.fc = nn.Dropout(0.5), nn.Linear(4, 2)
        self.ending = ending

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.features(x)
        y = self.relu(self.conv(y) + y)
        y = self.relu(self.conv(y))
        logits = self.fc(self.drop(y).flatten(2).mean(2))
        return {"softmax": logits.softmax(-1), "sigmoid": logits.sigmoid()}.get(self.ending, logits)


def small(ending: str = "") -> Small:
    torch.manual_seed(0)
    network = Small(ending)
    with torch.no_grad():
        # Statistics that are not those of a fresh network.
        network.train()(torch.randn(4, 1, 16, 16, 16))
    return network.eval()


def export(network: nn.Module, path: Path, shape: tuple[int, ...], **options: Any) -> Path:
    torch.export.save(torch.export.export(network, (torch.rand(shape),), **options), path)
    return path


def load(path: Path) -> Program:
    program = Exported().load(path, nn.Identity)
    assert isinstance(program, Program)
    return program
