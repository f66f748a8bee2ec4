"""The lung nodule network of the second place of the Data Science Bowl 2017, as its weights describe it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class LunaNodule(nn.Module):
    """Five 3x3x3 convolutions; after each of the first four the pooled input is given in again."""

    heads = ("o_d", "o_lob", "o_spic", "o_mal", "o_fp")

    def __init__(self) -> None:
        super().__init__()
        sizes = ((1, 8), (9, 24), (25, 64), (65, 72), (73, 72))
        self.convs = nn.ModuleList(nn.Conv3d(before, after, 3, padding=1) for before, after in sizes)
        self.bns = nn.ModuleList(nn.BatchNorm3d(after, eps=1e-3) for _, after in sizes)
        self.bn6 = nn.BatchNorm1d(72, eps=1e-3)
        self.fc = nn.ModuleDict({head: nn.Linear(72, 32) for head in self.heads})
        self.fbn = nn.ModuleDict({head: nn.BatchNorm1d(32, eps=1e-3) for head in self.heads})
        self.out = nn.ModuleDict({head: nn.Linear(32, 3 if head == "o_fp" else 1) for head in self.heads})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        pooled, y = x, x
        for index, (conv, bn) in enumerate(zip(self.convs, self.bns, strict=True)):
            y = functional.leaky_relu(bn(conv(y)), 0.1)
            if index < 4:
                pooled = functional.avg_pool3d(pooled, 2)
                y = torch.cat([functional.max_pool3d(y, 2), pooled], 1)
        y = self.bn6(y.amax((2, 3, 4)))
        return {h: self.out[h](functional.leaky_relu(self.fbn[h](self.fc[h](y)), 0.1)) for h in self.heads}
