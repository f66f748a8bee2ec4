"""Rows of true and false, as the engine takes them, that stand for the number of an image."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from napari_xai_med.games.base import Coalitions


def numbers_as_bits(count: int) -> Coalitions:
    """The numbers from 0 to below `count`, shape (count, bits)."""
    return (np.arange(count)[:, None] >> np.arange(count.bit_length()) & 1).astype(bool)


def bits_as_numbers(bits: Tensor, count: int) -> Tensor:
    """The numbers that rows stand for, shape (B,).

    The engine tries its batches with rows that may be no number: they are some number below `count` too.
    """
    places = 1 << torch.arange(bits.shape[1], device=bits.device)
    return (bits * places).sum(1) % count
