"""What a network changes in itself while it runs is put back."""

from __future__ import annotations

import pytest
import torch
from helpers import classifier_of
from torch import Tensor, nn

from napari_xai_med.errors import ModelError
from napari_xai_med.job import Job
from napari_xai_med.models.run import forward


class Counts(nn.Module):
    """Counts its calls in a buffer, and keeps the last mean in another one."""

    def __init__(self, *, inference: bool) -> None:
        super().__init__()
        with torch.inference_mode(inference):
            self.conv = nn.Conv2d(1, 2, 1)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        means = self.conv(x).mean((2, 3))
        self.mean = means[0].detach()
        return means


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("finite", [True, False])
def test_buffers_are_put_back(inference: bool, finite: bool) -> None:
    network = Counts(inference=inference)
    x = torch.full((1, 1, 4, 4), 1.0 if finite else 3e38)
    if not finite:
        with torch.inference_mode(inference):
            network.conv.weight.data.fill_(10)
    calls, mean = network.calls, network.mean
    if finite:
        forward(classifier_of(network, 2), x, Job())
    else:
        with pytest.raises(ModelError, match="not finite for this image, first in layer conv"):
            forward(classifier_of(network, 2), x, Job())
    assert network.calls is calls
    assert network.mean is mean
    assert not calls
    assert not mean.any()
