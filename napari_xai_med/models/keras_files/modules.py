"""Modules of PyTorch that compute what Keras' layers compute, as TensorFlow defines it.

All take and give (N, C, *spatial), whichever order the Keras network has. A layer's activation is a part of
it, as in Keras: the output of a convolution is what comes behind its activation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def same_padding(sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Any:
    """TensorFlow's padding "same": before and after each axis, with the odd one after.

    Returns
    -------
    list of (int, int)
    """
    pads = []
    for n, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        pads.append((total // 2, total - total // 2))
    return pads


def flat(pads: Sequence[tuple[int, int]]) -> list[int]:
    """Paddings in PyTorch's order, the last axis first."""
    return [n for pad in reversed(pads) for n in pad]


def channels_last(x: Tensor) -> Tensor:
    """(N, *spatial, C)."""
    return x.movedim(1, -1) if x.ndim > 2 else x


def channels_first(x: Tensor) -> Tensor:
    """(N, C, *spatial)."""
    return x.movedim(-1, 1) if x.ndim > 2 else x


class Conv2D(nn.Conv2d):
    """A convolution with an activation."""

    activation: nn.Module
    same: bool

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        x, pads = _padded(self, x)
        result: Tensor = functional.conv2d(x, self.weight, self.bias, self.stride, pads, self.dilation, self.groups)
        return self.activation(result)


class Conv3D(nn.Conv3d):
    """A convolution with an activation."""

    activation: nn.Module
    same: bool

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        x, pads = _padded(self, x)
        result: Tensor = functional.conv3d(x, self.weight, self.bias, self.stride, pads, self.dilation, self.groups)
        return self.activation(result)


