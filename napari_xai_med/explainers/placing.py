"""Feature maps on the grid of the network's input, many at once and on the network's device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from napari_xai_med.models.receptive_field import ReceptiveField


def on_input(maps: Tensor, field: ReceptiveField, shape: tuple[int, ...]) -> Tensor:
    """Feature maps, sampled linearly on the grid of the input; beyond the outermost cell centres their edge goes on.

    The same as `resample_linear`, which takes one array at a time, on the processor only and thirty times as long:
    cells lie along the input's axes, so that one axis can be done after the other, each as a product with a matrix.

    Parameters
    ----------
    maps : Tensor, shape (K, *layer)
    field : ReceptiveField
        Where the cells lie.
    shape : tuple of int
        Of the input's spatial axes.

    Returns
    -------
    Tensor, shape (K, *shape)
    """
    sizes = maps.shape[1:]
    values, before = maps, len(maps)
    for axis, (n, cells) in enumerate(zip(shape, sizes, strict=True)):
        matrix = _matrix(n, cells, field.start[axis], field.jump[axis]).to(maps)
        after = values.numel() // (before * cells)
        # As one product over all maps for the last axis, where the result is largest.
        values = (
            values.reshape(before, cells) @ matrix.T if after == 1 else matrix @ values.reshape(before, cells, after)
        )
        before *= n
    return values.reshape(len(maps), *shape)


def _matrix(n: int, cells: int, start: float, jump: float) -> Tensor:
    """How much of each cell goes into each of n input positions along one axis, shape (n, cells)."""
    places = np.clip((np.arange(n) - start) / jump, 0, cells - 1)
    low = np.minimum(places.astype(int), max(cells - 2, 0))
    matrix = np.zeros((n, cells))
    matrix[np.arange(n), low] = 1 - (places - low)
    matrix[np.arange(n), np.minimum(low + 1, cells - 1)] += places - low
    return torch.from_numpy(matrix)
