"""RISE: the mean of random masks, weighted by what the classifier says behind each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from napari_xai_med.explainers.base import RawMap, register
from napari_xai_med.explainers.masked import MaskedExplainer, Play, told_of
from napari_xai_med.games.base import Float
from napari_xai_med.games.numbered import bits_as_numbers, numbers_as_bits
from napari_xai_med.options import option

_ROUND = 64
"""Masks from one estimate to the next."""
_CHUNK = 8
"""Masks that are added up at once, however many images are computed at once: sums in another order are other bits."""


@register
@dataclass(frozen=True)
class RISE(MaskedExplainer):
    """RISE: the mean of random soft masks, each weighted by what the classifier says of the image behind it.

    A mask's cells are shown at random, and it is scaled up linearly and shifted by less than a cell. With `centred`
    the mean of all masked images' scores is taken off each: what is explained is a logit by default, whose level would
    hide everything else. No library has it for volumes.

    References
    ----------
    Petsiuk, Das & Saenko 2018, RISE: Randomized input sampling for explanation of black-box models, BMVC,
    arXiv:1806.07421.
    """

    name: ClassVar[str] = "rise"
    title: ClassVar[str] = "RISE"
    paper: ClassVar[str] = "Petsiuk et al. 2018, arXiv:1806.07421"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"masks": 4000, "cells": 7, "probability": 0.5, "centred": False, "baseline": "zero"},
    }

    masks: int = option(1000, "Masked images to ask about.", limits=(2, 1_000_000))
    cells: int = option(7, "Cells of a mask along each axis.", limits=(1, 64))
    probability: float = option(0.5, "How probable it is for a cell to be shown.", limits=(0.01, 0.99))
    centred: bool = option(
        True, "Whether the mean score of all masked images is taken off; the map as published is without."
    )

    def maps(self, play: Play) -> Iterator[Callable[[], list[RawMap]]]:
        """Maps after each round of masks; see `MaskedExplainer`."""
        image = play.image
        masks = _Masks.drawn(image, play.baseline.to(image), self)
        coalitions = numbers_as_bits(self.masks)
        game = play.game(masks, coalitions.shape[1], self.batch_size)
        game.expected = self.masks
        sums = [_Sums(len(play.targets), image) for _ in range(2)]
        scores = np.empty((0, len(play.targets)))
        for start in range(0, self.masks, _ROUND):
            scores = np.concatenate([scores, game(coalitions[start : start + _ROUND])])
            for first in range(start, len(scores), _CHUNK):
                numbers = torch.arange(first, min(first + _CHUNK, len(scores)), device=image.device)
                # The first score is taken off all: logits far from 0 would leave few digits to their differences.
                above = scores[first : first + _CHUNK] - scores[0]
                sums[first // _CHUNK % 2].add(masks.of(numbers), above)
            yield partial(self._maps, sums, scores, *told_of(game))

    def _maps(self, sums: list[_Sums], scores: Float, facts: dict[str, Any], notices: tuple[str, ...]) -> list[RawMap]:
        """A map for each target."""
        told = facts | {"masks_used": len(scores)}
        return [self._map(sums, k, column, dict(told), notices) for k, column in enumerate(scores.T)]

    def _map(
        self, sums: list[_Sums], target: int, scores: Float, facts: dict[str, Any], notices: tuple[str, ...]
    ) -> RawMap:
        count = len(scores)
        # What is still to be taken off each score.
        level = float((scores - scores[0]).mean()) if self.centred else -float(scores[0])
        above = torch.stack([half.scores[target] - level * half.masks for half in sums]).sum(0)
        values = (above / (count * self.probability)).cpu().numpy()
        facts["standard_error"] = None
        first, second = (half.count for half in sums)
        if second:
            # Two halves are two runs with fewer masks, each with a mean of its own.
            levels = [float(half.total[target]) / half.count if self.centred else level for half in sums]
            maps = [
                (half.scores[target] - own * half.masks) / half.count for half, own in zip(sums, levels, strict=True)
            ]
            error = float((maps[0] - maps[1]).square().mean().sqrt()) / self.probability
            facts["standard_error"] = error * (first * second) ** 0.5 / count
        facts["mean_score"] = float(scores.mean())
        return RawMap(values.astype(np.float32), np.eye(values.ndim + 1), facts, notices)


class _Sums:
    """Masks and their scores added up."""

    def __init__(self, targets: int, image: Tensor) -> None:
        shape = tuple(image.shape[1:])
        self.scores = image.new_zeros((targets, *shape))
        self.masks = image.new_zeros(shape)
        self.total: Float = np.zeros(targets)
        self.count = 0

    def add(self, masks: Tensor, scores: Float) -> None:
        """Masks, (B, 1, *spatial), with their scores, (B, T)."""
        weights = torch.from_numpy(scores).to(masks)
        self.scores += torch.tensordot(weights.T, masks[:, 0], 1)
        self.masks += masks[:, 0].sum(0)
        self.total += scores.sum(0)
        self.count += len(masks)


@dataclass(frozen=True)
class _Masks:
    """Masks by number, of which only small grids are kept.

    Parameters
    ----------
    image, baseline : Tensor, shape (C, *spatial)
    cells : Tensor, shape (N, 1, *cells)
        1 where a cell is shown.
    shifts : ndarray of int, shape (N, number of axes)
        In voxels, less than a cell.
    size : tuple of int
        That the cells are scaled up to: one cell more than covers the image, for the shift.
    """

    image: Tensor
    baseline: Tensor
    cells: Tensor
    shifts: NDArray[np.int64]
    size: tuple[int, ...]

    @classmethod
    def drawn(cls, image: Tensor, baseline: Tensor, options: RISE) -> _Masks:
        """As many as the options say."""
        random = np.random.default_rng(options.seed)
        shape = tuple(image.shape[1:])
        counts = [min(options.cells, n) for n in shape]
        lengths = [ceil(n / count) for n, count in zip(shape, counts, strict=True)]
        shown = random.random((options.masks, 1, *counts)) < options.probability
        shifts = random.integers(0, lengths, (options.masks, len(shape)))
        size = tuple((count + 1) * length for count, length in zip(counts, lengths, strict=True))
        return cls(image, baseline, torch.from_numpy(shown).to(image), shifts, size)

    def __call__(self, coalitions: Tensor) -> Tensor:
        """Images behind masks whose numbers, in bits, are the coalitions; shape (B, C, *spatial)."""
        masks = self.of(bits_as_numbers(coalitions, len(self.cells)))
        return torch.lerp(self.baseline, self.image, masks)

    def of(self, numbers: Tensor) -> Tensor:
        """Masks by number, shape (B, 1, *spatial)."""
        mode = "bilinear" if len(self.size) == 2 else "trilinear"
        scaled = interpolate(self.cells[numbers], self.size, mode=mode)
        shape = self.image.shape[1:]
        cut = [
            mask[(slice(None), *(slice(start, start + n) for start, n in zip(shift, shape, strict=True)))]
            for mask, shift in zip(scaled, self.shifts[numbers.cpu().numpy()].tolist(), strict=True)
        ]
        return torch.stack(cut)
