"""Random numbers of a sample, and what noisy samples say together."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import torch
from torch import Tensor


class Tunnel(StrEnum):
    """What becomes of the attributions of noisy copies of an image."""

    NONE = "none"
    """There is no noise: the image itself is explained."""
    SMOOTHGRAD = "smoothgrad"
    """Their mean (Smilkov et al. 2017, arXiv:1706.03825)."""
    SMOOTHGRAD_SQ = "smoothgrad_sq"
    """The mean of their squares (Hooker et al. 2019, arXiv:1806.10758)."""
    VARGRAD = "vargrad"
    """Their variance (Adebayo et al. 2018, arXiv:1810.03292)."""


def generator(*key: int) -> torch.Generator:
    """The random numbers that belong to a key, such as a seed and the number of a sample.

    Each sample has its own, so that what it draws does not depend on how many are computed at once. They come from
    the processor, on every device the same.
    """
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))


def value_range(image: Tensor) -> float:
    """Largest minus smallest value of an image, all channels together."""
    return float(image.max() - image.min())


def noisy(image: Tensor, std: float, *key: int) -> Tensor:
    """An image with Gaussian noise.

    Parameters
    ----------
    image : Tensor, shape (C, *spatial)
    std : float
        As a share of the image's range of values, as Smilkov et al. have it; captum's `stdevs` are this times
        `value_range`.
    *key : int
        See `generator`.
    """
    if std == 0:
        return image
    noise = torch.randn(image.shape, generator=generator(*key), dtype=image.dtype)
    return image + noise.to(image.device) * (std * value_range(image))


class Moments:
    """Mean, mean square and variance of tensors that come one after the other, of which none is kept."""

    def __init__(self) -> None:
        self._count = 0
        self._mean: Tensor | None = None
        self._spread: Tensor | None = None

    def add(self, values: Tensor) -> None:
        """Take another tensor into account."""
        self._count += 1
        if self._mean is None or self._spread is None:
            self._mean, self._spread = values.clone(), torch.zeros_like(values)
            return
        # Welford's update: squares of large means would leave nothing of a small variance.
        step = values - self._mean
        self._mean += step / self._count
        self._spread += step * (values - self._mean)

    def result(self, tunnel: str) -> Tensor:
        """What the tensors say together."""
        assert self._mean is not None
        assert self._spread is not None
        variance = self._spread / self._count
        if tunnel == Tunnel.VARGRAD:
            return variance
        return self._mean.square() + variance if tunnel == Tunnel.SMOOTHGRAD_SQ else self._mean