def _padded(conv: Conv2D | Conv3D, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """The input of a convolution, and the zeros that are left to put around it: as many on both sides."""
    if not conv.same:
        return x, (0,) * len(conv.kernel_size)
    pads = same_padding(x.shape[2:], conv.kernel_size, conv.stride, conv.dilation)
    if all(before == after for before, after in pads):
        return x, tuple(before for before, _ in pads)
    return functional.pad(x, flat(pads)), (0,) * len(pads)


class SeparableConv2D(Conv2D):
    """A convolution of each channel by itself, then one of 1 x 1 across them, which is this module."""

    depthwise: Conv2D

    def forward(self, x: Tensor) -> Tensor:
        """Convolve twice."""
        return super().forward(self.depthwise(x))


class Dense(nn.Linear):
    """A linear layer over the channels."""

    activation: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Apply to every position."""
        result: Tensor = self.activation(channels_first(super().forward(channels_last(x))))
        return result


class Pool(nn.Module):
    """Maximum or average pooling; what is padded counts for neither."""

    def __init__(self, kernel: tuple[int, ...], stride: tuple[int, ...], same: bool, average: bool) -> None:
        super().__init__()
        self.kernel, self.stride, self.same, self.average = kernel, stride, same, average

    def forward(self, x: Tensor) -> Tensor:
        """Pool."""
        rank = len(self.kernel)
        ones = (1,) * rank
        pads = same_padding(x.shape[2:], self.kernel, self.stride, ones) if self.same else [(0, 0)] * rank
        some = any(before or after for before, after in pads)
        if self.average:
            pool: Callable[..., Tensor] = functional.avg_pool2d if rank == 2 else functional.avg_pool3d
            if not some:
                return pool(x, self.kernel, self.stride)
            inside = functional.pad(torch.ones_like(x[:1, :1]), flat(pads))
            return pool(functional.pad(x, flat(pads)), self.kernel, self.stride) / pool(
                inside, self.kernel, self.stride
            )
        largest = functional.max_pool2d if rank == 2 else functional.max_pool3d
        padded = functional.pad(x, flat(pads), value=-torch.inf) if some else x
        result: Tensor = largest(padded, self.kernel, self.stride)
        return result


class GlobalPool(nn.Module):
    """Maximum or mean over space."""

    def __init__(self, average: bool, keep: bool) -> None:
        super().__init__()
        self.average, self.keep = average, keep

    def forward(self, x: Tensor) -> Tensor:
        """Pool."""
        axes = tuple(range(2, x.ndim))
        return x.mean(axes, keepdim=self.keep) if self.average else x.amax(axes, keepdim=self.keep)


class Shape(nn.Module):
    """A new shape, in the order in which Keras has the numbers.

    Parameters
    ----------
    shape : tuple of int
        Without the batch; (-1,) flattens.
    last_before, last_after : bool
        Whether Keras has channels last in what comes in, and in what goes out.
    """

    def __init__(self, shape: tuple[int, ...], last_before: bool, last_after: bool) -> None:
        super().__init__()
        self.shape, self.last_before, self.last_after = shape, last_before, last_after

    def forward(self, x: Tensor) -> Tensor:
        """Reshape."""
        ordered = channels_last(x) if self.last_before else x
        result = ordered.reshape(len(x), *self.shape)
        return channels_first(result) if self.last_after else result


class Pad(nn.Module):
    """Zeros around the image; negative widths cut off."""

    def __init__(self, pads: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.pads = flat(pads)

    def forward(self, x: Tensor) -> Tensor:
        """Pad."""
        return functional.pad(x, self.pads)


class Enlarge(nn.Module):
    """Repeat voxels, or interpolate between pixels."""

    def __init__(self, size: tuple[int, ...], mode: str) -> None:
        super().__init__()
        self.size, self.mode = size, mode

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge."""
        sizes = [n * factor for n, factor in zip(x.shape[2:], self.size, strict=True)]
        if self.mode == "nearest":
            return functional.interpolate(x, sizes, mode="nearest")
        return functional.interpolate(x, sizes, mode=self.mode, align_corners=False)


class Merge(nn.Module):
    """Several tensors made one, position by position."""

    def __init__(self, function: Callable[[Sequence[Tensor]], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: Tensor) -> Tensor:
        """Combine."""
        return self.function(tensors)


class Join(nn.Module):
    """Several tensors one behind the other."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, *tensors: Tensor) -> Tensor:
        """Concatenate."""
        return torch.cat(tensors, self.axis)


class Scale(nn.Module):
    """Numbers times a scale plus an offset, each one number or one a channel."""

    scale: Tensor
    offset: Tensor

    def __init__(self, scale: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("offset", offset)

    def forward(self, x: Tensor) -> Tensor:
        """Scale."""
        return x * self.scale + self.offset


class ReLU(nn.Module):
    """Keras' ReLU with all its settings."""

    def __init__(self, largest: float | None, slope: float, threshold: float) -> None:
        super().__init__()
        self.largest, self.slope, self.threshold = largest, slope, threshold

    def forward(self, x: Tensor) -> Tensor:
        """Cut off."""
        above = x if self.largest is None else x.clamp(max=self.largest)
        return torch.where(x >= self.threshold, above, self.slope * (x - self.threshold))


class PReLU(nn.Module):
    """A ReLU with a slope of its own for each channel or position."""

    def __init__(self, slope: Tensor) -> None:
        super().__init__()
        self.slope = nn.Parameter(slope)

    def forward(self, x: Tensor) -> Tensor:
        """Cut off."""
        return x.clamp(min=0) + self.slope * x.clamp(max=0)


class ChannelNorm(nn.LayerNorm):
    """A normalisation over the channels of every position."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise."""
        return channels_first(super().forward(channels_last(x)))


class Unit(nn.Module):
    """Numbers divided by their length along an axis."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """Divide."""
        return functional.normalize(x, dim=self.axis)


class HardSigmoid(nn.Module):
    """Keras 3's hard sigmoid, x / 6 + 1/2 between 0 and 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Cut off."""
        return (x / 6 + 0.5).clamp(0, 1)


class Exponential(nn.Module):
    """The exponential function."""

    def forward(self, x: Tensor) -> Tensor:
        """Raise."""
        return x.exp()


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "elu": nn.ELU,
    "selu": nn.SELU,
    # Keras' default is the exact one, without tanh.
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "hard_sigmoid": HardSigmoid,
    "hard_silu": nn.Hardswish,
    "hard_tanh": nn.Hardtanh,
    "log_sigmoid": nn.LogSigmoid,
    "celu": nn.CELU,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "exponential": Exponential,
    "softmax": lambda: nn.Softmax(1),
    "log_softmax": lambda: nn.LogSoftmax(1),
}
"""By the names that Keras has for them; a softmax is over the channels."""
