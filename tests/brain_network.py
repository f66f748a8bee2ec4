"""The brain tumour network of M. A. Habib, as its weights describe it."""

from __future__ import annotations

from torch import Tensor, nn


class BrainTumour(nn.Module):
    """One 7x7 convolution, two poolings and one linear layer, whose rows Keras flattened with channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d(2)
        self.conv0 = nn.Conv2d(3, 32, 7)
        self.bn0 = nn.BatchNorm2d(32, eps=1e-3)
        self.act = nn.ReLU()
        self.pool0 = nn.MaxPool2d(4)
        self.pool1 = nn.MaxPool2d(4)
        self.fc = nn.Linear(14 * 14 * 32, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pool1(self.pool0(self.act(self.bn0(self.conv0(self.pad(x))))))
        logits: Tensor = self.fc(y.movedim(1, -1).flatten(1))
        return logits.sigmoid()
