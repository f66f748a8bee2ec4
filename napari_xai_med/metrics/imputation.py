"""Voxels filled in from those around them, so that what is gone does not show as a shape: noisy linear imputation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_TOLERANCE = 1e-4
"""Of what is filled in, relative to what it is made of; the noise is larger."""
_MOST = 2000
"""Rounds, for holes of some thousand voxels across."""


def side_weights(spacing: Sequence[float]) -> tuple[float, ...]:
    """Weight of the next voxel along each axis, where the middle has 1: 1/2, less where it is farther away.

    A neighbour's weight is the product over the axes. On pixels these are 1/6 for direct and 1/12 for diagonal
    neighbours, as Rong et al. have it, of whose 3 x 3 weights this is the form that goes on to volumes.
    """
    nearest = min(spacing)
    return tuple((nearest / step) ** 2 / 2 for step in spacing)


def imputed(image: Tensor, removed: Tensor, sides: Sequence[float]) -> Tensor:
    """Images whose removed voxels are the weighted mean of their neighbours, removed ones too.

    Own conjugate gradients, and not SciPy's as in `inpainted` or the authors' sparse solver: these equations are a
    short sum along each axis, so that no matrix is built, and all images of a batch are solved at once, on the
    network's device. They are tested to give what SciPy's `spsolve` gives.

    Parameters
    ----------
    image : Tensor, shape (C, *spatial)
    removed : Tensor of bool, shape (B, *spatial)
        Not all voxels of an image.
    sides : sequence of float
        See `side_weights`.

    Returns
    -------
    Tensor, shape (B, C, *spatial)

    References
    ----------
    Rong et al. 2022, A consistent and efficient evaluation strategy for attribution methods, ICML, arXiv:2202.00449.
    """
    hole = removed[:, None]
    # Neighbours beyond the border do not count.
    total = _around(torch.ones_like(image[:1])[None], sides)

    def product(values: Tensor) -> Tensor:
        return torch.where(hole, total * values - _around(values, sides), 0)

    known = torch.where(hole, 0, image)
    right = torch.where(hole, _around(known, sides), 0)
    start = torch.where(hole, image.flatten(1).mean(1).reshape(-1, *(1 for _ in sides)), 0)
    return known + _solved(product, right, start, total)


def _around(values: Tensor, sides: Sequence[float]) -> Tensor:
    """Weighted sums of each voxel's neighbours, shape (B, C, *spatial)."""
    result = values
    for axis, side in enumerate(sides, 2):
        last = values.shape[axis] - 1
        before, result = result, result.clone()
        result.narrow(axis, 1, last).add_(before.narrow(axis, 0, last), alpha=side)
        result.narrow(axis, 0, last).add_(before.narrow(axis, 1, last), alpha=side)
    return result - values


def _solved(product: Callable[[Tensor], Tensor], right: Tensor, values: Tensor, diagonal: Tensor) -> Tensor:
    """Conjugate gradients for each image and channel by itself, which stop one by one."""
    axes = tuple(range(2, right.ndim))

    def dot(one: Tensor, other: Tensor) -> Tensor:
        return (one * other).sum(axes, keepdim=True)

    rest = right - product(values)
    way = rest / diagonal
    size = dot(rest, way)
    enough = _TOLERANCE**2 * dot(right, right / diagonal)
    for _ in range(_MOST):
        going = size > enough
        if not bool(going.any()):
            break
        turned = product(way)
        # What is done keeps its bits, whatever else is in the batch.
        step = torch.where(going, size / dot(way, turned), 0)
        values = values + step * way
        rest = rest - step * turned
        scaled = rest / diagonal
        new = dot(rest, scaled)
        way = torch.where(going, scaled + new / size * way, way)
        size = torch.where(going, new, size)
    return values
