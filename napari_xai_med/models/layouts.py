"""In which order of axes a layer gives its feature maps, and how to read and write them as (N, C, *spatial)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import prod

import torch
from torch import Tensor

from napari_xai_med.models.geometry import Axis, Geometry, size_of, steps_of


class Order(StrEnum):
    """The order of axes of a layer's output."""

    MAPS = "maps"
    """(N, C, *spatial)."""
    CHANNELS_LAST = "channels last"
    """(N, *spatial, C), as inside of Swin transformers."""
    TOKENS = "tokens"
    """(N, tokens, C), as inside of vision transformers."""


@dataclass(frozen=True)
class Layout:
    """Where the cells of feature maps are in a tensor.

    Parameters
    ----------
    order : Order
    shape : tuple of int
        Spatial size of the maps.
    lead : int
        Tokens before those of the image's patches, such as a class token.
    """

    order: Order
    shape: tuple[int, ...]
    lead: int = 0

    def maps(self, output: Tensor) -> Tensor:
        """The feature maps in a layer's output, shape (N, C, *shape); tokens that are no patches are left out."""
        if self.order is Order.MAPS:
            return output
        if self.order is Order.CHANNELS_LAST:
            return output.movedim(-1, 1)
        patches = output[:, self.lead : self.lead + prod(self.shape)]
        return patches.transpose(1, 2).unflatten(2, self.shape)

    def output(self, maps: Tensor, before: Tensor) -> Tensor:
        """A layer's output with other feature maps than before."""
        if self.order is Order.MAPS:
            return maps
        if self.order is Order.CHANNELS_LAST:
            return maps.movedim(1, -1)
        end = self.lead + prod(self.shape)
        return torch.cat([before[:, : self.lead], maps.flatten(2).transpose(1, 2), before[:, end:]], 1)


def layout_of(geometry: Geometry, spatial_dims: int) -> tuple[Layout, Sequence[Axis]] | None:
    """How feature maps lie in a tensor of one image, and their spatial axes; None if they do in no known way.

    Windows are stacked as batch, and transposed maps have other axes' positions: both would be read along the
    wrong axes.

    Parameters
    ----------
    geometry : tuple of tuple of Factor
        Of the tensor.
    spatial_dims : int
        Of the network's input.
    """
    found = [_axes_in(axis) for axis in geometry]
    if size_of(geometry[0]) != 1 or found[0]:
        return None
    if len(geometry) == 3:
        return _tokens(geometry, found, spatial_dims)
    if len(geometry) != spatial_dims + 2:
        return None
    if found[1:] == [*([k] for k in range(spatial_dims)), []] and all(map(steps_of, geometry[1:-1])):
        return Layout(Order.CHANNELS_LAST, _sizes(geometry[1:-1])), geometry[1:-1]
    if all(set(axes) <= {k} for k, axes in enumerate(found, start=-2)):
        return Layout(Order.MAPS, _sizes(geometry[2:])), geometry[2:]
    return None


def patches_in(axis: Axis, spatial_dims: int) -> tuple[Layout, Sequence[Axis]] | None:
    """How the patches of an image lie along an axis of tokens, and the spatial axes; None if it is no such axis."""
    lead, inside = (axis[0].lead, axis[0].inside) if len(axis) == 1 and axis[0].inside else (0, axis)
    steps = [factor.steps.axis for factor in inside if factor.steps is not None]
    if steps != list(range(spatial_dims)) or len(inside) != spatial_dims:
        return None
    axes = [(factor,) for factor in inside]
    return Layout(Order.TOKENS, _sizes(axes), lead), axes


def _tokens(geometry: Geometry, found: list[list[int]], spatial_dims: int) -> tuple[Layout, Sequence[Axis]] | None:
    return None if found[2] else patches_in(geometry[1], spatial_dims)


def _axes_in(axis: Axis) -> list[int]:
    """Spatial axes of the network's input that an axis' positions stand for."""
    factors = [each for factor in axis for each in (factor, *factor.inside)]
    return [factor.steps.axis for factor in factors if factor.steps is not None]


def _sizes(axes: Sequence[Axis]) -> tuple[int, ...]:
    return tuple(size_of(axis) for axis in axes)
